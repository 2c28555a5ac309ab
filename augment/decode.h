#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "augment/image.h"

namespace dino {

/// The largest image that is decoded, in pixels.
inline constexpr int64_t kMaxPixels = int64_t{1} << 27;
/// The longest side that is decoded, in pixels.
inline constexpr int64_t kMaxSide = int64_t{1} << 17;

/// Decodes a JPEG, PNG, BMP, PNM (P2, P3, P5, P6), WebP or TIFF file that lies in memory; the format is told
/// by the contents.
///
/// `channels` is 3 (gray is replicated) or 1 (colour becomes luma). Transparency is dropped, 16-bit samples
/// keep their high byte, EXIF orientation is ignored, CMYK JPEGs are inverted as Adobe writes them: what
/// Pillow's `Image.open(...).convert("RGB")` or `convert("L")` gives. JPEG uses the accurate integer DCT and
/// smooth upsampling. Throws DataError `name: what is wrong; what to do` for damaged, truncated, oversized or
/// unknown contents.
Image decode(std::span<const uint8_t> bytes, int channels, std::string_view name);

/// Copies `in` to `channels` (1 or 3) as `decode` does. `in` has 1 (gray), 2 (gray, alpha), 3 (colour) or 4
/// (colour, alpha) channels.
Image to_channels(ImageView in, int channels);

}  // namespace dino
