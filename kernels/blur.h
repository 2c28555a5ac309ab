#pragma once

#include <cstdint>
#include <vector>

#include "kernels/image.h"

namespace dino {

/// One pass of an extended box filter along a line: 2 * radius + 1 full taps and one partial tap on each
/// side, in 24-bit fixed point: (full * inner sum + edge * outer sum + 2^23) >> 24.
struct BoxFilter {
  int radius;
  uint32_t full, edge;
};

/// The box filter whose three passes approximate a Gaussian of standard deviation `sigma` pixels (sigma >=
/// 0). Throws UsageError for a negative or unreasonably large sigma. Source: Gwosdek, Grewenig, Bruhn,
/// Weickert (2011), as in Pillow's BoxBlur.c.
BoxFilter gaussian_box_filter(float sigma);

/// Memory that `gaussian_blur` reuses from call to call; one per thread.
struct BlurScratch {
  std::vector<uint8_t> lines, image;
};

/// Blurs in place: three box passes along the rows, then three along the columns, each rounded to 8 bits,
/// borders repeated. Equal to Pillow's `ImageFilter.GaussianBlur(sigma)` bit for bit.
void gaussian_blur(MutableImageView image, float sigma, BlurScratch& scratch);

}  // namespace dino
