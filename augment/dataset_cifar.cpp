#include <algorithm>

#include "augment/dataset_sources.h"
#include "augment/decode.h"
#include "augment/input_file.h"

namespace dino {
namespace {

constexpr int kSide = 32;
constexpr size_t kPlane = size_t{kSide} * kSide;
constexpr uint64_t kMaxBytes = uint64_t{1} << 34;

// Records of label bytes (CIFAR-10: the class; CIFAR-100: coarse class, fine class) and three planes of 32
// x 32.
class CifarDataset : public Dataset {
 public:
  CifarDataset(const std::vector<std::string>& paths, ImageKind kind) : Dataset(kind) {
    for (const std::string& path : paths) add_file(path);
    for (int i = 0; i < classes_; ++i) class_names_.push_back(std::to_string(i));
  }

  Image load(size_t index) const override {
    check(index < size(), "CIFAR: image ", index, " of ", size());
    const uint8_t* planes = planes_.data() + index * 3 * kPlane;
    Image image(kSide, kSide, 3);
    for (size_t i = 0; i < kPlane; ++i) {
      for (size_t c = 0; c < 3; ++c) image.pixels[3 * i + c] = planes[c * kPlane + i];
    }
    return kind_.channels == 3 ? std::move(image) : to_channels(image.view(), kind_.channels);
  }
  bool only_bytes() const override { return true; }
  StoredImage stored(size_t index) const override {
    check(index < size(), "CIFAR: image ", index, " of ", size());
    const uint8_t* begin = planes_.data() + index * 3 * kPlane;
    return {{begin, begin + 3 * kPlane}, {.format = ImageFormat::pixels, .width = kSide, .height = kSide, .channels = 3}};
  }
  std::string file(size_t index) const override { return name(index).substr(0, name(index).rfind(':')); }

 private:
  void add_file(const std::string& path) {
    const std::vector<uint8_t> bytes = read_file(path, kMaxBytes);
    const bool ten = !bytes.empty() && bytes.size() % (3 * kPlane + 1) == 0;
    const bool hundred = !bytes.empty() && bytes.size() % (3 * kPlane + 2) == 0;
    check<DataError>(ten || hundred, path, ": ", bytes.size(),
                     " bytes are neither CIFAR-10 records of 3073 nor CIFAR-100 records of 3074; the file is "
                     "truncated or of another kind");
    const size_t label_bytes = ten ? 1 : 2, record = 3 * kPlane + label_bytes;
    const int classes = ten ? 10 : 100;
    check<DataError>(classes_ == 0 || classes_ == classes, path,
                     ": CIFAR-10 and CIFAR-100 files do not go together; give files of one kind");
    classes_ = classes;
    const size_t images = bytes.size() / record;
    planes_.reserve(planes_.size() + images * 3 * kPlane);
    for (size_t i = 0; i < images; ++i) {
      const uint8_t* begin = bytes.data() + i * record;
      const int label = begin[label_bytes - 1];
      check<DataError>(label < classes, path, ": record ", i, " has label ", label, ", expected less than ",
                       classes, "; the file is damaged or of another kind");
      planes_.insert(planes_.end(), begin + label_bytes, begin + record);
      add(str(path, ":", i), label);
    }
  }

  std::vector<uint8_t> planes_;
  int classes_ = 0;
};

}  // namespace

std::unique_ptr<Dataset> open_cifar(const std::vector<std::string>& paths, ImageKind kind) {
  return std::make_unique<CifarDataset>(paths, kind);
}

}  // namespace dino
