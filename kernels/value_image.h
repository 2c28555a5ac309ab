#pragma once

#include <span>
#include <vector>

#include "kernels/crop_resize.h"
#include "kernels/image.h"

/// What kernels/crop_resize.h, blur.h and color.h do with 8-bit images, for images of floats with any number of channels. The same weights,
/// nothing rounded to 8 bits and nothing cut off.
namespace dino {

/// Memory that these functions reuse from call to call; one per thread.
struct ValueScratch {
  std::vector<float> intermediate, line;
};

/// Resamples `box` of `in` to the size of `out` (same channels). Throws UsageError if the views do not fit.
void resize(ValueView in, ResizeBox box, MutableValueView out, Filter filter, ValueScratch& scratch);

/// Blurs in place with three box filters each way (`gaussian_box_filter`), borders repeated.
void gaussian_blur(MutableValueView image, float sigma, ValueScratch& scratch);

/// Mirrors left and right.
void flip_horizontally(MutableValueView image);

/// Writes (x - mean) / deviation · scale + shift as f32 to `out` [height, width, channels], which may be the image itself if that is dense.
/// `mean` and `deviation` have one value per channel; throws UsageError otherwise.
void normalize(ValueView image, std::span<const float> mean, std::span<const float> deviation, float scale, float shift, float* out);

}  // namespace dino
