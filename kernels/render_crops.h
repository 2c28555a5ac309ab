#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/blur.h"
#include "kernels/color_math.h"
#include "kernels/view.h"

/// Crops of decoded images, rendered on the GPU bit for bit as the CPU renders them. The CPU decides everything
/// beforehand and packs it, with the images, into one stretch of memory (augment/crop_batch.h).
namespace dino {

class CudaStream;

/// All about one crop. Offsets are in bytes from the start of the packed batch.
///
/// A table of weights for one axis is int32: first[size], count[size], weight[taps][size], as in `ResampleWeights`
/// but with the taps outermost. An axis that does not change has one tap of weight 1.
struct CropDescriptor {
  int64_t pixels;           ///< of the first byte of the box
  int64_t columns;          ///< of the table for the pixels of a row, aligned to 4
  int64_t rows;             ///< of the table for the rows, aligned to 4
  int32_t image_row_bytes;  ///< from row to row, a multiple of 16
  int32_t column_taps;
  bool flip, gray, solarize;
  int32_t color_steps;  ///< how many of `color` apply
  std::array<ColorStep, 4> color;
  BoxFilter blur;  ///< `kNoBlur` for none

  static constexpr BoxFilter kNoBlur{-1, 0, 0};
};

/// A packed batch in device memory: the descriptors [crops, images], then tables and images, whose rows are filled up
/// to the alignment.
struct PackedCrops {
  static constexpr size_t kAlignment = 16;

  const std::byte* data = nullptr;
  int64_t images = 0;
};

/// How pixel values become floats: (value / 255 - mean) / deviation, per channel.
struct PixelScale {
  std::array<float, 4> mean{}, deviation{};
};

/// Renders the crops of some images of a batch, those from `first` on: `globals` [2 * n, S, S, channels] are crops 0
/// and 1, crop by crop, `locals` [L * n, s, s, channels] the others, or absent. Both are dense, f32 or bf16, of 1 to 4
/// channels. f32 has the bits of `render_crop`, bf16 is that rounded. Takes at most `scratch_bytes` of the stream's
/// scratch memory unless a single crop needs more. Throws UsageError if the views do not fit.
void render_crops(CudaStream& stream, const PackedCrops& packed, int64_t first, const PixelScale& scale,
                  const View& globals, const View& locals, size_t scratch_bytes = size_t{64} << 20);

}  // namespace dino
