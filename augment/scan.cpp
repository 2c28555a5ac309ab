#include "augment/scan.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <set>

#include "augment/image_kind.h"
#include "augment/scan_index.h"
#include "kernels/thread_pool.h"

namespace dino {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Between two words on what has been done.
constexpr size_t kImagesPerRound = 256;
/// A scan that is stopped loses no more than the work of so many seconds.
constexpr double kSecondsBetweenSaves = 30;

/// murmur3's finalizer (Austin Appleby, public domain): each bit of the input changes half of the output's.
uint64_t mixed(uint64_t x) {
  x = (x ^ x >> 33) * 0xFF51AFD7ED558CCDu;
  x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53u;
  return x ^ x >> 33;
}

ScannedImage look_at(const Dataset& dataset, size_t index, ImageKind kind) {
  constexpr int kMostReduction = 8;
  ScannedImage found;
  try {
    const StoredImage stored = dataset.stored(index);
    found.header = stored.header;
    found.bytes = stored.bytes.size();
    found.hash = content_hash(stored.bytes);
    if (stored.header.format == ImageFormat::pixels) return found;
    int height = 0, width = 0;
    const Image image = decode_reduced(stored.bytes, kind, dataset.name(index), [&](int whole_height, int whole_width) {
      height = whole_height;
      width = whole_width;
      return kMostReduction;
    });
    found.header.height = height ? height : image.height;
    found.header.width = width ? width : image.width;
  } catch (const DataError& error) {
    found.problem = error.what();
  }
  return found;
}

std::vector<size_t> spread_evenly(size_t images, size_t wanted) {
  const size_t count = wanted == 0 ? images : std::min(images, wanted);
  std::vector<size_t> chosen(count);
  for (size_t i = 0; i < count; ++i) chosen[i] = i * images / count;
  return chosen;
}

/// A scan with what is remembered of the one before.
class Scanner {
 public:
  Scanner(const Dataset& dataset, const ScanConfig& config)
      : dataset_(dataset), config_(config), pool_(config.workers), images_(spread_evenly(dataset.size(), config.max_images)) {
    if (config.index.empty()) return;
    // Another number of channels may be impossible for some images.
    identity_ = str(source_identity(config.source), " as ", text_of(config.kind));
    memory_ = load_scan_index(config.index, identity_);
    name_images();
  }

  Scan run() {
    const size_t all = images_.size();
    found_.resize(all);
    stamps_.resize(all);
    done_.resize(all);
    auto saved = Clock::now();
    for (size_t begin = 0; begin < all && !out_of_time(); begin += kImagesPerRound) {
      const size_t end = std::min(all, begin + kImagesPerRound);
      pool_.parallel(static_cast<int64_t>(end - begin), [&](int64_t chunk, int) { take(begin + static_cast<size_t>(chunk)); });
      if (config_.progress) config_.progress(end, all);
      if (read_ == 0 || seconds_since(saved) < kSecondsBetweenSaves) continue;
      save();
      saved = Clock::now();
    }
    if (read_ > 0 || memory_.size() != all) save();
    return result();
  }

 private:
  bool out_of_time() const { return config_.max_seconds > 0 && seconds_since(start_) > config_.max_seconds; }

  /// Keys of images in the index: independent of how the source was spelled, and different for each.
  void name_images() {
    std::string source = config_.source;
    while (source.ends_with('/')) source.pop_back();
    std::unordered_map<std::string, int> seen;
    for (const size_t image : images_) {
      const std::string& name = dataset_.name(image);
      std::string key = name.starts_with(source) ? name.substr(source.size()) : std::filesystem::absolute(name).string();
      if (const int before = seen[key]++) key += str("\n", before);
      keys_.push_back(std::move(key));
    }
  }

  void take(size_t i) {
    if (out_of_time()) return;
    done_[i] = 1;
    if (!keys_.empty()) {
      stamps_[i] = stamp_of(dataset_.file(images_[i]));
      const auto known = memory_.find(keys_[i]);
      if (known != memory_.end() && known->second.stamp == stamps_[i] && stamps_[i] != FileStamp{}) {
        found_[i] = known->second.image;
        return;
      }
    }
    found_[i] = look_at(dataset_, images_[i], config_.kind);
    ++read_;
  }

  void save() {
    if (config_.index.empty()) return;
    std::vector<IndexedImage> entries;
    for (size_t i = 0; i < images_.size(); ++i) {
      const auto known = memory_.find(keys_[i]);
      if (done_[i] && stamps_[i] != FileStamp{})
        entries.push_back({keys_[i], stamps_[i], found_[i]});
      else if (!done_[i] && known != memory_.end())
        entries.push_back(known->second);
    }
    try {
      save_scan_index(config_.index, identity_, entries);
      index_problem_.clear();
    } catch (const Error& error) {
      index_problem_ = error.what();
    }
  }

  Scan result() {
    Scan scan;
    for (size_t i = 0; i < images_.size(); ++i) {
      if (!done_[i]) continue;
      scan.images.push_back(images_[i]);
      scan.found.push_back(std::move(found_[i]));
    }
    scan.remembered = scan.images.size() - read_;
    scan.index_problem = index_problem_;
    return scan;
  }

  const Dataset& dataset_;
  const ScanConfig& config_;
  const Clock::time_point start_ = Clock::now();
  ThreadPool pool_;
  std::vector<size_t> images_;
  std::vector<std::string> keys_;
  std::string identity_, index_problem_;
  std::unordered_map<std::string, IndexedImage> memory_;
  std::vector<ScannedImage> found_;
  std::vector<FileStamp> stamps_;
  std::vector<uint8_t> done_;
  std::atomic<size_t> read_{0};
};

std::string kind_of(const ImageHeader& header) {
  const int colours = header.channels - (header.alpha ? 1 : 0);
  std::string kind = header.cmyk ? "CMYK" : colours == 1 ? "gray" : colours == 3 ? "colour" : str(colours, " channels");
  if (header.alpha) kind += " with transparency";
  if (header.real) kind += ", floats";
  else if (header.bits > 8) kind += str(", ", header.bits, " bits");
  return kind;
}

/// Groups of images with equal contents, in the order of their first ones.
std::vector<std::vector<std::string>> equal_contents(const Dataset& dataset, const Scan& scan) {
  std::map<std::pair<ContentHash, uint64_t>, std::vector<size_t>> groups;
  for (size_t i = 0; i < scan.found.size(); ++i)
    if (scan.found[i].problem.empty()) groups[{scan.found[i].hash, scan.found[i].bytes}].push_back(scan.images[i]);
  std::map<size_t, std::vector<std::string>> in_order;
  for (const auto& [contents, images] : groups) {
    if (images.size() < 2) continue;
    for (const size_t image : images) in_order[images.front()].push_back(dataset.name(image));
  }
  std::vector<std::vector<std::string>> result;
  for (auto& [first, names] : in_order) result.push_back(std::move(names));
  return result;
}

void count_classes(const Dataset& dataset, DataReport& report) {
  for (const std::string& name : dataset.class_names()) report.classes.emplace_back(name, 0);
  for (size_t i = 0; i < dataset.size(); ++i) {
    const int label = dataset.label(i);
    if (label >= 0 && static_cast<size_t>(label) < report.classes.size())
      ++report.classes[static_cast<size_t>(label)].second;
    else
      ++report.unlabelled;
  }
}

}  // namespace

ContentHash content_hash(std::span<const uint8_t> bytes) {
  uint64_t a = 0x9E3779B97F4A7C15u ^ bytes.size(), b = 0xD1B54A32D192ED03u + bytes.size();
  const auto take = [&](uint64_t word) {
    a = std::rotl(a ^ word * 0x87C37B91114253D5u, 31) * 5 + 0x52DCE729u;
    b = std::rotl(b + word, 29) * 0x4CF5AD432745937Fu;
  };
  size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, 8);
    take(word);
  }
  uint64_t rest = 0;
  for (size_t i = at; i < bytes.size(); ++i) rest |= uint64_t{bytes[i]} << 8 * (i - at);
  take(rest);
  return {mixed(a + b), mixed(b ^ std::rotl(a, 32))};
}

Scan scan(const Dataset& dataset, const ScanConfig& config) { return Scanner(dataset, config).run(); }

Spread spread_of(std::vector<int64_t> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

size_t DataReport::copies() const {
  size_t count = 0;
  for (const auto& group : duplicates) count += group.size() - 1;
  return count;
}

DataReport summarize(const Dataset& dataset, const Scan& scan, int64_t smallest_side, ImageKind kind) {
  DataReport report;
  report.images = dataset.size();
  report.looked_at = scan.images.size();
  std::vector<int64_t> widths, heights;
  for (size_t i = 0; i < scan.images.size(); ++i) {
    const std::string& name = dataset.name(scan.images[i]);
    const ScannedImage& image = scan.found[i];
    const ImageHeader& header = image.header;
    report.bytes += image.bytes;
    if (!image.problem.empty()) {
      report.unreadable.emplace_back(name, image.problem);
      continue;
    }
    ++report.readable;
    widths.push_back(header.width);
    heights.push_back(header.height);
    ++report.formats[name_of(header.format)];
    const std::string described = kind_of(header);
    ++report.kinds[described];
    report.odd[described].push_back(name);
    if (std::min(header.width, header.height) < smallest_side) report.tiny.emplace_back(name, str(header.width, " x ", header.height));
  }
  report.width = spread_of(std::move(widths));
  report.height = spread_of(std::move(heights));
  const std::string plain = kind_of({.channels = kind.channels});
  // Of a kind that is not in bytes all are alike, or cannot be read.
  std::erase_if(report.odd, [&](const auto& odd) { return !kind.in_bytes() || odd.first == plain || odd.second.size() == report.readable; });
  report.duplicates = equal_contents(dataset, scan);
  count_classes(dataset, report);
  return report;
}

}  // namespace dino
