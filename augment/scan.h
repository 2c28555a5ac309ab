#pragma once

#include <array>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "augment/dataset.h"

/// Looks at every image of a dataset before anybody trains on it: what cannot be read, what is too small, what is there twice.
namespace dino {

using ContentHash = std::array<uint64_t, 2>;

/// 128 bits that differ for different contents but by accident; no protection against intent.
ContentHash content_hash(std::span<const uint8_t> bytes);

/// One image that was looked at.
struct ScannedImage {
  ImageHeader header;
  uint64_t bytes = 0;  ///< in its source
  ContentHash hash{};
  std::string problem;  ///< why it cannot be read; empty if it can
  bool operator==(const ScannedImage&) const = default;
};

struct ScanConfig {
  ImageKind kind{};        ///< that images are decoded to
  int workers = 0;         ///< threads; 0 means one per processor
  size_t max_images = 0;   ///< look at so many only, spread evenly; 0: all
  double max_seconds = 0;  ///< begin no image later than this; 0: no limit
  /// The file in which the findings are kept for the next scan: those of an image count as long as size and time of change of its
  /// file stay the same. Empty: none. See augment/scan_index.h.
  std::string index{};
  std::string source{};                                     ///< what the dataset was opened from
  std::function<void(size_t done, size_t all)> progress{};  ///< called now and then from the calling thread
};

/// Which images were looked at, and what was found.
struct Scan {
  std::vector<size_t> images;       ///< their numbers in the dataset, rising
  std::vector<ScannedImage> found;  ///< in the same order
  size_t remembered = 0;            ///< of these, how many were not read because the index knew them
  std::string index_problem;        ///< why the index could not be written; empty if it was, or need not be
};

/// Reads and decodes images (JPEGs at an eighth of their size, which reads all of the file) in several threads. An image that cannot
/// be read is a finding; nothing is thrown for it.
Scan scan(const Dataset& dataset, const ScanConfig& config);

/// Smallest, middle and largest of some numbers; 0 of none.
struct Spread {
  int64_t least = 0, median = 0, most = 0;
};
Spread spread_of(std::vector<int64_t> values);

/// What a scan says about the data.
struct DataReport {
  /// An image with what is to be said of it.
  using Remark = std::pair<std::string, std::string>;

  size_t images = 0, looked_at = 0, readable = 0;
  uint64_t bytes = 0;  ///< of the images that were looked at, as they are stored
  Spread width, height;
  std::map<std::string, size_t> formats;
  std::map<std::string, size_t> kinds;                  ///< such as "colour", "gray", "colour with transparency, 16 bits", "CMYK"
  std::vector<std::pair<std::string, size_t>> classes;  ///< with the number of images of each in the whole dataset
  size_t unlabelled = 0;
  std::vector<Remark> unreadable;                       ///< and the reason
  std::vector<Remark> tiny;                             ///< and the size
  std::vector<std::vector<std::string>> duplicates;     ///< groups with equal contents
  std::map<std::string, std::vector<std::string>> odd;  ///< images by kind, unless it is that of all or what is trained on

  /// Images that are there more than once, but for the first of each group.
  size_t copies() const;
};

/// Images with a side below `smallest_side` pixels are tiny; `kind` is what is trained on.
DataReport summarize(const Dataset& dataset, const Scan& scan, int64_t smallest_side, ImageKind kind);

}  // namespace dino
