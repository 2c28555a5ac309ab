#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace dino {

/// An open regular file that many threads may read at once.
class InputFile {
 public:
  /// Throws DataError if `path` is not a readable regular file.
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  /// Bytes in the file when it was opened.
  uint64_t size() const { return size_; }

  /// Fills `out` from `offset` on. Throws DataError naming file and offset if the file ends before.
  void read(uint64_t offset, std::span<uint8_t> out) const;
  std::vector<uint8_t> read(uint64_t offset, uint64_t bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

/// The whole file. Throws DataError if it cannot be read or is larger than `max_bytes`.
std::vector<uint8_t> read_file(const std::string& path, uint64_t max_bytes = uint64_t{1} << 31);

}  // namespace dino
