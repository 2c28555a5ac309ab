#include <zlib.h>

#include <algorithm>
#include <filesystem>

#include "augment/dataset_sources.h"
#include "augment/decode.h"
#include "augment/input_file.h"

namespace dino {
namespace {

constexpr uint32_t kImagesMagic = 0x00000803, kLabelsMagic = 0x00000801;
constexpr uint64_t kMaxBytes = uint64_t{1} << 34;

bool is_gzip(const std::vector<uint8_t>& bytes) {
  return bytes.size() >= 2 && bytes[0] == 0x1F && bytes[1] == 0x8B;
}

struct Inflater {
  z_stream stream{};
  Inflater() { inflateInit2(&stream, 15 + 16); }
  ~Inflater() { inflateEnd(&stream); }
};

std::vector<uint8_t> inflate_gzip(const std::vector<uint8_t>& packed, const std::string& path) {
  Inflater inflater;
  std::vector<uint8_t> plain;
  constexpr size_t kStep = size_t{1} << 22, kInputStep = size_t{1} << 30;
  size_t fed = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    if (inflater.stream.avail_in == 0) {
      const size_t n = std::min(kInputStep, packed.size() - fed);
      inflater.stream.next_in = const_cast<uint8_t*>(packed.data() + fed);
      inflater.stream.avail_in = static_cast<uInt>(n);
      fed += n;
    }
    const size_t done = plain.size();
    plain.resize(done + kStep);
    inflater.stream.next_out = plain.data() + done;
    inflater.stream.avail_out = kStep;
    status = inflate(&inflater.stream, Z_NO_FLUSH);
    plain.resize(done + kStep - inflater.stream.avail_out);
    check<DataError>(plain.size() <= kMaxBytes, path, ": inflates to more than ", kMaxBytes, " bytes");
  }
  check<DataError>(status == Z_STREAM_END, path, ": cannot inflate: ",
                   inflater.stream.msg != nullptr ? inflater.stream.msg : "the file ends too early",
                   "; download it again");
  return plain;
}

std::vector<uint8_t> read_plain(const std::string& path) {
  std::vector<uint8_t> bytes = read_file(path, kMaxBytes);
  return is_gzip(bytes) ? inflate_gzip(bytes, path) : bytes;
}

uint32_t big_endian(const std::vector<uint8_t>& bytes, size_t offset) {
  return uint32_t{bytes[offset]} << 24 | uint32_t{bytes[offset + 1]} << 16 |
         uint32_t{bytes[offset + 2]} << 8 | bytes[offset + 3];
}

// `train-images-idx3-ubyte.gz` has its labels in `train-labels-idx1-ubyte`, with or without .gz. Empty if
// none.
std::string labels_beside(const std::string& images) {
  namespace fs = std::filesystem;
  const fs::path path(images);
  std::string name = path.filename().string();
  const size_t word = name.find("images"), kind = name.find("idx3");
  if (word == std::string::npos || kind == std::string::npos) return "";
  name.replace(kind, 4, "idx1");
  name.replace(word, 6, "labels");
  const std::string plain = name.ends_with(".gz") ? name.substr(0, name.size() - 3) : name;
  for (const std::string& candidate : {name, plain, plain + ".gz"}) {
    std::error_code ignored;
    if (fs::exists(path.parent_path() / candidate, ignored)) return (path.parent_path() / candidate).string();
  }
  return "";
}

std::vector<uint8_t> read_labels(const std::string& path, size_t images) {
  std::vector<uint8_t> bytes = read_plain(path);
  check<DataError>(bytes.size() >= 8 && big_endian(bytes, 0) == kLabelsMagic, path,
                   ": not an IDX label file (8-byte header 00 00 08 01 and a count)");
  check<DataError>(bytes.size() - 8 == images && big_endian(bytes, 4) == images, path, ": holds ",
                   bytes.size() - 8, " labels and says ", big_endian(bytes, 4), ", expected ", images,
                   " as in the image file");
  bytes.erase(bytes.begin(), bytes.begin() + 8);
  return bytes;
}

class IdxDataset : public Dataset {
 public:
  IdxDataset(const std::string& path, ImageKind kind) : Dataset(kind), path_(path), bytes_(read_plain(path)) {
    check<DataError>(bytes_.size() >= kHeader && big_endian(bytes_, 0) == kImagesMagic, path,
                     ": not an IDX image file (16-byte header 00 00 08 03, count, rows, columns); give a "
                     "*-images-idx3-ubyte file");
    const uint64_t count = big_endian(bytes_, 4), rows = big_endian(bytes_, 8),
                   columns = big_endian(bytes_, 12);
    const uint64_t payload = bytes_.size() - kHeader;
    const bool sizes_fit = count > 0 && rows > 0 && columns > 0 && rows <= payload &&
                           columns <= payload / rows && count == payload / (rows * columns) &&
                           payload % (rows * columns) == 0;
    check<DataError>(sizes_fit, path, ": the header says ", count, " images of ", rows, " x ", columns,
                     ", but ", payload, " bytes follow; the file is damaged or truncated, download it again");
    height_ = static_cast<int>(rows);
    width_ = static_cast<int>(columns);
    const std::string label_path = labels_beside(path);
    const std::vector<uint8_t> labels =
        label_path.empty() ? std::vector<uint8_t>{} : read_labels(label_path, count);
    for (size_t i = 0; i < count; ++i) add(str(path, ":", i), labels.empty() ? -1 : labels[i]);
    const int classes = labels.empty() ? 0 : *std::max_element(labels.begin(), labels.end()) + 1;
    for (int i = 0; i < classes; ++i) class_names_.push_back(std::to_string(i));
  }

  Image load(size_t index) const override {
    check(index < size(), "IDX: image ", index, " of ", size());
    const uint8_t* pixels = bytes_.data() + kHeader + index * size_t(height_) * width_;
    return to_channels({pixels, height_, width_, 1}, kind_.channels);
  }
  bool only_bytes() const override { return true; }
  StoredImage stored(size_t index) const override {
    check(index < size(), "IDX: image ", index, " of ", size());
    const size_t pixels = size_t(height_) * width_;
    const uint8_t* begin = bytes_.data() + kHeader + index * pixels;
    return {{begin, begin + pixels}, {.format = ImageFormat::pixels, .width = width_, .height = height_, .channels = 1}};
  }
  std::string file(size_t) const override { return path_; }

 private:
  static constexpr size_t kHeader = 16;
  std::string path_;
  std::vector<uint8_t> bytes_;
  int height_ = 0, width_ = 0;
};

}  // namespace

std::unique_ptr<Dataset> open_idx(const std::string& path, ImageKind kind) {
  const std::string base = std::filesystem::path(path).filename().string();
  check<DataError>(base.find("idx1") == std::string::npos, path,
                   ": this holds labels; give the *-images-idx3-ubyte file beside it");
  return std::make_unique<IdxDataset>(path, kind);
}

}  // namespace dino
