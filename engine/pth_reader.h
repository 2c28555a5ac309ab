#pragma once

#include <map>
#include <memory>
#include <string>

#include "engine/pth.h"

namespace dino {

/// Builds a PthFile: parses the pickle, then turns the recorded calls in it into tensors and numbers. For
/// engine/pth.cpp.
class PthReader {
 public:
  PthReader(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::string& path);

  /// Throws FormatError.
  PthFile read();

  static bool is_zip(std::span<const std::byte> bytes);
  static bool is_legacy(std::span<const std::byte> bytes);

 private:
  struct StorageType {
    std::string_view global;
    Dtype dtype;  ///< none: we know its size but do not read it
    size_t element_bytes;
  };
  struct Storage {
    const StorageType* type = nullptr;
    int64_t elements = 0;
    std::span<const std::byte> bytes;
  };

  void read_zip_format();
  void read_legacy_format();
  void interpret_calls();
  void interpret(PickleValue& value);
  int64_t tensor_index(const PickleValue& call);
  const Storage& storage_of(const PickleValue& id) const;
  Storage describe_storage(const PickleValue& id) const;
  std::vector<int64_t> integers_of(const PickleValue& tuple, const char* field) const;
  [[noreturn]] void fail(const std::string& rule) const;

  PthFile file_;
  std::span<const std::byte> bytes_;
  std::map<std::string, Storage, std::less<>> storages_;
  static const StorageType kStorageTypes[12];
};

}  // namespace dino
