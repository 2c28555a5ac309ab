#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "augment/decode.h"
#include "augment/image.h"

/// One decoder per file in `augment/decode_*.cpp`, for `decode` only. Each returns 1 to 4 channels as
/// `to_channels` takes them and throws DataError for what it cannot read.
namespace dino {

/// At its size divided by `choose`'s answer (`decode_reduced`), or at its full size where `choose` is empty.
Image decode_jpeg(std::span<const uint8_t> bytes, std::string_view name, const ReductionChoice& choose);
Image decode_png_bmp(std::span<const uint8_t> bytes, std::string_view name);
Image decode_pnm(std::span<const uint8_t> bytes, std::string_view name);
Image decode_webp(std::span<const uint8_t> bytes, std::string_view name);
Image decode_tiff(std::span<const uint8_t> bytes, std::string_view name);

/// Throws DataError unless the sides are in [1, kMaxSide], their product is at most kMaxPixels, and a file of
/// `file_bytes` could hold so many pixels, at most `pixels_per_byte` in each byte: a few damaged bytes must
/// not cause a giant allocation.
void check_image_size(int64_t width, int64_t height, size_t file_bytes, int64_t pixels_per_byte,
                      std::string_view name);

[[noreturn]] void throw_undecodable(std::string_view name, std::string_view format, std::string_view reason);

}  // namespace dino
