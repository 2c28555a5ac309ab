#include "kernels/color.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/color_math.h"

// Highway compiles everything between BEFORE_NAMESPACE and AFTER_NAMESPACE once for each instruction set. The
// plain loops are such that the compiler turns them into vector code.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/color.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dino::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

void blend_row(uint8_t* row, size_t bytes, int base, float factor) {
  for (size_t i = 0; i < bytes; ++i) row[i] = blend(base, row[i], factor);
}

using D32 = hn::CappedTag<int32_t, 16>;
using Whole = hn::Vec<D32>;

// `hue_parts`, `hue_saturation`, `hue_levels` and `red_of` to `blue_of` for a vector of pixels. Written out, because the
// compiler makes no vector code of so many choices.
HWY_INLINE void turn_hues(Whole& red, Whole& green, Whole& blue, int shift) {
  const D32 d;
  const hn::RebindToFloat<D32> df;
  const auto real = [&](Whole x) HWY_ATTR { return hn::ConvertTo(df, x); };
  const auto whole = [&](auto x) HWY_ATTR { return hn::ConvertTo(d, x); };
  const auto at_least_1 = [&](Whole x) HWY_ATTR { return hn::Max(x, hn::Set(d, 1)); };
  const auto zero = hn::Zero(d);

  const auto high = hn::Max(red, hn::Max(green, blue)), low = hn::Min(red, hn::Min(green, blue));
  const auto range = hn::Sub(high, low);
  const auto from_red = hn::Eq(red, high), from_green = hn::Eq(green, high);
  const auto base = hn::IfThenElse(from_red, zero, hn::IfThenElse(from_green, hn::Set(d, 2), hn::Set(d, 4)));
  const auto plus = hn::IfThenElse(from_red, blue, hn::IfThenElse(from_green, red, green));
  const auto minus = hn::IfThenElse(from_red, green, hn::IfThenElse(from_green, blue, red));

  const auto plus_is_whole = hn::Eq(plus, low);
  const auto other = real(hn::Sub(high, hn::IfThenElse(plus_is_whole, minus, plus)));
  const auto part = hn::Div(other, real(at_least_1(range)));
  const auto step = hn::IfThenElse(plus_is_whole, hn::Set(d, 1), hn::Set(d, -1));
  const auto from = real(hn::IfThenElse(hn::Eq(range, zero), zero, hn::Add(base, step)));
  const auto sixths =
      hn::IfThenElse(hn::RebindMask(df, plus_is_whole), hn::Sub(from, part), hn::Add(from, part));
  const auto turn = hn::Div(sixths, hn::Set(df, 6.0f));
  const auto position = hn::IfThenElse(hn::Lt(turn, hn::Zero(df)), hn::Add(turn, hn::Set(df, 1.0f)), turn);
  const auto hue =
      hn::And(hn::Add(whole(hn::Mul(position, hn::Set(df, 255.0f))), hn::Set(d, shift)), hn::Set(d, 255));
  const auto saturation =
      real(whole(hn::Mul(hn::Div(real(range), real(at_least_1(high))), hn::Set(df, 255.0f))));

  const auto sector = hn::ShiftRight<16>(hn::Mul(hn::Add(hue, hue), hn::Set(d, kSectorFactor)));
  const auto rise = real(hn::Sub(hn::Add(hue, hue), hn::Mul(sector, hn::Set(d, kHueSector))));
  const auto value = real(high);
  const auto level = [&](auto x) HWY_ATTR {
    const auto scaled = hn::Mul(value, hn::Sub(hn::Set(df, kHueUnit), hn::Mul(saturation, x)));
    return whole(hn::Mul(hn::Add(hn::Add(scaled, scaled), hn::Set(df, kHueUnit)), hn::Set(df, 0.5f / kHueUnit)));
  };
  const auto full = hn::Set(df, static_cast<float>(kHueSector));
  const auto lowest = level(full), falling = level(rise), rising = level(hn::Sub(full, rise));

  const auto in = [&](int number) HWY_ATTR { return hn::Eq(sector, hn::Set(d, number)); };
  const auto choose = [&](int a, Whole from_a, int b, Whole from_b, int c, int e, Whole from_ce, Whole otherwise) HWY_ATTR {
    return hn::IfThenElse(
        in(a), from_a, hn::IfThenElse(in(b), from_b, hn::IfThenElse(hn::Or(in(c), in(e)), from_ce, otherwise)));
  };
  red = choose(1, falling, 4, rising, 2, 3, lowest, high);
  green = choose(0, rising, 3, falling, 1, 2, high, hn::IfThenElse(in(6), rising, lowest));
  blue = choose(2, rising, 5, falling, 3, 4, high, lowest);
}

// Calls `change(red, green, blue)` with the whole numbers of as many pixels as a vector holds, until the row is done.
template <class Change>
HWY_INLINE void for_pixels(uint8_t* row, int width, const Change& change) {
  const D32 d;
  const hn::Rebind<uint8_t, D32> d8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto change_at = [&](uint8_t* pixels) HWY_ATTR {
    hn::Vec<decltype(d8)> bytes[3];
    hn::LoadInterleaved3(d8, pixels, bytes[0], bytes[1], bytes[2]);
    Whole red = hn::PromoteTo(d, bytes[0]), green = hn::PromoteTo(d, bytes[1]), blue = hn::PromoteTo(d, bytes[2]);
    change(red, green, blue);
    hn::StoreInterleaved3(hn::DemoteTo(d8, red), hn::DemoteTo(d8, green), hn::DemoteTo(d8, blue), d8, pixels);
  };
  int x = 0;
  for (; x + lanes <= width; x += lanes) change_at(row + 3 * x);
  if (x >= width) return;
  uint8_t rest[3 * 16] = {};
  std::memcpy(rest, row + 3 * x, size_t(width - x) * 3);
  change_at(rest);
  std::memcpy(row + 3 * x, rest, size_t(width - x) * 3);
}

HWY_INLINE Whole luma_of(Whole red, Whole green, Whole blue) {
  const D32 d;
  const auto sum = hn::Add(hn::Add(hn::Mul(red, hn::Set(d, kLumaRed)), hn::Mul(green, hn::Set(d, kLumaGreen))),
                           hn::Add(hn::Mul(blue, hn::Set(d, kLumaBlue)), hn::Set(d, kLumaHalf)));
  return hn::ShiftRight<16>(sum);
}

void hue_row(uint8_t* row, int width, int shift) {
  for_pixels(row, width,
             [&](Whole& red, Whole& green, Whole& blue) HWY_ATTR { turn_hues(red, green, blue, shift); });
}

void saturation_row(uint8_t* row, int width, float factor) {
  const D32 d;
  const hn::RebindToFloat<D32> df;
  for_pixels(row, width, [&](Whole& red, Whole& green, Whole& blue) HWY_ATTR {
    const auto gray = luma_of(red, green, blue);
    // `blend`; the cut to [0, 255] is that of the conversion to bytes.
    const auto blended = [&](Whole value) HWY_ATTR {
      const auto away = hn::Mul(hn::Set(df, factor), hn::ConvertTo(df, hn::Sub(value, gray)));
      return hn::ConvertTo(d, hn::Add(hn::ConvertTo(df, gray), away));
    };
    red = blended(red);
    green = blended(green);
    blue = blended(blue);
  });
}

void gray_row(uint8_t* row, int width) {
  for_pixels(row, width, [](Whole& red, Whole& green, Whole& blue) HWY_ATTR {
    red = green = blue = luma_of(red, green, blue);
  });
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
HWY_EXPORT(gray_row);
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
  for (int y = 0; y < image.height; ++y) HWY_DYNAMIC_DISPATCH(gray_row)(image.row(y), image.width);
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
