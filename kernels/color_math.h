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
inline constexpr int kLumaRed = 19595, kLumaGreen = 38470, kLumaBlue = 7471, kLumaHalf = 1 << 15;
DINO_HOST_DEVICE inline uint8_t luma(int red, int green, int blue) {
  return static_cast<uint8_t>((kLumaRed * red + kLumaGreen * green + kLumaBlue * blue + kLumaHalf) >> 16);
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

// Red, green, blue to hue, saturation, value and back, in stages. Pillow computes in doubles; here are the shortest
// steps in f32 that give the same for every colour and every turned hue, which tests/augment/color_test.cpp shows by
// trying all of them. kernels/color.cpp has the same steps for vectors.

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
  // One of plus / range and minus / range is 1, so one division and one sum, rounded once each, make the sixths.
  const bool plus_is_whole = parts.plus == parts.range;
  const float other = static_cast<float>(plus_is_whole ? parts.minus : parts.plus);
  const float part = other / static_cast<float>(larger(parts.range, 1));
  const int from = plus_is_whole ? parts.base + 1 : parts.base - 1;
  const float sixths = static_cast<float>(parts.range == 0 ? 0 : from) + (plus_is_whole ? -part : part);
  const float turn = sixths / 6.0f, hue = turn + (turn < 0.0f ? 1.0f : 0.0f);
  const float saturation = static_cast<float>(parts.range) / static_cast<float>(larger(parts.high, 1));
  return {static_cast<int>(hue * 255.0f), static_cast<int>(saturation * 255.0f)};
}

/// The levels between which the channels of a colour change in one of six sectors of the hue circle.
struct HueLevels {
  int sector;  ///< 0 to 6, and 6 is 0
  int lowest, falling, rising;
};

/// An 8-bit hue of 85 lies two sixths up the circle; position in a sector and saturation have one unit together.
inline constexpr int kHueSector = 85;
inline constexpr float kHueUnit = 255 * kHueSector;
/// hue * 2 * kSectorFactor >> 16 is hue * 2 / kHueSector.
inline constexpr int kSectorFactor = 772;

/// value * (1 - saturation / 255 * part / kHueSector), rounded. All steps but the last are exact, and the quotient keeps
/// further from whole numbers than the last one errs.
DINO_HOST_DEVICE inline int hue_level(float value, float saturation, float part) {
  const float scaled = value * (kHueUnit - saturation * part);
  return static_cast<int>((scaled + scaled + kHueUnit) * (0.5f / kHueUnit));
}

DINO_HOST_DEVICE inline HueLevels hue_levels(int hue, int saturation, int value) {
  const int sector = (2 * hue * kSectorFactor) >> 16;
  const float part = static_cast<float>(2 * hue - kHueSector * sector), full = static_cast<float>(kHueSector);
  const float s = static_cast<float>(saturation), v = static_cast<float>(value);
  return {sector, hue_level(v, s, full), hue_level(v, s, part), hue_level(v, s, full - part)};
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
