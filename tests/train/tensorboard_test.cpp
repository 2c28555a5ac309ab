#include "train/tensorboard.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/train/run_folder.h"

using namespace dino;
using testing::Folder;

namespace {

/// CRC-32C bit by bit, by its definition.
uint32_t slow_crc(const std::string& text) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : text)
    for (int bit = 0; bit < 8; ++bit) {
      const bool odd = ((crc >> 0) ^ (static_cast<unsigned char>(c) >> bit)) & 1;
      crc = (crc >> 1) ^ (odd ? 0x82F63B78u : 0u);
    }
  return ~crc;
}

uint32_t masked(const std::string& text) {
  const uint32_t crc = slow_crc(text);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

template <class T>
T at(const std::string& bytes, size_t place) {
  T value;
  REQUIRE(place + sizeof(T) <= bytes.size());
  std::memcpy(&value, bytes.data() + place, sizeof(T));
  return value;
}

/// The events of a file, with all checksums checked.
std::vector<std::string> events_of(const std::string& path) {
  const std::string bytes = testing::read_file(path);
  std::vector<std::string> events;
  for (size_t place = 0; place < bytes.size();) {
    const auto length = at<uint64_t>(bytes, place);
    CHECK(at<uint32_t>(bytes, place + 8) == masked(bytes.substr(place, 8)));
    events.push_back(bytes.substr(place + 12, length));
    CHECK(at<uint32_t>(bytes, place + 12 + length) == masked(events.back()));
    place += 16 + length;
  }
  return events;
}

std::vector<std::string> event_files(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : testing::fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

TEST_CASE("crc32c gives the check value of its definition") {
  const std::string digits = "123456789";
  CHECK(crc32c(std::as_bytes(std::span(digits))) == 0xE3069283u);
  CHECK(slow_crc(digits) == 0xE3069283u);
}

TEST_CASE("an event file holds a version, the mark of a session, and the finite numbers of each line") {
  const Folder folder;
  TensorBoardLog(folder.path.string(), 300).write({{"step", 300}, {"loss", 0.5}, {"kl", std::nan("")}, {"verdict", "healthy"}});
  const auto files = event_files(folder.path.string());
  REQUIRE(files.size() == 1);
  const auto events = events_of(files[0]);
  REQUIRE(events.size() == 3);
  // Behind the time (9 bytes): step 0 and the version; step 300 and SessionLog START; step 300 and loss 0.5f.
  CHECK(events[0].substr(9) == std::string("\x10\x00\x1A\x0D", 4) + "brain.Event:2");
  CHECK(events[1].substr(9) == std::string("\x10\xAC\x02\x3A\x02\x08\x01", 7));
  CHECK(events[2].substr(9) == std::string("\x10\xAC\x02\x2A\x0D\x0A\x0B\x0A\x04loss\x15\x00\x00\x00\x3F", 20 - 2));
}

TEST_CASE("each session of a run writes an event file with its logged steps, unless told not to") {
  const Folder folder;
  const std::string run = testing::small_arguments(testing::make_images(folder, 12), folder / "run");
  REQUIRE(testing::run_program(run + " --steps 4").code == 0);
  REQUIRE(testing::run_program(run).code == 0);
  const auto files = event_files(folder / "run");
  REQUIRE(files.size() == 2);
  CHECK(events_of(files[0]).size() == 2 + 4);
  CHECK(events_of(files[1]).size() == 2 + 5);
  REQUIRE(testing::run_program(testing::small_arguments(folder / "images", folder / "other") + " --tensorboard false").code == 0);
  CHECK(event_files(folder / "other").empty());
}
