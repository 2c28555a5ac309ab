#include "train/png.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "engine/atomic_file.h"

namespace dino {
namespace {

void append_u32(std::vector<uint8_t>& out, uint32_t value) {
  for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<uint8_t>(value >> shift));
}

/// Length, type, data, and the checksum of the last two.
void append_chunk(std::vector<uint8_t>& out, std::string_view type, std::span<const uint8_t> data) {
  check<UsageError>(data.size() < (size_t{1} << 31), "png: the image is too large");
  append_u32(out, static_cast<uint32_t>(data.size()));
  const size_t begin = out.size();
  out.insert(out.end(), type.begin(), type.end());
  out.insert(out.end(), data.begin(), data.end());
  append_u32(out, static_cast<uint32_t>(crc32_z(0, out.data() + begin, out.size() - begin)));
}

/// Every row as its difference from the row above: the maps that we draw consist of equal rows.
std::vector<uint8_t> filtered_rows(ImageView image) {
  constexpr uint8_t kUp = 2;
  const size_t bytes = image.row_bytes();
  std::vector<uint8_t> rows;
  rows.reserve((bytes + 1) * static_cast<size_t>(image.height));
  for (int y = 0; y < image.height; ++y) {
    rows.push_back(kUp);
    const uint8_t* row = image.row(y);
    const uint8_t* above = y > 0 ? image.row(y - 1) : nullptr;
    for (size_t i = 0; i < bytes; ++i) rows.push_back(static_cast<uint8_t>(row[i] - (above ? above[i] : 0)));
  }
  return rows;
}

std::vector<uint8_t> deflated(const std::vector<uint8_t>& bytes) {
  uLongf size = compressBound(static_cast<uLong>(bytes.size()));
  std::vector<uint8_t> out(size);
  const int result =
      compress2(out.data(), &size, bytes.data(), static_cast<uLong>(bytes.size()), Z_DEFAULT_COMPRESSION);
  check(result == Z_OK, "png: zlib cannot compress (", result, ")");
  out.resize(size);
  return out;
}

uint8_t srgb_byte(double linear) {
  const double x = std::clamp(linear, 0.0, 1.0);
  const double encoded = x <= 0.0031308 ? 12.92 * x : 1.055 * std::pow(x, 1 / 2.4) - 0.055;
  return static_cast<uint8_t>(std::lround(255 * encoded));
}

}  // namespace

std::vector<uint8_t> encode_png(ImageView image) {
  check<UsageError>(image.channels == 1 || image.channels == 3, "png: channels must be 1 or 3; got ",
                    image.channels);
  check<UsageError>(image.height > 0 && image.width > 0, "png: the image is empty");
  std::vector<uint8_t> out = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  std::vector<uint8_t> header;
  append_u32(header, static_cast<uint32_t>(image.width));
  append_u32(header, static_cast<uint32_t>(image.height));
  const uint8_t color_type = image.channels == 3 ? 2 : 0;
  header.insert(header.end(),
                {8, color_type, 0, 0, 0});  // bits per sample; deflate, adaptive filters, not interlaced
  append_chunk(out, "IHDR", header);
  append_chunk(out, "IDAT", deflated(filtered_rows(image)));
  append_chunk(out, "IEND", {});
  return out;
}

void save_png(const std::string& path, ImageView image) {
  const std::vector<uint8_t> bytes = encode_png(image);
  write_file(path, {std::as_bytes(std::span(bytes))});
}

std::array<uint8_t, 3> perceptual_color(double value) {
  const double t = value > 0 ? std::min(value, 1.0) : 0.0;
  const double lightness = 0.25 + 0.68 * t;
  // Chroma stays inside what a screen can show along this path; it bulges where the solid of colours is wide.
  const double chroma = 0.10 + 0.06 * t * t;
  const double hue = (305 - 195 * t) * std::numbers::pi / 180;
  const double a = chroma * std::cos(hue), b = chroma * std::sin(hue);
  const auto cube = [](double x) { return x * x * x; };
  const double l = cube(lightness + 0.3963377774 * a + 0.2158037573 * b);
  const double m = cube(lightness - 0.1055613458 * a - 0.0638541728 * b);
  const double s = cube(lightness - 0.0894841775 * a - 1.2914855480 * b);
  return {srgb_byte(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
          srgb_byte(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
          srgb_byte(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s)};
}

}  // namespace dino
