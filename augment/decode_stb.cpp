#include <algorithm>
#include <memory>

#include "augment/decode.h"
#include "augment/decode_formats.h"
#include "augment/decode_values.h"

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace dino {
namespace {

uint32_t little_endian(std::span<const uint8_t> bytes, size_t offset, size_t count) {
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) value |= uint32_t{bytes[offset + i]} << (8 * i);
  return value;
}

// stb_image fills what is missing of a truncated BMP, whose rows are never compressed when it reads them.
bool bmp_is_complete(std::span<const uint8_t> bytes, int width, int height) {
  constexpr size_t kOffsetAt = 10, kHeaderSizeAt = 14, kSmallHeader = 12, kHeaders = 30;
  if (bytes.size() < kHeaders) return false;
  const size_t depth_at = little_endian(bytes, kHeaderSizeAt, 4) == kSmallHeader ? 24 : 28;
  const uint64_t row_bits = static_cast<uint64_t>(width) * little_endian(bytes, depth_at, 2);
  const uint64_t row_bytes = (row_bits + 31) / 32 * 4;
  return little_endian(bytes, kOffsetAt, 4) + row_bytes * static_cast<uint64_t>(height) <= bytes.size();
}

/// Refuses a PNG with a chunk that is longer than the rest of the file: stb_image would make room for up to 2 GiB before it looks for
/// the bytes. What follows the last chunk is none.
void check_png_chunks(std::span<const uint8_t> bytes, std::string_view name) {
  constexpr size_t kSignature = 8, kAround = 12;  // length, type and checksum
  for (size_t at = kSignature; bytes.size() - at >= kAround;) {
    uint64_t length = 0;
    for (size_t i = 0; i < 4; ++i) length = length << 8 | bytes[at + i];
    if (length > bytes.size() - at - kAround) throw_undecodable(name, "PNG", str("the file is truncated: a part at byte ", at, " says that it has ", length, " bytes"));
    if (std::equal(bytes.begin() + static_cast<ptrdiff_t>(at) + 4, bytes.begin() + static_cast<ptrdiff_t>(at) + 8, "IEND")) return;
    at += kAround + length;
  }
}

}  // namespace

Image decode_png_bmp(std::span<const uint8_t> bytes, std::string_view name) {
  const bool is_bmp = bytes[0] == 'B';
  const std::string_view format = is_bmp ? "BMP" : "PNG";
  check<DataError>(bytes.size() <= (size_t{1} << 31) - 1, name, ": larger than 2 GiB; shrink it");
  const int length = static_cast<int>(bytes.size());
  int width = 0, height = 0, channels = 0;
  if (!stbi_info_from_memory(bytes.data(), length, &width, &height, &channels)) {
    throw_undecodable(name, format, stbi_failure_reason());
  }
  // Deflate packs at most 1032 bytes into one, and a byte may hold 8 one-bit pixels.
  check_image_size(width, height, bytes.size(), 8 * 1032, name);
  if (is_bmp && !bmp_is_complete(bytes, width, height))
    throw_undecodable(name, format, "the file is truncated");
  if (!is_bmp) check_png_chunks(bytes, name);
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(bytes.data(), length, &width, &height, &channels, 0), stbi_image_free);
  if (pixels == nullptr) throw_undecodable(name, format, stbi_failure_reason());
  check_image_size(width, height, bytes.size(), 8 * 1032, name);
  Image image(height, width, channels);
  std::copy_n(pixels.get(), image.pixels.size(), image.pixels.data());
  return image;
}

StoredValues decode_png16(std::span<const uint8_t> bytes, std::string_view name) {
  check<DataError>(bytes.size() <= (size_t{1} << 31) - 1, name, ": larger than 2 GiB; shrink it");
  const int length = static_cast<int>(bytes.size());
  int width = 0, height = 0, channels = 0;
  if (!stbi_info_from_memory(bytes.data(), length, &width, &height, &channels)) throw_undecodable(name, "PNG", stbi_failure_reason());
  check_values(width, height, channels, bytes.size(), name);
  check_png_chunks(bytes, name);
  const std::unique_ptr<stbi_us, void (*)(void*)> samples(stbi_load_16_from_memory(bytes.data(), length, &width, &height, &channels, 0), stbi_image_free);
  if (samples == nullptr) throw_undecodable(name, "PNG", stbi_failure_reason());
  check_values(width, height, channels, bytes.size(), name);
  StoredValues stored{Image::of_values(height, width, channels), SampleType::uint16, channels == 2 || channels == 4};
  std::transform(samples.get(), samples.get() + stored.image.values.size(), stored.image.values.begin(),
                 [](stbi_us sample) { return static_cast<float>(sample) / 65535; });
  return stored;
}

}  // namespace dino
