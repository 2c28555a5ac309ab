#include <cstring>

#include "kernels/philox.h"
#include "tests/train/process.h"

using namespace dino;
using testing::Folder;

namespace {

void write(const std::string& path, const std::string& contents) { std::ofstream(path, std::ios::binary) << contents; }

}  // namespace

TEST_CASE("a checkpoint that was cut short is refused at any length, and nothing of the run is touched") {
  const Folder folder;
  const std::string run = folder / "run", train = testing::small_arguments(testing::make_images(folder, 12), run);
  REQUIRE(testing::run_program(train + " --steps 4").code == 0);
  const std::string path = run + "/checkpoint.safetensors", whole = testing::read_file(path);
  Random random(2, Purpose::test, 0);
  for (int i = 0; i < 100; ++i) {
    // Near the front lies the header, in which lengths matter more.
    const size_t length = i < 40 ? random.below(600) : random.below(static_cast<uint32_t>(whole.size()));
    INFO(length << " of " << whole.size() << " bytes");
    write(path, whole.substr(0, length));
    const auto before = testing::contents_of(run);
    const testing::Outcome outcome = testing::run_program(train);
    CHECK(outcome.code == 2);
    CHECK_THAT(testing::error_line(outcome), Catch::Contains(path));
    CHECK(testing::contents_of(run) == before);
  }
}

TEST_CASE("a checkpoint with a damaged byte is refused, or makes no difference") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run", train = testing::small_arguments(images, run);
  REQUIRE(testing::run_program(testing::small_arguments(images, folder / "straight") + " --steps 5").code == 0);
  const std::string expected = testing::read_file(folder / "straight/checkpoint.safetensors");
  REQUIRE(testing::run_program(train + " --steps 4").code == 0);
  const std::string path = run + "/checkpoint.safetensors", whole = testing::read_file(path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data(), sizeof header_bytes);
  Random random(3, Purpose::test, 0);
  int refused = 0;
  for (int i = 0; i < 100; ++i) {
    const size_t at = i < 10 ? random.below(8) : i < 60 ? random.below(static_cast<uint32_t>(header_bytes)) : random.below(static_cast<uint32_t>(whole.size()));
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random.below(8)));
    INFO("byte " << at << " of " << whole.size() << ", header of " << header_bytes);
    write(path, damaged);
    const auto before = testing::contents_of(run);
    const testing::Outcome outcome = testing::run_program(train + " --steps 5");
    if (outcome.code == 0) {
      CHECK(testing::read_file(path) == expected);
      continue;
    }
    ++refused;
    CHECK(outcome.code == 2);
    CHECK_THAT(testing::error_line(outcome), Catch::Contains(path));
    CHECK(testing::contents_of(run) == before);
  }
  CHECK(refused > 90);
}
