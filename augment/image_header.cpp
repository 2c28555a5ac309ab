#include "augment/image_header.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <string_view>

#include <tiffio.h>
#include <webp/decode.h>

#include "augment/decode_values.h"

namespace dino {
namespace {

using Contents = std::span<const uint8_t>;

bool has(Contents bytes, std::string_view text, size_t offset = 0) {
  return bytes.size() >= offset + text.size() && std::memcmp(bytes.data() + offset, text.data(), text.size()) == 0;
}

/// A whole number of `count` bytes; 0 beyond the end.
uint64_t big_endian(Contents bytes, size_t offset, size_t count) {
  if (offset > bytes.size() || count > bytes.size() - offset) return 0;
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | bytes[offset + i];
  return value;
}

uint64_t little_endian(Contents bytes, size_t offset, size_t count) {
  if (offset > bytes.size() || count > bytes.size() - offset) return 0;
  uint64_t value = 0;
  for (size_t i = count; i-- > 0;) value = value << 8 | bytes[offset + i];
  return value;
}

/// A start-of-frame segment: all of 0xC0 to 0xCF but Huffman tables, extensions and arithmetic tables.
bool starts_frame(uint8_t marker) { return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC; }

ImageHeader jpeg_header(Contents bytes) {
  ImageHeader header{.format = ImageFormat::jpeg};
  for (size_t at = 2; at + 4 <= bytes.size();) {
    if (bytes[at] != 0xFF) return header;
    const uint8_t marker = bytes[at + 1];
    if (marker == 0xFF) {  // padding
      ++at;
      continue;
    }
    if (starts_frame(marker)) {
      header.bits = static_cast<int>(big_endian(bytes, at + 4, 1));
      header.height = static_cast<int64_t>(big_endian(bytes, at + 5, 2));
      header.width = static_cast<int64_t>(big_endian(bytes, at + 7, 2));
      header.channels = static_cast<int>(big_endian(bytes, at + 9, 1));
      header.cmyk = header.channels == 4;
      return header;
    }
    at += 2 + big_endian(bytes, at + 2, 2);
  }
  return header;
}

ImageHeader png_header(Contents bytes) {
  ImageHeader header{.format = ImageFormat::png};
  if (bytes.size() < 26) return header;
  header.width = static_cast<int64_t>(big_endian(bytes, 16, 4));
  header.height = static_cast<int64_t>(big_endian(bytes, 20, 4));
  header.bits = bytes[24] == 16 ? 16 : 8;
  const int kind = bytes[25];
  header.alpha = kind == 4 || kind == 6;
  header.channels = (kind == 0 || kind == 4 ? 1 : 3) + (header.alpha ? 1 : 0);
  return header;
}

ImageHeader bmp_header(Contents bytes) {
  constexpr uint64_t kSmallHeader = 12;
  ImageHeader header{.format = ImageFormat::bmp, .channels = 3};
  const bool small = little_endian(bytes, 14, 4) == kSmallHeader;
  const auto side = [&](size_t large_at, size_t small_at) {
    if (small) return static_cast<int64_t>(little_endian(bytes, small_at, 2));
    const int64_t value = static_cast<int32_t>(little_endian(bytes, large_at, 4));
    return value < 0 ? -value : value;  // rows from top to bottom
  };
  header.width = side(18, 18);
  header.height = side(22, 20);
  return header;
}

ImageHeader pnm_header(Contents bytes) {
  const bool gray = bytes[1] == '2' || bytes[1] == '5';
  ImageHeader header{.format = ImageFormat::pnm, .channels = gray ? 1 : 3};
  int64_t numbers[3] = {};
  size_t at = 2;
  for (int64_t& number : numbers) {
    while (at < bytes.size() && (std::isspace(bytes[at]) || bytes[at] == '#')) {
      if (bytes[at] == '#')
        while (at < bytes.size() && bytes[at] != '\n') ++at;
      else
        ++at;
    }
    for (; at < bytes.size() && std::isdigit(bytes[at]) && number < (int64_t{1} << 31); ++at) number = number * 10 + (bytes[at] - '0');
  }
  header.width = numbers[0];
  header.height = numbers[1];
  header.bits = numbers[2] > 255 ? 16 : 8;
  return header;
}

ImageHeader webp_header(Contents bytes) {
  ImageHeader header{.format = ImageFormat::webp};
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(bytes.data(), bytes.size(), &features) != VP8_STATUS_OK) return header;
  header.width = features.width;
  header.height = features.height;
  header.alpha = features.has_alpha != 0;
  header.channels = header.alpha ? 4 : 3;
  return header;
}

/// The first directory of a classic TIFF: entries of 12 bytes, tag, type, count and value, in increasing order of tags.
ImageHeader tiff_header(Contents bytes) {
  ImageHeader header{.format = ImageFormat::tiff};
  const bool big = bytes[0] == 'M';
  const auto number = [&](size_t offset, size_t count) { return big ? big_endian(bytes, offset, count) : little_endian(bytes, offset, count); };
  if (number(2, 2) != 42) return header;  // BigTIFF
  const size_t directory = number(4, 4);
  const size_t entries = std::min<size_t>(number(directory, 2), 4096);
  uint64_t samples = 1, kind = PHOTOMETRIC_MINISBLACK, bits = 1;
  for (size_t at = directory + 2; at < directory + 2 + 12 * entries; at += 12) {
    const uint64_t tag = number(at, 2), type = number(at + 2, 2), count = number(at + 4, 4);
    const size_t width = type == TIFF_SHORT ? 2 : 4;
    // Several values lie elsewhere unless they fit; the first of them is enough.
    const size_t place = count * width <= 4 ? at + 8 : static_cast<size_t>(number(at + 8, 4));
    const uint64_t value = number(place, width);
    if (tag == TIFFTAG_IMAGEWIDTH) header.width = static_cast<int64_t>(value);
    if (tag == TIFFTAG_IMAGELENGTH) header.height = static_cast<int64_t>(value);
    if (tag == TIFFTAG_BITSPERSAMPLE) bits = value;
    if (tag == TIFFTAG_SAMPLEFORMAT) header.real = value == SAMPLEFORMAT_IEEEFP;
    if (tag == TIFFTAG_PHOTOMETRIC) kind = value;
    if (tag == TIFFTAG_SAMPLESPERPIXEL) samples = std::min<uint64_t>(value, 65535);
    if (tag == TIFFTAG_EXTRASAMPLES) header.alpha = count > 0 && value != EXTRASAMPLE_UNSPECIFIED;
  }
  header.channels = static_cast<int>(kind == PHOTOMETRIC_PALETTE ? 3 : samples);
  header.bits = static_cast<int>(std::clamp<uint64_t>(bits, 8, 64));
  header.cmyk = kind == PHOTOMETRIC_SEPARATED;
  return header;
}

}  // namespace

const char* name_of(ImageFormat format) {
  constexpr const char* kNames[] = {"unknown", "JPEG", "PNG", "BMP", "PNM", "WebP", "TIFF", "pixels", "NumPy"};
  return kNames[static_cast<size_t>(format)];
}

ImageHeader read_image_header(Contents bytes) {
  using namespace std::string_view_literals;
  if (has(bytes, "\xFF\xD8\xFF")) return jpeg_header(bytes);
  if (has(bytes, "\x89PNG")) return png_header(bytes);
  if (has(bytes, "BM")) return bmp_header(bytes);
  for (const char* magic : {"P2", "P3", "P5", "P6"})
    if (has(bytes, magic)) return pnm_header(bytes);
  if (has(bytes, "RIFF") && has(bytes, "WEBP", 8)) return webp_header(bytes);
  if (has(bytes, "II") || has(bytes, "MM")) return tiff_header(bytes);
  if (has(bytes, "\x93NUMPY")) return npy_image_header(bytes);
  return {};
}

}  // namespace dino
