#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "augment/dataset_sources.h"
#include "augment/decode.h"
#include "augment/input_file.h"

namespace dino {
namespace {

constexpr uint64_t kBlock = 512;
constexpr uint64_t kMaxNameBytes = 1 << 16;

using Block = std::array<uint8_t, kBlock>;

// A field of the header up to its first NUL.
std::string text_field(const Block& header, size_t offset, size_t length) {
  const char* begin = reinterpret_cast<const char*>(header.data()) + offset;
  return {begin, strnlen(begin, length)};
}

// Octal digits between blanks and NULs, or GNU's big-endian base 256 if the top bit is set.
std::optional<uint64_t> number_field(const Block& header, size_t offset, size_t length) {
  const uint8_t* field = header.data() + offset;
  uint64_t value = 0;
  if (field[0] & 0x80) {
    for (size_t i = 0; i < length; ++i) {
      if (value >> 55) return std::nullopt;
      value = value << 8 | (i == 0 ? field[0] & 0x7F : field[i]);
    }
    return value;
  }
  size_t i = 0;
  while (i < length && field[i] == ' ') ++i;
  for (; i < length && field[i] >= '0' && field[i] <= '7'; ++i) value = value << 3 | uint64_t(field[i] - '0');
  if (i < length && field[i] != ' ' && field[i] != '\0') return std::nullopt;
  return value;
}

bool checksum_fits(const Block& header) {
  constexpr size_t kBegin = 148, kEnd = 156;  // the checksum itself counts as blanks
  uint64_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i) sum += i >= kBegin && i < kEnd ? ' ' : header[i];
  return number_field(header, kBegin, kEnd - kBegin) == sum;
}

// What an extension header says about the member after it.
struct Extension {
  std::string path;
  std::optional<uint64_t> size;
};

// Records "length key=value\n" of a pax header; damaged ones end the reading.
void read_pax(std::string_view text, Extension& extension) {
  while (!text.empty()) {
    const size_t blank = text.find(' ');
    uint64_t length = 0;
    for (size_t i = 0; i < std::min(blank, size_t{10}) && text[i] >= '0' && text[i] <= '9'; ++i) {
      length = length * 10 + uint64_t(text[i] - '0');
    }
    if (blank == std::string_view::npos || length <= blank + 1 || length > text.size()) return;
    const std::string_view record = text.substr(blank + 1, length - blank - 2);
    text.remove_prefix(length);
    if (record.starts_with("path=")) extension.path = record.substr(5);
    if (record.starts_with("size=") && record.size() <= 5 + 18) {
      extension.size = std::strtoull(std::string(record.substr(5)).c_str(), nullptr, 10);
    }
  }
}

struct Member {
  uint32_t archive;
  uint64_t offset, bytes;
};

class TarDataset : public Dataset {
 public:
  TarDataset(const std::vector<std::string>& paths, ImageKind kind) : Dataset(kind) {
    for (const std::string& path : paths) {
      archives_.emplace_back(path);
      read_headers(static_cast<uint32_t>(archives_.size() - 1));
    }
    check<DataError>(!members_.empty(), paths.front(), paths.size() > 1 ? " and others" : "",
                     ": no images in the archive; looked for members ", kImageExtensionsText);
    number_classes(classes_);
    classes_ = {};
  }

  Image load(size_t index) const override { return load_reduced(index, {}); }
  Image load_reduced(size_t index, const ReductionChoice& choose) const override {
    const Member& member = members_.at(index);
    return decode_reduced(archives_[member.archive].read(member.offset, member.bytes), kind_, name(index), choose);
  }
  StoredImage stored(size_t index) const override {
    const Member& member = members_.at(index);
    std::vector<uint8_t> bytes = archives_[member.archive].read(member.offset, member.bytes);
    const ImageHeader header = read_image_header(bytes);
    return {std::move(bytes), header};
  }
  std::string file(size_t index) const override { return archives_[members_.at(index).archive].path(); }

 private:
  void read_headers(uint32_t archive) {
    const InputFile& file = archives_[archive];
    Extension extension;
    for (uint64_t offset = 0; offset < file.size();) {
      Block header;
      file.read(offset, header);
      if (std::all_of(header.begin(), header.end(), [](uint8_t byte) { return byte == 0; })) return;
      const auto plain_size = number_field(header, 124, 12);
      check<DataError>(checksum_fits(header) && plain_size.has_value(), file.path(),
                       ": no tar header at offset ", offset, "; the archive is damaged or not a tar");
      const char type = static_cast<char>(header[156]);
      const bool describes_next = type == 'x' || type == 'L' || type == 'K' || type == 'g';
      const uint64_t bytes = describes_next ? *plain_size : extension.size.value_or(*plain_size);
      const uint64_t begin = offset + kBlock;
      check<DataError>(bytes <= file.size() && begin <= file.size() - bytes, file.path(),
                       ": the member at offset ", offset, " has ", bytes, " bytes, but the file ends at ",
                       file.size(), "; the archive is truncated, copy it again");
      if (describes_next) {
        read_extension(file, type, begin, bytes, extension);
      } else {
        add_member(archive, header, type, begin, bytes, extension);
        extension = {};
      }
      offset = begin + (bytes + kBlock - 1) / kBlock * kBlock;
    }
  }

  static void read_extension(const InputFile& file, char type, uint64_t begin, uint64_t bytes,
                             Extension& extension) {
    if (type != 'x' && type != 'L') return;
    check<DataError>(bytes <= kMaxNameBytes, file.path(), ": the name at offset ", begin, " has ", bytes,
                     " bytes; the archive is damaged");
    const std::vector<uint8_t> data = file.read(begin, bytes);
    const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
    if (type == 'x') {
      read_pax(text, extension);
    } else {
      extension.path = text.substr(0, text.find('\0'));
    }
  }

  void add_member(uint32_t archive, const Block& header, char type, uint64_t begin, uint64_t bytes,
                  const Extension& extension) {
    if (type != '0' && type != '\0' && type != '7') return;
    std::string name = extension.path;
    if (name.empty()) {
      const bool ustar = std::memcmp(header.data() + 257, "ustar\0", 6) == 0;
      const std::string prefix = ustar ? text_field(header, 345, 155) : "";
      name = (prefix.empty() ? "" : prefix + "/") + text_field(header, 0, 100);
    }
    const std::string_view base = std::string_view(name).substr(name.find_last_of('/') + 1);
    if (base.starts_with('.') || !has_image_extension(base)) return;
    members_.push_back({archive, begin, bytes});
    classes_.push_back(first_component(name));
    add(archives_[archive].path() + ":" + name, -1);
  }

  std::vector<InputFile> archives_;
  std::vector<Member> members_;
  std::vector<std::string> classes_;
};

}  // namespace

std::unique_ptr<Dataset> open_tar(const std::vector<std::string>& paths, ImageKind kind) {
  return std::make_unique<TarDataset>(paths, kind);
}

}  // namespace dino
