#pragma once

#include <cstdint>

#include "kernels/device.h"

/// The per-pixel arithmetic of the colour operations, shared by CPU and CUDA. Every product is rounded on its
/// own: compile with -ffp-contract=off and -fmad=false. Source: Pillow's Blend.c and Convert.c, whose results
/// these functions reproduce bit for bit.
namespace dino {

enum class ColorOp : uint8_t { brightness, contrast, saturation, hue };

struct ColorStep {
  ColorOp op;
  float factor;
};

/// Gray value of a pixel (ITU-R 601-2 luma in 16-bit fixed point).
DINO_HOST_DEVICE inline uint8_t luma(int red, int green, int blue) {
  return static_cast<uint8_t>((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16);
}

/// `base` + factor * (value - base), cut to [0, 255] and truncated. Factor 0 gives `base`, 1 gives `value`.
DINO_HOST_DEVICE inline uint8_t blend(int base, int value, float factor) {
  float mixed = static_cast<float>(base) + factor * static_cast<float>(value - base);
  mixed = mixed > 0.0f ? mixed : 0.0f;
  mixed = mixed < 255.0f ? mixed : 255.0f;
  return static_cast<uint8_t>(static_cast<int>(mixed));
}

DINO_HOST_DEVICE inline int larger(int x, int y) { return x > y ? x : y; }
DINO_HOST_DEVICE inline int smaller(int x, int y) { return x < y ? x : y; }

// Red, green, blue to hue, saturation, value and back, in stages: whole numbers choose, floats compute, whole
// numbers choose. A loop over one stage becomes vector code; a loop over all would not.

/// What a hue is made of: in sixths of the circle it is base + (plus - minus) / range.
struct HueParts {
  int high;   ///< the largest of the three, which is the value of HSV
  int range;  ///< minus the smallest; 0 for grays, which have plus = minus = 0 and so hue 0 and saturation 0
  int base, plus, minus;
};

DINO_HOST_DEVICE inline HueParts hue_parts(int red, int green, int blue) {
  const int high = larger(red, larger(green, blue)), low = smaller(red, smaller(green, blue));
  const bool from_red = red == high, from_green = green == high;
  const int base = from_red ? 0 : from_green ? 2 : 4;
  const int plus = from_red ? blue : from_green ? red : green;
  const int minus = from_red ? green : from_green ? blue : red;
  return {high, high - low, base, high - plus, high - minus};
}

struct HueSaturation {
  int hue, saturation;  ///< 0 to 255
};

DINO_HOST_DEVICE inline HueSaturation hue_saturation(const HueParts& parts) {
  const float range = static_cast<float>(larger(parts.range, 1));
  const float saturation = static_cast<float>(parts.range) / static_cast<float>(larger(parts.high, 1));
  const float plus = static_cast<float>(parts.plus) / range, minus = static_cast<float>(parts.minus) / range;
  const float sixths = static_cast<float>(static_cast<double>(parts.base) + plus - minus);
  const double turn = sixths / 6.0 + 1.0;  // in [5/6, 2)
  const float hue = static_cast<float>(turn - (turn >= 1.0 ? 1.0 : 0.0));
  return {smaller(static_cast<int>(hue * 255.0), 255), smaller(static_cast<int>(saturation * 255.0), 255)};
}

/// The levels between which the channels of a colour change in one of six sectors of the hue circle.
struct HueLevels {
  int sector;  ///< 0 to 6, and 6 is 0
  int lowest, falling, rising;
};

DINO_HOST_DEVICE inline HueLevels hue_levels(int hue, int saturation, int value) {
  const double position = hue * 6.0 / 255.0;
  const int sector = static_cast<int>(position);
  const float f = static_cast<float>(position - sector);
  const float s = static_cast<float>(saturation / 255.0);
  const double v = value;
  // Rounding half up by + 0.5 is exact here: the products are multiples of 2^-40 below 256.
  return {sector, static_cast<int>(v * (1.0 - s) + 0.5), static_cast<int>(v * (1.0 - s * f) + 0.5),
          static_cast<int>(v * (1.0 - s * (1.0 - f)) + 0.5)};
}

DINO_HOST_DEVICE inline int red_of(const HueLevels& at, int value) {
  const int low_part = (at.sector == 2) | (at.sector == 3) ? at.lowest : value;
  return at.sector == 1 ? at.falling : at.sector == 4 ? at.rising : low_part;
}

DINO_HOST_DEVICE inline int green_of(const HueLevels& at, int value) {
  const int high_part = (at.sector == 1) | (at.sector == 2) ? value : at.lowest;
  return (at.sector == 0) | (at.sector == 6) ? at.rising : at.sector == 3 ? at.falling : high_part;
}

DINO_HOST_DEVICE inline int blue_of(const HueLevels& at, int value) {
  const int high_part = (at.sector == 3) | (at.sector == 4) ? value : at.lowest;
  return at.sector == 2 ? at.rising : at.sector == 5 ? at.falling : high_part;
}

/// What a hue factor in [-0.5, 0.5] (a part of the circle) adds to an 8-bit hue, modulo 256. Turning by 0 is
/// not the identity: HSV in 8 bits is coarse.
DINO_HOST_DEVICE inline int hue_shift(float factor) {
  return static_cast<int>(static_cast<double>(factor) * 255.0) & 255;
}

/// Inverts the upper half of the range.
DINO_HOST_DEVICE inline uint8_t solarized(int value) {
  return static_cast<uint8_t>(value < 128 ? value : 255 - value);
}

/// (value / 255 - mean) / deviation in f32.
DINO_HOST_DEVICE inline float normalized(int value, float mean, float deviation) {
  return (static_cast<float>(value) / 255.0f - mean) / deviation;
}

}  // namespace dino
