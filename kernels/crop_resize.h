#pragma once

#include <cstdint>
#include <vector>

#include "kernels/image.h"

namespace dino {

/// Interpolation kernels, widened when an image shrinks (antialiasing). Bicubic has a = -0.5.
enum class Filter { bilinear, bicubic, lanczos };

/// A part of an image in pixels, real-valued as the reference library keeps it: [left, right) x [top,
/// bottom).
struct ResizeBox {
  float left, top, right, bottom;
};

/// The weights that make `out_size` pixels from `in_size` pixels along one axis. Output i is the sum over j <
/// count[i] of input[first[i] + j] * weight[i * taps + j], in 22-bit fixed point. Unused weights are 0.
struct ResampleWeights {
  static constexpr int kFractionBits = 22;

  int taps = 0;
  std::vector<int32_t> first;   ///< [out_size]
  std::vector<int32_t> count;   ///< [out_size], each at most `taps`
  std::vector<int32_t> weight;  ///< [out_size, taps]

  int out_size() const { return static_cast<int>(first.size()); }
};

/// Weights for stretching [begin, end), a part of an axis of `in_size` pixels, to `out_size` pixels.
/// Throws UsageError if the part is empty or not inside the axis. Source: Pillow, Resample.c.
ResampleWeights resample_weights(int in_size, float begin, float end, int out_size, Filter filter);

/// Memory that `resize` reuses from call to call; one per thread.
struct ResizeScratch {
  std::vector<uint8_t> intermediate, strip;
};

/// Resamples `box` of `in` to the size of `out` (same channels): columns first, rounded to 8 bits, then rows,
/// each axis only if it changes. Equal to Pillow's `Image.resize` bit for bit. Throws UsageError if the views
/// do not fit.
void resize(ImageView in, ResizeBox box, MutableImageView out, Filter filter, ResizeScratch& scratch);

/// The same for the whole of `in`.
void resize(ImageView in, MutableImageView out, Filter filter, ResizeScratch& scratch);

/// Averages cells of factor_x x factor_y pixels, smaller at the right and lower border; `out` is
/// [ceil(height / factor_y), ceil(width / factor_x), channels]. Equal to Pillow's `Image.reduce`.
/// Throws UsageError if the views do not fit.
void box_reduce(ImageView in, int factor_x, int factor_y, MutableImageView out);

}  // namespace dino
