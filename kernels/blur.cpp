#include "kernels/blur.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// Highway compiles everything between BEFORE_NAMESPACE and AFTER_NAMESPACE once for each instruction set. The
// loops are plain: the compiler turns them into vector code.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/blur.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dino::HWY_NAMESPACE {
namespace {

inline uint8_t rounded(uint32_t sum) { return static_cast<uint8_t>((sum + (1u << 23)) >> 24); }

// out[i] from in[i - reach * step] to in[i + reach * step], reach = radius + 1: along a row the step is one
// pixel, along a column (of a padded image whose rows are dense) one row.
void filter_line(const uint8_t* in, ptrdiff_t step, size_t bytes, BoxFilter filter, uint8_t* out) {
  const ptrdiff_t outer = (filter.radius + 1) * step, end = static_cast<ptrdiff_t>(bytes);
  if (filter.radius == 0) {
    for (ptrdiff_t i = 0; i < end; ++i) {
      out[i] = rounded(filter.full * in[i] + filter.edge * (uint32_t(in[i - outer]) + in[i + outer]));
    }
  } else if (filter.radius == 1) {
    for (ptrdiff_t i = 0; i < end; ++i) {
      const uint32_t inner = uint32_t(in[i - step]) + in[i] + in[i + step];
      out[i] = rounded(filter.full * inner + filter.edge * (uint32_t(in[i - outer]) + in[i + outer]));
    }
  } else {
    for (ptrdiff_t i = 0; i < end; ++i) {
      uint32_t inner = 0;
      for (ptrdiff_t d = -outer + step; d < outer; d += step) inner += in[i + d];
      out[i] = rounded(filter.full * inner + filter.edge * (uint32_t(in[i - outer]) + in[i + outer]));
    }
  }
}

}  // namespace
}  // namespace dino::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace dino {
namespace {

HWY_EXPORT(filter_line);

constexpr int kPasses = 3;

// `line` holds `pad` bytes of margin on both sides of its `bytes` bytes; each margin repeats `unit` border
// bytes.
void repeat_borders(uint8_t* line, size_t bytes, size_t pad, size_t unit) {
  for (size_t i = 0; i < pad; i += unit) {
    std::memcpy(line - pad + i, line, unit);
    std::memcpy(line + bytes + i, line + bytes - unit, unit);
  }
}

// Three passes over a line of `bytes` bytes with taps `unit` bytes apart; result in `a`. Both lines have
// margins.
void filter_thrice(uint8_t*& a, uint8_t*& b, size_t bytes, size_t unit, BoxFilter filter) {
  const size_t pad = (filter.radius + 1) * unit;
  for (int pass = 0; pass < kPasses; ++pass) {
    repeat_borders(a, bytes, pad, unit);
    HWY_DYNAMIC_DISPATCH(filter_line)(a, static_cast<ptrdiff_t>(unit), bytes, filter, b);
    std::swap(a, b);
  }
}

}  // namespace

BoxFilter gaussian_box_filter(float sigma) {
  check<UsageError>(sigma >= 0 && sigma <= 1000, "gaussian_blur: sigma must be in [0, 1000]; got ", sigma);
  const float variance = sigma * sigma / kPasses;
  const float length = static_cast<float>(std::sqrt(12.0 * variance + 1.0));
  const float whole = static_cast<float>(std::floor((length - 1.0) / 2.0));
  float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  part /= 6 * (variance - (whole + 1) * (whole + 1));
  const float box_radius = whole + part;

  BoxFilter filter;
  filter.radius = static_cast<int>(box_radius);
  filter.full = static_cast<uint32_t>(static_cast<float>(1 << 24) / (box_radius * 2 + 1));
  filter.edge = ((1u << 24) - (2 * static_cast<uint32_t>(filter.radius) + 1) * filter.full) / 2;
  return filter;
}

void gaussian_blur(MutableImageView image, float sigma, BlurScratch& scratch) {
  const BoxFilter filter = gaussian_box_filter(sigma);
  if (filter.edge == 0 && filter.radius == 0) return;
  const size_t bytes = image.row_bytes(), reach = filter.radius + 1;

  const size_t pad = reach * image.channels;
  scratch.lines.resize(2 * (bytes + 2 * pad));
  uint8_t* a = scratch.lines.data() + pad;
  uint8_t* b = a + bytes + 2 * pad;
  for (int y = 0; y < image.height; ++y) {
    std::memcpy(a, image.row(y), bytes);
    filter_thrice(a, b, bytes, image.channels, filter);
    std::memcpy(image.row(y), a, bytes);
  }

  // A dense image is one long line in which the pixel below is `bytes` further on.
  const size_t total = bytes * image.height, margin = reach * bytes;
  scratch.image.resize(2 * (total + 2 * margin));
  a = scratch.image.data() + margin;
  b = a + total + 2 * margin;
  for (int y = 0; y < image.height; ++y) std::memcpy(a + y * bytes, image.row(y), bytes);
  filter_thrice(a, b, total, bytes, filter);
  for (int y = 0; y < image.height; ++y) std::memcpy(image.row(y), a + y * bytes, bytes);
}

}  // namespace dino

#endif  // HWY_ONCE
