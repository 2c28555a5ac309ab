#include "train/tensorboard.h"

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/error.h"

namespace dino {
namespace {

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

template <class T>
std::string little_endian(T value) {
  static_assert(std::endian::native == std::endian::little, "event files are little-endian");
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

uint32_t crc32c(const std::string& text) { return dino::crc32c(std::as_bytes(std::span(text))); }

/// A checksum as TFRecord stores it: rotated and shifted, since checksums of data with checksums in it are weak.
std::string masked_checksum(const std::string& text) { return little_endian(std::rotr(crc32c(text), 15) + 0xA282EAD8u); }

// Fields of a protocol buffer: the field's number and wire type, then the value.

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string key(int field, int wire_type) { return varint(static_cast<uint64_t>(field << 3 | wire_type)); }
std::string integer_field(int field, int64_t value) { return key(field, 0) + varint(static_cast<uint64_t>(value)); }
std::string double_field(int field, double value) { return key(field, 1) + little_endian(value); }
std::string float_field(int field, float value) { return key(field, 5) + little_endian(value); }
std::string bytes_field(int field, const std::string& value) { return key(field, 2) + varint(value.size()) + value; }

// Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7. Summary: value 1. Value: tag 1, simple_value 2.
// SessionLog: status 1, where 1 is START.

std::string event_at(int64_t step, const std::string& what) { return double_field(1, seconds_since_1970()) + integer_field(2, step) + what; }

}  // namespace

uint32_t crc32c(std::span<const std::byte> data) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> rows{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
      rows[i] = crc;
    }
    return rows;
  }();
  uint32_t crc = ~0u;
  for (const std::byte byte : data) crc = crc >> 8 ^ table[(crc ^ static_cast<uint32_t>(byte)) & 0xFF];
  return ~crc;
}

TensorBoardLog::TensorBoardLog(const std::string& folder, int64_t first_step) {
  // A session that began within the same second has this name already.
  auto second = static_cast<int64_t>(seconds_since_1970());
  do path_ = (std::filesystem::path(folder) / str("events.out.tfevents.", second++, ".dino_engine")).string();
  while (std::filesystem::exists(path_));
  file_ = std::fopen(path_.c_str(), "wb");
  check(file_ != nullptr, path_, ": cannot be written: ", std::strerror(errno));
  write_record(event_at(0, bytes_field(3, "brain.Event:2")));
  write_record(event_at(first_step, bytes_field(7, integer_field(1, 1))));
}

TensorBoardLog::~TensorBoardLog() { std::fclose(file_); }

void TensorBoardLog::write(const nlohmann::json& line) {
  std::string summary;
  for (const auto& [name, value] : line.items())
    if (value.is_number() && name != "step" && std::isfinite(value.get<double>()))
      summary += bytes_field(1, bytes_field(1, name) + float_field(2, value.get<float>()));
  write_record(event_at(line.at("step").get<int64_t>(), bytes_field(5, summary)));
}

void TensorBoardLog::write_record(const std::string& event) {
  const std::string length = little_endian(static_cast<uint64_t>(event.size()));
  const std::string record = length + masked_checksum(length) + event + masked_checksum(event);
  const bool written = std::fwrite(record.data(), 1, record.size(), file_) == record.size() && std::fflush(file_) == 0;
  check(written, path_, ": cannot be written: ", std::strerror(errno));
}

}  // namespace dino
