#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "augment/image.h"

namespace dino {

/// The largest image that is decoded, in pixels.
inline constexpr int64_t kMaxPixels = int64_t{1} << 27;
/// The longest side that is decoded, in pixels.
inline constexpr int64_t kMaxSide = int64_t{1} << 17;

/// Decodes a JPEG, PNG, BMP, PNM (P2, P3, P5, P6), WebP, TIFF or NumPy (.npy) file that lies in memory; the format is told
/// by the contents.
///
/// A kind in bytes has 3 channels (gray is replicated) or 1 (colour becomes luma). Transparency is dropped, 16-bit samples
/// keep their high byte, EXIF orientation is ignored, CMYK JPEGs are inverted as Adobe writes them: what
/// Pillow's `Image.open(...).convert("RGB")` or `convert("L")` gives. JPEG uses the accurate integer DCT and
/// smooth upsampling.
///
/// Of another kind the file must be: PNG, PNM and TIFF of 8 or 16 bits, TIFF and .npy also of floats, TIFF with its samples
/// side by side or in planes, in any compression that libtiff knows. Nothing of them is rounded. Throws DataError `name: what is wrong; what to do` for damaged, truncated, oversized or
/// unknown contents.
Image decode(std::span<const uint8_t> bytes, ImageKind kind, std::string_view name);

/// Chooses by how much an image of `height` x `width` pixels may be reduced: 1, 2, 4 or 8.
using ReductionChoice = std::function<int(int height, int width)>;

/// The same, but a JPEG may come out smaller: asks `choose` once its size is known, and gives each side divided by the
/// answer, rounded up. Pixel i covers pixels [i * reduction, (i + 1) * reduction) of the whole image. The inverse DCT
/// itself makes the smaller blocks, which is faster than decoding and then shrinking, and not equal to it. Of the
/// other formats `choose` is not asked.
Image decode_reduced(std::span<const uint8_t> bytes, ImageKind kind, std::string_view name,
                     const ReductionChoice& choose);

/// Copies `in` to `channels` (1 or 3) as `decode` does. `in` has 1 (gray), 2 (gray, alpha), 3 (colour) or 4
/// (colour, alpha) channels.
Image to_channels(ImageView in, int channels);

}  // namespace dino
