#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace dino {

/// The entries of a ZIP archive in memory by name, as views into it. Reads what torch writes: stored
/// (uncompressed) entries, with or without ZIP64 (PKWARE APPNOTE.TXT 6.3, sections 4.3 and 4.5.3). Checksums
/// are not checked: torch can be told not to compute them. Throws FormatError; `path` is for messages.
std::map<std::string, std::span<const std::byte>> read_zip(std::span<const std::byte> bytes,
                                                           const std::string& path);

}  // namespace dino
