#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "augment/scan.h"

namespace dino {

/// What tells that a file was changed.
struct FileStamp {
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

/// The stamp of a file; zeros if there is none, which fit no file that an index knows.
FileStamp stamp_of(const std::string& path);

struct IndexedImage {
  std::string key;  ///< names the image in its source
  FileStamp stamp;
  ScannedImage image;
};

/// Reads what `save_scan_index` wrote for the same source. Nothing in the file is trusted: one that is damaged, too large, or of another
/// source or version counts as empty.
std::unordered_map<std::string, IndexedImage> load_scan_index(const std::string& path, const std::string& source);

/// Writes the index, atomically. Throws Error if that cannot be done.
void save_scan_index(const std::string& path, const std::string& source, const std::vector<IndexedImage>& images);

/// Where the index of a source belongs: in $XDG_CACHE_HOME/dino_engine, else in ~/.cache/dino_engine; empty if neither is known or the
/// place lies in the source itself, in which nothing is ever written.
std::string scan_index_path(const std::string& source);

/// The absolute path of what `source` names, or, for several files, the text with the folder that it is relative to.
std::string source_identity(const std::string& source);

}  // namespace dino
