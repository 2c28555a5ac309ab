#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "augment/geometry.h"
#include "augment/image.h"
#include "kernels/blur.h"
#include "kernels/color_math.h"

/// The multi-crop augmentation of DINO (Caron et al., 2021): two global and several local crops of each
/// image, with all random decisions apart from their execution.
namespace dino {

/// What is drawn for the crops of an image. The defaults are the paper's.
struct AugmentConfig {
  int channels = 3;
  int global_crops_size = 224, local_crops_size = 96;
  int local_crops_number = 8;
  std::array<float, 2> global_crops_scale{0.4f, 1.0f}, local_crops_scale{0.05f, 0.4f};
  std::array<float, 2> ratio{3.0f / 4.0f, 4.0f / 3.0f};
  float flip_prob = 0.5f;
  float jitter_prob = 0.8f;
  /// Jitter factors are uniform in [max(0, 1 - x), 1 + x], for the hue in [-x, x]; an operation of strength 0
  /// is left out.
  float brightness = 0.4f, contrast = 0.4f, saturation = 0.2f, hue = 0.1f;
  float grayscale_prob = 0.2f;
  float blur_prob_global1 = 1.0f, blur_prob_global2 = 0.1f, blur_prob_local = 0.5f;
  std::array<float, 2> blur_sigma{0.1f, 2.0f};
  float solarize_prob = 0.2f;  ///< of the second global crop only
  /// One per channel; empty means ImageNet's for 3 channels and 0.5 for others.
  std::vector<float> mean, deviation;
  uint64_t seed = 0;

  int crops() const { return 2 + local_crops_number; }
};

/// What differs between the first global, the second global and the local crops.
struct ViewRecipe {
  int count;
  int size;  ///< pixels of a side
  float scale_min, scale_max;
  float blur_prob, solarize_prob;
};

/// First global, second global, local.
std::array<ViewRecipe, 3> view_recipes(const AugmentConfig& config);

/// The recipe of crop `crop_index`: 0 and 1 are global, the others local.
ViewRecipe recipe_of(const AugmentConfig& config, int crop_index);

/// Throws UsageError naming the first value that makes no sense.
void check_config(const AugmentConfig& config);

/// Mean and standard deviation of the normalisation, one per channel, for values in [0, 1].
struct Normalization {
  std::vector<float> mean, deviation;
};

/// `mean` and `deviation`, or the defaults of `AugmentConfig` where they are empty. Throws UsageError if
/// their number is not `channels`.
Normalization normalization_of(int channels, std::span<const float> mean, std::span<const float> deviation);

/// Writes an image, normalised, to `out` [height, width, channels].
void normalize(const Image& image, const Normalization& normalization, float* out);

/// All decisions for one crop, in the order of their execution.
struct CropPlan {
  CropBox box;        ///< in the image at its full size
  int reduction = 1;  ///< how many times smaller than that the image is from which the crop is made
  int size;  ///< pixels of a side of the result
  bool flip;
  int color_steps;  ///< how many of `color` apply
  std::array<ColorStep, 4> color;
  bool gray;
  float blur_sigma;  ///< 0: no blur
  bool solarize;
};

/// Draws the decisions for crop `crop_index` of an image of `height` x `width` pixels. `sample_position` is
/// the position of the image in the whole run; the result depends on nothing but the arguments. A probability
/// of 0 never applies, one of 1 always.
CropPlan plan_crop(const AugmentConfig& config, int height, int width, uint64_t sample_position,
                   int crop_index);

/// How many times smaller an image may be read (1, 2, 4 or 8) so that each of these crops still is made from a box with
/// at least its own size both ways. A crop that is enlarged even from the full size allows no reduction.
int reduction_for(std::span<const CropPlan> plans);

/// Where the box of a plan lies in the image that was read.
struct CropSource {
  CropBox pixels;  ///< all pixels that the box touches
  ResizeBox part;  ///< the box itself, counted from the corner of `pixels`; all of them without reduction
};

CropSource source_of(const CropPlan& plan);

/// Memory that `render_crop` reuses from call to call; one per thread.
struct CropScratch {
  Image crop;
  ResizeScratch resize;
  BlurScratch blur;
  ValueScratch values;
};

/// Executes a plan on `image`: crop and bicubic resize, flip, colour, gray, blur, solarize, all in 8 bits,
/// then normalisation to `out` [size, size, channels]. An image of values goes through crop, resize, flip and blur in floats, and through
/// brightness and contrast once it is normalised: a factor f of brightness adds f - 1 standard deviations, one of contrast stretches the
/// distance from the mean. Saturation, hue, gray and solarize are colours' alone and leave it as it is. Throws UsageError if the image does not have
/// `config.channels`.
void render_crop(const AugmentConfig& config, const Image& image, const CropPlan& plan, float* out,
                 CropScratch& scratch);

}  // namespace dino
