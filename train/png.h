#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/image.h"

namespace dino {

/// An 8-bit image [height, width, channels] as a PNG file, gray (1 channel) or colour (3). Source: the PNG
/// specification, third edition (W3C, 2025). Throws UsageError for other channels and for an empty image.
std::vector<uint8_t> encode_png(ImageView image);

/// Writes `encode_png(image)` atomically. Throws Error if the file cannot be written.
void save_png(const std::string& path, ImageView image);

/// A colour for `value` in [0, 1] (clamped; NaN is 0): from dark violet through teal to light yellow.
/// Lightness rises in equal steps, so equal differences of the value look equal, also in gray and to
/// colour-blind readers. The path is a turn of the hue in the Oklab space (Ottosson, 2020).
std::array<uint8_t, 3> perceptual_color(double value);

}  // namespace dino
