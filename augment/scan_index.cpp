#include "augment/scan_index.h"

#include <sys/stat.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "augment/input_file.h"
#include "engine/atomic_file.h"

namespace dino {
namespace {

namespace fs = std::filesystem;

// The file: kMagic, the source, the number of images, for each what `IndexWriter::add` writes, and the hash of everything before it.
// Numbers lie as in memory: the file never leaves the machine that made it, and elsewhere its hash does not fit.
constexpr std::string_view kMagic = "dino_engine scan index 2\n";
constexpr uint64_t kMaxIndexBytes = uint64_t{1} << 32;
constexpr uint64_t kMaxTextBytes = 1 << 16;

class IndexWriter {
 public:
  void number(uint64_t value) { append(&value, sizeof value); }
  void text(std::string_view value) {
    number(value.size());
    append(value.data(), value.size());
  }
  void add(const IndexedImage& entry) {
    const ImageHeader& header = entry.image.header;
    text(entry.key);
    number(entry.stamp.bytes);
    number(static_cast<uint64_t>(entry.stamp.modified_ns));
    number(static_cast<uint64_t>(header.format));
    number(static_cast<uint64_t>(header.width));
    number(static_cast<uint64_t>(header.height));
    number(static_cast<uint64_t>(header.channels));
    number(static_cast<uint64_t>(header.bits));
    number((header.alpha ? 1u : 0u) | (header.cmyk ? 2u : 0u) | (header.real ? 4u : 0u));
    number(entry.image.bytes);
    for (const uint64_t part : entry.image.hash) number(part);
    text(std::string_view(entry.image.problem).substr(0, kMaxTextBytes));
  }
  void append(const void* data, size_t size) {
    const auto* begin = static_cast<const uint8_t*>(data);
    bytes.insert(bytes.end(), begin, begin + size);
  }

  std::vector<uint8_t> bytes;
};

/// Reads on as long as everything makes sense.
class IndexReader {
 public:
  explicit IndexReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  bool good() const { return good_; }
  bool at_end() const { return bytes_.empty(); }

  uint64_t number(uint64_t most = UINT64_MAX) {
    uint64_t value = 0;
    take(&value, sizeof value);
    good_ = good_ && value <= most;
    return good_ ? value : 0;
  }
  std::string text() {
    std::string value(number(std::min<uint64_t>(kMaxTextBytes, bytes_.size())), '\0');
    take(value.data(), value.size());
    return value;
  }
  IndexedImage image() {
    IndexedImage entry;
    ImageHeader& header = entry.image.header;
    entry.key = text();
    entry.stamp.bytes = number();
    entry.stamp.modified_ns = static_cast<int64_t>(number());
    header.format = static_cast<ImageFormat>(number(static_cast<uint64_t>(ImageFormat::npy)));
    header.width = static_cast<int64_t>(number(UINT32_MAX));
    header.height = static_cast<int64_t>(number(UINT32_MAX));
    header.channels = static_cast<int>(number(UINT16_MAX));
    header.bits = static_cast<int>(number(UINT16_MAX));
    const uint64_t flags = number(7);
    header.alpha = flags & 1;
    header.cmyk = flags & 2;
    header.real = flags & 4;
    entry.image.bytes = number();
    for (uint64_t& part : entry.image.hash) part = number();
    entry.image.problem = text();
    return entry;
  }

 private:
  void take(void* out, size_t size) {
    good_ = good_ && size <= bytes_.size();
    if (!good_) return;
    std::memcpy(out, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
  }

  std::span<const uint8_t> bytes_;
  bool good_ = true;
};

/// The bytes between magic and hash, if both fit.
std::optional<std::span<const uint8_t>> checked_contents(std::span<const uint8_t> bytes) {
  if (bytes.size() < kMagic.size() + sizeof(ContentHash) || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return std::nullopt;
  ContentHash hash;
  const auto before = bytes.first(bytes.size() - sizeof hash);
  std::memcpy(hash.data(), bytes.data() + before.size(), sizeof hash);
  if (hash != content_hash(before)) return std::nullopt;
  return before.subspan(kMagic.size());
}

bool lies_in(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

fs::path cache_folder() {
  for (const auto& [variable, below] : {std::pair{"XDG_CACHE_HOME", ""}, std::pair{"HOME", ".cache"}}) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value == '/') return fs::path(value) / below / "dino_engine";
  }
  return {};
}

}  // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat status {};
  if (path.empty() || ::stat(path.c_str(), &status) != 0) return {};
  return {static_cast<uint64_t>(status.st_size), status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec};
}

std::unordered_map<std::string, IndexedImage> load_scan_index(const std::string& path, const std::string& source) {
  std::vector<uint8_t> bytes;
  try {
    bytes = read_file(path, kMaxIndexBytes);
  } catch (const DataError&) {
    return {};
  }
  const auto contents = checked_contents(bytes);
  if (!contents) return {};
  IndexReader reader(*contents);
  if (reader.text() != source) return {};
  std::unordered_map<std::string, IndexedImage> images;
  for (uint64_t left = reader.number(); left > 0; --left) {
    IndexedImage image = reader.image();
    if (!reader.good()) return {};
    std::string key = image.key;
    images.emplace(std::move(key), std::move(image));
  }
  if (!reader.good() || !reader.at_end()) return {};
  return images;
}

void save_scan_index(const std::string& path, const std::string& source, const std::vector<IndexedImage>& images) {
  IndexWriter writer;
  writer.append(kMagic.data(), kMagic.size());
  writer.text(source);
  writer.number(images.size());
  for (const IndexedImage& image : images) writer.add(image);
  const ContentHash hash = content_hash(writer.bytes);
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  check(!error, fs::path(path).parent_path().string(), ": cannot be made: ", error.message());
  write_file(path, {std::as_bytes(std::span(writer.bytes)), std::as_bytes(std::span(hash))});
}

std::string source_identity(const std::string& source) {
  std::error_code error;
  const fs::path path = fs::weakly_canonical(source, error);
  if (!error && fs::exists(path, error)) return path.string();
  return fs::current_path(error).string() + ": " + source;
}

std::string scan_index_path(const std::string& source) {
  const fs::path folder = cache_folder();
  if (folder.empty()) return {};
  const std::string identity = source_identity(source);
  std::error_code error;
  if (lies_in(fs::weakly_canonical(folder, error), identity)) return {};
  const std::span text(reinterpret_cast<const uint8_t*>(identity.data()), identity.size());
  char name[32];
  std::snprintf(name, sizeof name, "scan-%016lx.index", static_cast<unsigned long>(content_hash(text)[0]));
  return (folder / name).string();
}

}  // namespace dino
