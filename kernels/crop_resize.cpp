#include "kernels/crop_resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

// Highway compiles everything between BEFORE_NAMESPACE and AFTER_NAMESPACE once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/crop_resize.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dino::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// So many rows of the image go through the first pass side by side, one in each lane: a strip.
constexpr int kStripRows = 16;
constexpr int32_t kHalf = 1 << (ResampleWeights::kFractionBits - 1);

// At most as many lanes as a strip has rows, so that whole vectors fill it.
using D32 = hn::CappedTag<int32_t, kStripRows>;
using D8 = hn::Rebind<uint8_t, D32>;

// The weighted sum of groups of bytes that lie `step` bytes apart, rounded, cut to [0, 255] and stored.
HWY_INLINE void weighted_sum(const uint8_t* in, ptrdiff_t step, const int32_t* weight, int count,
                             uint8_t* out) {
  const D32 d32;
  const D8 d8;
  auto sum = hn::Set(d32, kHalf);
  for (int j = 0; j < count; ++j) {
    const auto pixels = hn::PromoteTo(d32, hn::LoadU(d8, in + j * step));
    sum = hn::Add(sum, hn::Mul(pixels, hn::Set(d32, weight[j])));
  }
  hn::StoreU(hn::DemoteTo(d8, hn::ShiftRight<ResampleWeights::kFractionBits>(sum)), d8, out);
}

// out[i][j] = in[j][i] for 16 x 16 bytes.
HWY_INLINE void transpose_block(const uint8_t* const* in, uint8_t* const* out) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < kStripRows; ++i) {
    for (int j = 0; j < kStripRows; ++j) out[i][j] = in[j][i];
  }
#else
  // Interleaving row i with row i + 8, four times over.
  using D = hn::Full128<uint8_t>;
  const D d;
  hn::Vec<D> a[kStripRows], b[kStripRows];
  for (int i = 0; i < kStripRows; ++i) a[i] = hn::LoadU(d, in[i]);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < kStripRows / 2; ++i) {
      b[2 * i] = hn::InterleaveLower(d, a[i], a[i + 8]);
      b[2 * i + 1] = hn::InterleaveUpper(d, a[i], a[i + 8]);
    }
    for (int i = 0; i < kStripRows / 2; ++i) {
      a[2 * i] = hn::InterleaveLower(d, b[i], b[i + 8]);
      a[2 * i + 1] = hn::InterleaveUpper(d, b[i], b[i + 8]);
    }
  }
  for (int i = 0; i < kStripRows; ++i) hn::StoreU(a[i], d, out[i]);
#endif
}

// Rows y0 .. y0 + 15 of `in`, turned so that the same byte of all rows lies in one group.
// Rows past the end repeat the last one; their results are dropped.
void gather_strip(ImageView in, int y0, uint8_t* strip) {
  const uint8_t* rows[kStripRows];
  uint8_t* groups[kStripRows];
  for (int i = 0; i < kStripRows; ++i) rows[i] = in.row(std::min(y0 + i, in.height - 1));
  const size_t bytes = in.row_bytes();
  size_t at = 0;
  for (; at + kStripRows <= bytes; at += kStripRows) {
    for (int i = 0; i < kStripRows; ++i) groups[i] = strip + (at + size_t(i)) * kStripRows;
    transpose_block(rows, groups);
    for (const uint8_t*& row : rows) row += kStripRows;
  }
  for (; at < bytes; ++at) {
    for (int i = 0; i < kStripRows; ++i) strip[at * kStripRows + size_t(i)] = *rows[i]++;
  }
}

// The reverse, for the rows that `out` has.
void scatter_strip(const uint8_t* strip, MutableImageView out, int y0) {
  const int rows = std::min(kStripRows, out.height - y0);
  const size_t bytes = out.row_bytes();
  uint8_t block[kStripRows][kStripRows];
  const uint8_t* groups[kStripRows];
  uint8_t* lines[kStripRows];
  for (int i = 0; i < kStripRows; ++i) lines[i] = block[i];
  size_t at = 0;
  for (; at + kStripRows <= bytes; at += kStripRows) {
    for (int i = 0; i < kStripRows; ++i) groups[i] = strip + (at + size_t(i)) * kStripRows;
    transpose_block(groups, lines);
    for (int i = 0; i < rows; ++i) std::memcpy(out.row(y0 + i) + at, block[i], kStripRows);
  }
  for (; at < bytes; ++at) {
    for (int i = 0; i < rows; ++i) out.row(y0 + i)[at] = strip[at * kStripRows + size_t(i)];
  }
}

void resample_columns(ImageView in, const ResampleWeights& weights, MutableImageView out,
                      std::vector<uint8_t>& buffer) {
  const size_t in_bytes = in.row_bytes() * kStripRows, out_bytes = out.row_bytes() * kStripRows;
  buffer.resize(in_bytes + out_bytes);
  uint8_t* strip = buffer.data();
  const size_t lanes = hn::Lanes(D32());
  const ptrdiff_t step = ptrdiff_t{in.channels} * kStripRows;
  for (int y0 = 0; y0 < in.height; y0 += kStripRows) {
    gather_strip(in, y0, strip);
    uint8_t* result = strip + in_bytes;
    for (int x = 0; x < out.width; ++x) {
      const int32_t* weight = &weights.weight[size_t(x) * size_t(weights.taps)];
      const uint8_t* first = strip + weights.first[size_t(x)] * step;
      const int count = weights.count[size_t(x)];
      for (ptrdiff_t lane = 0; lane < step; lane += static_cast<ptrdiff_t>(lanes), result += lanes) {
        weighted_sum(first + lane, step, weight, count, result);
      }
    }
    scatter_strip(strip + in_bytes, out, y0);
  }
}

void resample_rows(ImageView in, const ResampleWeights& weights, MutableImageView out) {
  const ptrdiff_t bytes = static_cast<ptrdiff_t>(in.row_bytes());
  const ptrdiff_t lanes = static_cast<ptrdiff_t>(hn::Lanes(D32()));
  for (int y = 0; y < out.height; ++y) {
    const int32_t* weight = &weights.weight[size_t(y) * size_t(weights.taps)];
    const int count = weights.count[size_t(y)];
    const uint8_t* first = in.row(weights.first[size_t(y)]);
    uint8_t* row = out.row(y);
    ptrdiff_t i = 0;
    for (; i + lanes <= bytes; i += lanes) weighted_sum(first + i, in.stride, weight, count, row + i);
    for (; i < bytes; ++i) {
      int32_t sum = kHalf;
      for (int j = 0; j < count; ++j) sum += first[j * in.stride + i] * weight[j];
      row[i] = static_cast<uint8_t>(std::clamp(sum >> ResampleWeights::kFractionBits, 0, 255));
    }
  }
}

}  // namespace
}  // namespace dino::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace dino {
namespace {

HWY_EXPORT(resample_columns);
HWY_EXPORT(resample_rows);

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double filter_at(Filter filter, double x) {
  switch (filter) {
    case Filter::bilinear:
      return std::max(0.0, 1.0 - std::abs(x));
    case Filter::bicubic:
      return bicubic(x);
    case Filter::lanczos:
      return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
  }
  return 0.0;
}

double support_of(Filter filter) {
  return filter == Filter::bilinear ? 1.0 : filter == Filter::bicubic ? 2.0 : 3.0;
}

int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << ResampleWeights::kFractionBits);
  return static_cast<int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

void resample_columns(ImageView in, const ResampleWeights& weights, MutableImageView out,
                      std::vector<uint8_t>& strip) {
  HWY_DYNAMIC_DISPATCH(resample_columns)(in, weights, out, strip);
}

void resample_rows(ImageView in, const ResampleWeights& weights, MutableImageView out) {
  HWY_DYNAMIC_DISPATCH(resample_rows)(in, weights, out);
}

void copy_rows(ImageView in, MutableImageView out) {
  for (int y = 0; y < out.height; ++y) std::memcpy(out.row(y), in.row(y), out.row_bytes());
}

}  // namespace

ResampleWeights resample_weights(int in_size, float begin, float end, int out_size, Filter filter) {
  check<UsageError>(begin >= 0 && begin < end && end <= static_cast<float>(in_size) && out_size > 0,
                    "resize: the box must lie inside the image and the output must not be empty; got [",
                    begin, ", ", end, ") of ", in_size, " pixels to ", out_size);
  const double scale = static_cast<double>(end - begin) / out_size;
  const double filter_scale = std::max(scale, 1.0);
  const double support = support_of(filter) * filter_scale;
  const double inverse = 1.0 / filter_scale;

  ResampleWeights result;
  result.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  result.first.resize(out_size);
  result.count.resize(out_size);
  result.weight.assign(size_t(out_size) * result.taps, 0);
  std::vector<double> real(result.taps);
  for (int i = 0; i < out_size; ++i) {
    const double center = begin + (i + 0.5) * scale;
    const int low = std::max(0, static_cast<int>(center - support + 0.5));
    const int high = std::min(in_size, static_cast<int>(center + support + 0.5));
    const int count = high - low;
    double sum = 0.0;
    for (int j = 0; j < count; ++j) {
      real[j] = filter_at(filter, (j + low - center + 0.5) * inverse);
      sum += real[j];
    }
    result.first[i] = low;
    result.count[i] = count;
    for (int j = 0; j < count; ++j) {
      result.weight[size_t(i) * result.taps + j] = to_fixed(sum != 0.0 ? real[j] / sum : real[j]);
    }
  }
  return result;
}

void resize(ImageView in, ResizeBox box, MutableImageView out, Filter filter, ResizeScratch& scratch) {
  check<UsageError>(in.channels == out.channels && in.channels >= 1 && in.channels <= 4,
                    "resize: input and output must have the same 1 to 4 channels; got ", in.channels, " and ",
                    out.channels);
  const bool columns = out.width != in.width || box.left != 0 || box.right != static_cast<float>(in.width);
  const bool rows = out.height != in.height || box.top != 0 || box.bottom != static_cast<float>(in.height);
  if (!columns && !rows) return copy_rows(in, out);
  if (!rows) {
    return resample_columns(in, resample_weights(in.width, box.left, box.right, out.width, filter), out,
                            scratch.strip);
  }

  ResampleWeights vertical = resample_weights(in.height, box.top, box.bottom, out.height, filter);
  if (!columns) return resample_rows(in, vertical, out);

  // Only the rows that the second pass reads go through the first.
  const int top = vertical.first.front();
  const int bottom = vertical.first.back() + vertical.count.back();
  scratch.intermediate.resize(size_t(bottom - top) * out.row_bytes());
  const MutableImageView intermediate(scratch.intermediate.data(), bottom - top, out.width, out.channels);
  resample_columns(in.crop(top, 0, bottom - top, in.width),
                   resample_weights(in.width, box.left, box.right, out.width, filter), intermediate,
                   scratch.strip);
  for (int32_t& first : vertical.first) first -= top;
  resample_rows(intermediate, vertical, out);
}

void resize(ImageView in, MutableImageView out, Filter filter, ResizeScratch& scratch) {
  resize(in, {0, 0, static_cast<float>(in.width), static_cast<float>(in.height)}, out, filter, scratch);
}

void box_reduce(ImageView in, int factor_x, int factor_y, MutableImageView out) {
  check<UsageError>(factor_x > 0 && factor_y > 0 && out.channels == in.channels &&
                        out.width == (in.width + factor_x - 1) / factor_x &&
                        out.height == (in.height + factor_y - 1) / factor_y,
                    "box_reduce: the output must be the input divided by the factors, rounded up; got ",
                    in.height, " x ", in.width, " by ", factor_y, " x ", factor_x, " to ", out.height, " x ",
                    out.width);
  const int channels = in.channels;
  for (int y = 0; y < out.height; ++y) {
    const int y0 = y * factor_y, y1 = std::min(y0 + factor_y, in.height);
    for (int x = 0; x < out.width; ++x) {
      const int x0 = x * factor_x, x1 = std::min(x0 + factor_x, in.width);
      const uint32_t pixels = uint32_t(y1 - y0) * uint32_t(x1 - x0);
      // The reference divides in float and multiplies by the truncated quotient.
      const uint32_t reciprocal = static_cast<uint32_t>(4294967296.0f / static_cast<float>(256u * pixels));
      for (int c = 0; c < channels; ++c) {
        uint32_t sum = pixels / 2;
        for (int yy = y0; yy < y1; ++yy) {
          const uint8_t* row = in.row(yy) + c;
          for (int xx = x0; xx < x1; ++xx) sum += row[ptrdiff_t{xx} * channels];
        }
        out.row(y)[x * channels + c] = static_cast<uint8_t>((sum * reciprocal) >> 24);
      }
    }
  }
}

}  // namespace dino

#endif  // HWY_ONCE
