#include <cctype>

#include "augment/decode_formats.h"
#include "augment/decode_values.h"

namespace dino {
namespace {

// The portable graymap and pixmap formats of Netpbm, as text (P2, P3) and binary (P5, P6). One image is read.
class PnmReader {
 public:
  PnmReader(std::span<const uint8_t> bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  Image read() {
    read_header();
    Image image(height_, width_, channels_);
    read_samples(image.pixels, [&](int64_t value) { return static_cast<uint8_t>((value * 255 * 2 + range_) / (2 * range_)); });
    return image;
  }

  Image read_values() {
    read_header();
    Image image = Image::of_values(height_, width_, channels_);
    read_samples(image.values, [&](int64_t value) { return static_cast<float>(value) / static_cast<float>(range_); });
    return image;
  }

 private:
  void read_header() {
    const char kind = static_cast<char>(bytes_[1]);
    text_ = kind == '2' || kind == '3';
    channels_ = kind == '2' || kind == '5' ? 1 : 3;
    const int64_t width = number(), height = number();
    range_ = number();
    check_image_size(width, height, bytes_.size(), 1, name_);
    if (range_ < 1 || range_ > 65535) throw_undecodable(name_, "PNM", str("the range is ", range_));
    width_ = static_cast<int>(width);
    height_ = static_cast<int>(height);
  }

  /// Fills `samples` with what `convert` makes of the numbers in the file.
  template <class Sample, class Convert>
  void read_samples(std::vector<Sample>& samples, const Convert& convert) {
    if (text_) {
      for (Sample& sample : samples) sample = convert(checked(number()));
      return;
    }
    ++at_;  // exactly one white byte ends the header
    const size_t sample_bytes = range_ < 256 ? 1 : 2;
    if (bytes_.size() < at_ || (bytes_.size() - at_) / sample_bytes < samples.size()) {
      throw_undecodable(name_, "PNM", "the file is truncated");
    }
    for (Sample& sample : samples) {
      int64_t value = bytes_[at_++];
      if (sample_bytes == 2) value = value << 8 | bytes_[at_++];
      sample = convert(checked(value));
    }
  }

  int64_t checked(int64_t value) const {
    if (value > range_)
      throw_undecodable(name_, "PNM", str("a sample of ", value, " in a range of ", range_));
    return value;
  }

  // The next decimal number, over white space and comments.
  int64_t number() {
    while (at_ < bytes_.size() && (std::isspace(bytes_[at_]) || bytes_[at_] == '#')) {
      if (bytes_[at_] == '#') {
        while (at_ < bytes_.size() && bytes_[at_] != '\n') ++at_;
      } else {
        ++at_;
      }
    }
    if (at_ >= bytes_.size() || !std::isdigit(bytes_[at_])) {
      throw_undecodable(name_, "PNM", str("expected a number at offset ", at_));
    }
    int64_t value = 0;
    for (; at_ < bytes_.size() && std::isdigit(bytes_[at_]) && value < (int64_t{1} << 31); ++at_) {
      value = value * 10 + (bytes_[at_] - '0');
    }
    return value;
  }

  std::span<const uint8_t> bytes_;
  std::string_view name_;
  size_t at_ = 2;
  int64_t range_ = 255;
  int width_ = 0, height_ = 0, channels_ = 0;
  bool text_ = false;
};

}  // namespace

Image decode_pnm(std::span<const uint8_t> bytes, std::string_view name) {
  return PnmReader(bytes, name).read();
}

StoredValues decode_pnm16(std::span<const uint8_t> bytes, std::string_view name) {
  return {PnmReader(bytes, name).read_values(), SampleType::uint16};
}

}  // namespace dino
