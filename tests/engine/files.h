#pragma once

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "kernels/error.h"

namespace dino::test {

/// A new folder under the system's temporary one, removed with its contents.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "dino_test_XXXXXX").string();
    check(::mkdtemp(pattern.data()) != nullptr, pattern, ": cannot create");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  /// The path of a file in it.
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  check(in.good(), path, ": cannot open");
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

/// The path of a file of tests/golden.
inline std::string golden(const std::string& name) { return DINO_TESTS_DIR "/golden/" + name; }

/// `count` bytes of the object representation of `value`, which is little-endian.
template <class T>
std::string little_endian(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// Bytes on the heap, exactly as many as the text has, so that a sanitizer sees the first read beyond them.
struct HeapBytes {
  std::shared_ptr<std::vector<std::byte>> owner;
  std::span<const std::byte> span() const { return *owner; }
};

inline HeapBytes heap_bytes(const std::string& text) {
  auto owner = std::make_shared<std::vector<std::byte>>(text.size());
  owner->shrink_to_fit();
  if (!text.empty()) std::memcpy(owner->data(), text.data(), text.size());
  return {owner};
}

/// `text` with a few random bytes changed, removed, repeated, or its end cut off; the same for the same
/// `seed`.
inline std::string mutated(std::string text, unsigned seed) {
  std::mt19937 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  const size_t changes = 1 + below(4);
  for (size_t i = 0; i < changes && !text.empty(); ++i) {
    const size_t at = below(text.size());
    switch (below(8)) {
      case 0:
        text.resize(at);
        break;
      case 1:
        text.erase(at, 1 + below(8));
        break;
      case 2:
        text.insert(at, text.substr(below(text.size()), below(16)));
        break;
      case 3:
        text[at] = static_cast<char>(0xff);
        break;
      case 4:
        text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      default:
        text[at] = static_cast<char>(random());
        break;
    }
  }
  return text;
}

/// What `f` throws as E, or "" if it throws nothing.
template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

}  // namespace dino::test
