#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace dino {

/// The bytes of a whole file, mapped read-only. Shared, so that tensors can point into it. A file that is
/// replaced by rename while mapped keeps its old contents; one that is cut short in place must not be read
/// any more.
class MappedFile {
 public:
  /// Throws UsageError if the file cannot be opened, FormatError if it is not a regular file.
  static std::shared_ptr<const MappedFile> open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

}  // namespace dino
