#pragma once

#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace dino {

using Bytes = std::span<const std::byte>;

/// The bytes of a text, for use as a piece of a file.
inline Bytes bytes_of_text(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// Writes the pieces one after the other as the file `path`, so that a reader sees the old file or the whole
/// new one, also after a crash: `path.tmp` beside it, fsync, rename, fsync of the folder. A stale `path.tmp`
/// of a killed process is replaced. On failure `path.tmp` is removed, `path` is as before, and Error names
/// the path and the reason.
void write_file(const std::string& path, std::span<const Bytes> pieces);

/// Whether `write_file` could write `path`, found out by making its temporary file and removing that: for
/// asking before a long computation. Throws UsageError that names the path and the reason.
void check_writable(const std::string& path);

inline void write_file(const std::string& path, std::initializer_list<Bytes> pieces) {
  write_file(path, std::span<const Bytes>(pieces.begin(), pieces.size()));
}

}  // namespace dino
