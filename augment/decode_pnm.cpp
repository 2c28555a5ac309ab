#include <cctype>

#include "augment/decode_formats.h"

namespace dino {
namespace {

// The portable graymap and pixmap formats of Netpbm, as text (P2, P3) and binary (P5, P6). One image is read.
class PnmReader {
 public:
  PnmReader(std::span<const uint8_t> bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  Image read() {
    const char kind = static_cast<char>(bytes_[1]);
    const bool text = kind == '2' || kind == '3';
    const int channels = kind == '2' || kind == '5' ? 1 : 3;
    const int64_t width = number(), height = number();
    range_ = number();
    check_image_size(width, height, bytes_.size(), 1, name_);
    if (range_ < 1 || range_ > 65535) throw_undecodable(name_, "PNM", str("the range is ", range_));
    Image image(static_cast<int>(height), static_cast<int>(width), channels);
    if (text) {
      for (uint8_t& sample : image.pixels) sample = to_byte(number());
    } else {
      read_binary(image);
    }
    return image;
  }

 private:
  void read_binary(Image& image) {
    ++at_;  // exactly one white byte ends the header
    const size_t sample_bytes = range_ < 256 ? 1 : 2;
    if (bytes_.size() < at_ || (bytes_.size() - at_) / sample_bytes < image.pixels.size()) {
      throw_undecodable(name_, "PNM", "the file is truncated");
    }
    for (uint8_t& sample : image.pixels) {
      int64_t value = bytes_[at_++];
      if (sample_bytes == 2) value = value << 8 | bytes_[at_++];
      sample = to_byte(value);
    }
  }

  uint8_t to_byte(int64_t value) const {
    if (value > range_)
      throw_undecodable(name_, "PNM", str("a sample of ", value, " in a range of ", range_));
    return static_cast<uint8_t>((value * 255 * 2 + range_) / (2 * range_));
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
};

}  // namespace

Image decode_pnm(std::span<const uint8_t> bytes, std::string_view name) {
  return PnmReader(bytes, name).read();
}

}  // namespace dino
