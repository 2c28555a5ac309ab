#pragma once

#include <span>

#include "kernels/image.h"

/// Colour operations on 8-bit images [height, width, channels], in place, equal bit for bit to Pillow's
/// ImageEnhance and to torchvision's functional transforms on PIL images. Saturation, hue and grayscale leave
/// images alone that do not have 3 channels.
namespace dino {

/// Blends with black; 0 is black, 1 the identity.
void adjust_brightness(MutableImageView image, float factor);

/// The gray level to which contrast blends: the rounded mean of the luma (3 channels), or of all values.
int contrast_level(ImageView image);

/// Blends with a uniform gray, the mean of the image; 0 is uniform, 1 the identity.
void adjust_contrast(MutableImageView image, float factor);

/// Blends with the gray image; 0 is gray, 1 the identity.
void adjust_saturation(MutableImageView image, float factor);

/// Turns the hue by `factor` (in [-0.5, 0.5]) of the colour circle, through 8-bit HSV. Even 0 changes
/// colours.
void adjust_hue(MutableImageView image, float factor);

/// Replaces every pixel by its luma in all three channels.
void to_grayscale(MutableImageView image);

/// Replaces x by 255 - x where x >= 128.
void solarize(MutableImageView image);

/// Mirrors left and right.
void flip_horizontally(MutableImageView image);

/// Writes (x / 255 - mean) / deviation as f32 to `out` [height, width, channels].
/// `mean` and `deviation` have one value per channel; throws UsageError otherwise.
void normalize(ImageView image, std::span<const float> mean, std::span<const float> deviation, float* out);

}  // namespace dino
