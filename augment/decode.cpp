#include "augment/decode.h"

#include <algorithm>
#include <cstring>

#include "augment/decode_formats.h"
#include "augment/decode_values.h"
#include "augment/image_header.h"
#include "augment/image_kind.h"
#include "kernels/color_math.h"

namespace dino {
namespace {

bool starts_with(std::span<const uint8_t> bytes, std::string_view prefix, size_t offset = 0) {
  return bytes.size() >= offset + prefix.size() &&
         std::memcmp(bytes.data() + offset, prefix.data(), prefix.size()) == 0;
}

bool is_tiff(std::span<const uint8_t> bytes) {
  using namespace std::string_view_literals;
  return starts_with(bytes, "II*\0"sv) || starts_with(bytes, "MM\0*"sv) || starts_with(bytes, "II+\0"sv) ||
         starts_with(bytes, "MM\0+"sv);
}

bool is_npy(std::span<const uint8_t> bytes) { return starts_with(bytes, "\x93NUMPY"); }

Image npy_in_bytes(std::span<const uint8_t> bytes, std::string_view name) {
  const StoredValues stored = decode_npy(bytes, 0, name);
  check<DataError>(stored.type == SampleType::uint8 && stored.image.channels <= 4, name, ": holds ",
                   text_of({stored.image.channels, stored.type}), "; only --channels ", stored.image.channels, " --pixel-type ",
                   name_of(stored.type), " would read it");
  Image image(stored.image.height, stored.image.width, stored.image.channels);
  std::transform(stored.image.values.begin(), stored.image.values.end(), image.pixels.begin(),
                 [](float value) { return static_cast<uint8_t>(value * 255 + 0.5f); });
  return image;
}

Image decode_native(std::span<const uint8_t> bytes, std::string_view name, const ReductionChoice& choose) {
  if (starts_with(bytes, "\xFF\xD8\xFF")) return decode_jpeg(bytes, name, choose);
  if (starts_with(bytes, "\x89PNG") || starts_with(bytes, "BM")) return decode_png_bmp(bytes, name);
  for (const std::string_view magic : {"P2", "P3", "P5", "P6"}) {
    if (starts_with(bytes, magic)) return decode_pnm(bytes, name);
  }
  if (starts_with(bytes, "RIFF") && starts_with(bytes, "WEBP", 8)) return decode_webp(bytes, name);
  if (is_tiff(bytes)) return decode_tiff(bytes, name);
  if (is_npy(bytes)) return npy_in_bytes(bytes, name);
  throw DataError(str(name, ": ",
                      bytes.empty() ? "the file is empty" : "not a JPEG, PNG, BMP, PNM, WebP, TIFF or .npy image",
                      "; remove it or convert it"));
}

StoredValues decode_values(std::span<const uint8_t> bytes, int channels, std::string_view name) {
  if (is_tiff(bytes)) return decode_tiff_values(bytes, name);
  if (is_npy(bytes)) return decode_npy(bytes, channels, name);
  const ImageHeader header = read_image_header(bytes);
  if (header.format == ImageFormat::png && header.bits == 16) return decode_png16(bytes, name);
  if (header.format == ImageFormat::pnm && header.bits == 16) return decode_pnm16(bytes, name);
  const Image image = decode_native(bytes, name, {});
  StoredValues stored{Image::of_values(image.height, image.width, image.channels), SampleType::uint8, header.alpha};
  std::transform(image.pixels.begin(), image.pixels.end(), stored.image.values.begin(), [](uint8_t pixel) { return static_cast<float>(pixel) / 255; });
  return stored;
}

}  // namespace

Image decode(std::span<const uint8_t> bytes, ImageKind kind, std::string_view name) { return decode_reduced(bytes, kind, name, {}); }

Image decode_reduced(std::span<const uint8_t> bytes, ImageKind kind, std::string_view name, const ReductionChoice& choose) {
  check<UsageError>(kind.channels >= 1 && kind.channels <= kMostChannels, "decode: channels must be 1 to ", kMostChannels, "; got ", kind.channels);
  if (!kind.in_bytes()) return with_kind(decode_values(bytes, kind.channels, name), kind, name);
  Image image = decode_native(bytes, name, choose);
  return image.channels == kind.channels ? std::move(image) : to_channels(image.view(), kind.channels);
}

Image to_channels(ImageView in, int channels) {
  check<UsageError>((channels == 1 || channels == 3) && in.channels >= 1 && in.channels <= 4,
                    "to_channels: 1 to 4 channels become 1 or 3; got ", in.channels, " and ", channels);
  Image image(in.height, in.width, channels);
  const int step = in.channels;
  uint8_t* out = image.pixels.data();
  for (int y = 0; y < in.height; ++y) {
    const uint8_t* pixel = in.row(y);
    for (int x = 0; x < in.width; ++x, pixel += step, out += channels) {
      if (channels == 1) {
        out[0] = step < 3 ? pixel[0] : luma(pixel[0], pixel[1], pixel[2]);
      } else {
        for (int c = 0; c < 3; ++c) out[c] = step < 3 ? pixel[0] : pixel[c];
      }
    }
  }
  return image;
}

void check_image_size(int64_t width, int64_t height, size_t file_bytes, int64_t pixels_per_byte,
                      std::string_view name) {
  check<DataError>(
      width > 0 && height > 0 && width <= kMaxSide && height <= kMaxSide && width * height <= kMaxPixels,
      name, ": the image has ", width, " x ", height, " pixels; at most ", kMaxPixels, " in all and ",
      kMaxSide, " a side are read, shrink it");
  check<DataError>(static_cast<uint64_t>(width * height) / pixels_per_byte <= file_bytes, name, ": ", width,
                   " x ", height, " pixels cannot be in ", file_bytes,
                   " bytes; the file is truncated, replace it");
}

void throw_undecodable(std::string_view name, std::string_view format, std::string_view reason) {
  // Library messages may hold line breaks; ours are one line.
  std::string line(reason.empty() ? std::string_view("unknown reason") : reason);
  std::replace(line.begin(), line.end(), '\n', ' ');
  throw DataError(str(name, ": cannot decode ", format, ": ", line, "; replace or remove the file"));
}

}  // namespace dino
