#include "kernels/color.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/color_math.h"

// Highway compiles everything between BEFORE_NAMESPACE and AFTER_NAMESPACE once for each instruction set. The
// loops are plain: the compiler turns them into vector code.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/color.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dino::HWY_NAMESPACE {
namespace {

void blend_row(uint8_t* row, size_t bytes, int base, float factor) {
  for (size_t i = 0; i < bytes; ++i) row[i] = blend(base, row[i], factor);
}

void saturation_row(uint8_t* row, int width, float factor) {
  for (int x = 0; x < width; ++x) {
    uint8_t* pixel = row + 3 * x;
    const int gray = luma(pixel[0], pixel[1], pixel[2]);
    pixel[0] = blend(gray, pixel[0], factor);
    pixel[1] = blend(gray, pixel[1], factor);
    pixel[2] = blend(gray, pixel[2], factor);
  }
}

// Pixels change places with planes around the arithmetic: loops with a step of three bytes do not become
// vector code.
struct Planes {
  static constexpr int kPixels = 64;
  int a[kPixels], b[kPixels], c[kPixels];
};

void turn_hues(Planes& rgb, int shift) {
  constexpr int n = Planes::kPixels;
  int high[n], range[n], base[n], plus[n], minus[n], hue[n], saturation[n], sector[n], lowest[n], falling[n],
      rising[n];
  for (int i = 0; i < n; ++i) {
    const HueParts parts = hue_parts(rgb.a[i], rgb.b[i], rgb.c[i]);
    high[i] = parts.high;
    range[i] = parts.range;
    base[i] = parts.base;
    plus[i] = parts.plus;
    minus[i] = parts.minus;
  }
  for (int i = 0; i < n; ++i) {
    const HueSaturation turned = hue_saturation({high[i], range[i], base[i], plus[i], minus[i]});
    hue[i] = (turned.hue + shift) & 255;
    saturation[i] = turned.saturation;
  }
  for (int i = 0; i < n; ++i) {
    const HueLevels levels = hue_levels(hue[i], saturation[i], high[i]);
    sector[i] = levels.sector;
    lowest[i] = levels.lowest;
    falling[i] = levels.falling;
    rising[i] = levels.rising;
  }
  for (int i = 0; i < n; ++i) {
    const HueLevels levels{sector[i], lowest[i], falling[i], rising[i]};
    rgb.a[i] = red_of(levels, high[i]);
    rgb.b[i] = green_of(levels, high[i]);
    rgb.c[i] = blue_of(levels, high[i]);
  }
}

void hue_row(uint8_t* row, int width, int shift) {
  Planes rgb{};
  for (int x0 = 0; x0 < width; x0 += Planes::kPixels) {
    const int pixels = std::min(Planes::kPixels, width - x0);
    uint8_t* tile = row + 3 * x0;
    for (int x = 0; x < pixels; ++x) {
      rgb.a[x] = tile[3 * x];
      rgb.b[x] = tile[3 * x + 1];
      rgb.c[x] = tile[3 * x + 2];
    }
    turn_hues(rgb, shift);
    for (int x = 0; x < pixels; ++x) {
      tile[3 * x] = static_cast<uint8_t>(rgb.a[x]);
      tile[3 * x + 1] = static_cast<uint8_t>(rgb.b[x]);
      tile[3 * x + 2] = static_cast<uint8_t>(rgb.c[x]);
    }
  }
}

uint64_t luma_sum(const uint8_t* row, int width) {
  uint32_t sum = 0;
  for (int x = 0; x < width; ++x) sum += luma(row[3 * x], row[3 * x + 1], row[3 * x + 2]);
  return sum;
}

void solarize_row(uint8_t* row, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) row[i] = solarized(row[i]);
}

}  // namespace
}  // namespace dino::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace dino {
namespace {

HWY_EXPORT(blend_row);
HWY_EXPORT(saturation_row);
HWY_EXPORT(hue_row);
HWY_EXPORT(luma_sum);
HWY_EXPORT(solarize_row);

void blend_with_level(MutableImageView image, int level, float factor) {
  for (int y = 0; y < image.height; ++y)
    HWY_DYNAMIC_DISPATCH(blend_row)(image.row(y), image.row_bytes(), level, factor);
}

template <int kChannels>
void flip_row(uint8_t* row, int width) {
  for (int left = 0, right = width - 1; left < right; ++left, --right) {
    for (int c = 0; c < kChannels; ++c) std::swap(row[left * kChannels + c], row[right * kChannels + c]);
  }
}

}  // namespace

void adjust_brightness(MutableImageView image, float factor) { blend_with_level(image, 0, factor); }

int contrast_level(ImageView image) {
  uint64_t sum = 0;
  const size_t bytes = image.row_bytes();
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* row = image.row(y);
    if (image.channels == 3) {
      sum += HWY_DYNAMIC_DISPATCH(luma_sum)(row, image.width);
    } else {
      for (size_t i = 0; i < bytes; ++i) sum += row[i];
    }
  }
  const double values = double(image.height) * image.width * (image.channels == 3 ? 1 : image.channels);
  return static_cast<int>(static_cast<double>(sum) / values + 0.5);
}

void adjust_contrast(MutableImageView image, float factor) {
  blend_with_level(image, contrast_level(image), factor);
}

void adjust_saturation(MutableImageView image, float factor) {
  if (image.channels != 3) return;
  for (int y = 0; y < image.height; ++y)
    HWY_DYNAMIC_DISPATCH(saturation_row)(image.row(y), image.width, factor);
}

void adjust_hue(MutableImageView image, float factor) {
  if (image.channels != 3) return;
  for (int y = 0; y < image.height; ++y)
    HWY_DYNAMIC_DISPATCH(hue_row)(image.row(y), image.width, hue_shift(factor));
}

void to_grayscale(MutableImageView image) {
  if (image.channels != 3) return;
  for (int y = 0; y < image.height; ++y) {
    uint8_t* row = image.row(y);
    for (int x = 0; x < image.width; ++x) {
      const uint8_t gray = luma(row[3 * x], row[3 * x + 1], row[3 * x + 2]);
      row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = gray;
    }
  }
}

void solarize(MutableImageView image) {
  for (int y = 0; y < image.height; ++y) HWY_DYNAMIC_DISPATCH(solarize_row)(image.row(y), image.row_bytes());
}

void flip_horizontally(MutableImageView image) {
  for (int y = 0; y < image.height; ++y) {
    switch (image.channels) {
      case 1:
        flip_row<1>(image.row(y), image.width);
        break;
      case 2:
        flip_row<2>(image.row(y), image.width);
        break;
      case 3:
        flip_row<3>(image.row(y), image.width);
        break;
      default:
        flip_row<4>(image.row(y), image.width);
        break;
    }
  }
}

void normalize(ImageView image, std::span<const float> mean, std::span<const float> deviation, float* out) {
  const int channels = image.channels;
  check<UsageError>(channels >= 1 && channels <= 4 && mean.size() == size_t(channels) &&
                        deviation.size() == size_t(channels),
                    "normalize: one mean and one deviation per channel; got ", mean.size(), " and ",
                    deviation.size(), " for ", channels, " channels");
  // 256 divisions per channel instead of two per pixel.
  float table[4][256];
  for (int c = 0; c < channels; ++c) {
    for (int value = 0; value < 256; ++value) table[c][value] = normalized(value, mean[c], deviation[c]);
  }
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* row = image.row(y);
    if (channels == 3) {
      for (int x = 0; x < image.width; ++x, row += 3, out += 3) {
        out[0] = table[0][row[0]];
        out[1] = table[1][row[1]];
        out[2] = table[2][row[2]];
      }
    } else {
      for (int x = 0; x < image.width; ++x) {
        for (int c = 0; c < channels; ++c) *out++ = table[c][*row++];
      }
    }
  }
}

}  // namespace dino

#endif  // HWY_ONCE
