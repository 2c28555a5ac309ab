#include <catch2/catch.hpp>

#include <functional>

#include "augment/dataset.h"
#include "augment/decode.h"
#include "kernels/philox.h"
#include "tests/augment/fixtures.h"

// Deterministic damage to every format that is read: the answer must be an image or a DataError, nothing
// else.

namespace dino {
namespace {

using namespace fixtures;

Bytes damaged(Bytes bytes, Random& random) {
  const uint32_t size = static_cast<uint32_t>(bytes.size());
  switch (random.below(4)) {
    case 0:
      bytes.resize(random.below(size));
      break;
    case 1:  // damage near the front meets the headers
      for (uint32_t i = 0; i <= random.below(4); ++i) {
        bytes[random.below(std::min(size, 64u))] = static_cast<uint8_t>(random.bits());
      }
      break;
    case 2:
      for (uint32_t i = 0; i <= random.below(8); ++i)
        bytes[random.below(size)] ^= static_cast<uint8_t>(random.bits());
      break;
    default: {
      const uint32_t begin = random.below(size), end = std::min(size, begin + random.below(64));
      for (uint32_t i = begin; i < end; ++i) bytes[i] = static_cast<uint8_t>(random.bits() % 2 ? 0xFF : 0x00);
    }
  }
  return bytes;
}

// Calls `read`, which may throw DataError only; counts what happened so that a test sees both outcomes.
struct Outcome {
  int read = 0, refused = 0;
  void of(const std::function<void()>& attempt) {
    try {
      attempt();
      ++read;
    } catch (const DataError& error) {
      ++refused;
      if (std::string(error.what()).find('\n') != std::string::npos)
        FAIL("more than one line: " << error.what());
    }
  }
};

TEST_CASE("damaged images are decoded or refused") {
  const Image color = pattern(23, 31), gray = gray_pattern(23, 31);
  const std::vector<Bytes> files{jpeg(color), jpeg(gray),  png(color),  png16(gray), bmp(color),
                                 pnm(color),  webp(color), tiff(color), tiff(gray)};
  for (size_t format = 0; format < files.size(); ++format) {
    Outcome outcome;
    for (uint64_t i = 0; i < 250; ++i) {
      Random random(format, Purpose::test, i);
      const Bytes bytes = damaged(files[format], random);
      outcome.of([&] { decode(bytes, i % 2 ? 1 : 3, "damaged"); });
    }
    CAPTURE(format, outcome.read);
    CHECK(outcome.refused > 0);
  }
}

void damage_source(const std::string& name, const Bytes& whole, int rounds) {
  const TemporaryFolder folder;
  Outcome outcome;
  for (int i = 0; i < rounds; ++i) {
    Random random(99, Purpose::test, static_cast<uint64_t>(i));
    const std::string path = folder.write(name, damaged(whole, random));
    outcome.of([&] {
      const auto dataset = Dataset::open(path);
      for (size_t k = 0; k < std::min<size_t>(dataset->size(), 4); ++k) outcome.of([&] { dataset->load(k); });
    });
  }
  CAPTURE(name, outcome.read);
  CHECK(outcome.refused > 0);
}

TEST_CASE("damaged archives are read or refused") {
  Bytes archive;
  append_member(archive, "cat/one.png", png(pattern(5, 6)));
  append_member(archive, "././@LongLink",
                std::span(reinterpret_cast<const uint8_t*>("dog/very/long.png"), 17), 'L');
  append_member(archive, "dog/very/lon", png(pattern(6, 5)));
  append_member(archive, "pax", std::span(reinterpret_cast<const uint8_t*>("20 path=dog/two.png\n"), 20),
                'x');
  append_member(archive, "short", pnm(pattern(6, 5)));
  finish_archive(archive);
  damage_source("a.tar", archive, 500);
}

TEST_CASE("damaged IDX and CIFAR files are read or refused") {
  damage_source("a-images-idx3-ubyte", idx_images(5, 4, 3), 300);
  damage_source("b-images-idx3-ubyte.gz", gzip(idx_images(50, 7, 3)), 300);
  damage_source("c.bin", cifar(3, 1), 200);
}

TEST_CASE("damaged lists are read or refused") { damage_source("list.txt", Bytes(200, 'a'), 200); }

TEST_CASE("a tar header with a giant size is refused by name and offset") {
  Bytes archive;
  append_member(archive, "cat/one.png", png(pattern(5, 6)));
  for (size_t i = 124; i < 136; ++i) archive[i] = 0xFF;  // base 256
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? ' ' : archive[i];
  std::snprintf(reinterpret_cast<char*>(&archive[148]), 8, "%06o", sum);
  const TemporaryFolder folder;
  const std::string path = folder.write("a.tar", archive);
  CHECK_THROWS_WITH(Dataset::open(path), Catch::Contains(path) && Catch::Contains("offset 0"));
}

}  // namespace
}  // namespace dino
