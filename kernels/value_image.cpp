#include "kernels/value_image.h"

#include <algorithm>

#include "kernels/blur.h"

namespace dino {
namespace {

/// Real numbers in place of fixed-point weights.
std::vector<float> real_weights(const ResampleWeights& weights) {
  std::vector<float> real(weights.weight.size());
  constexpr float kOne = 1 << ResampleWeights::kFractionBits;
  std::transform(weights.weight.begin(), weights.weight.end(), real.begin(), [](int32_t w) { return static_cast<float>(w) / kOne; });
  return real;
}

void resample_columns(ValueView in, const ResampleWeights& weights, MutableValueView out) {
  const std::vector<float> real = real_weights(weights);
  const int channels = in.channels;
  for (int y = 0; y < out.height; ++y) {
    float* to = out.row(y);
    std::fill_n(to, out.row_samples(), 0.0f);
    for (int x = 0; x < out.width; ++x, to += channels) {
      const float* from = in.row(y) + ptrdiff_t{weights.first[x]} * channels;
      const float* weight = &real[size_t(x) * weights.taps];
      for (int j = 0; j < weights.count[x]; ++j, from += channels) {
        for (int c = 0; c < channels; ++c) to[c] += weight[j] * from[c];
      }
    }
  }
}

void resample_rows(ValueView in, int first_row, const ResampleWeights& weights, MutableValueView out) {
  const std::vector<float> real = real_weights(weights);
  const size_t samples = out.row_samples();
  for (int y = 0; y < out.height; ++y) {
    float* to = out.row(y);
    std::fill_n(to, samples, 0.0f);
    for (int j = 0; j < weights.count[y]; ++j) {
      const float* from = in.row(weights.first[y] + j - first_row);
      const float weight = real[size_t(y) * weights.taps + size_t(j)];
      for (size_t i = 0; i < samples; ++i) to[i] += weight * from[i];
    }
  }
}

/// One pass over `count` values that lie `step` apart in `line`, each of `unit` neighbours; `line` has reach · step values of margin.
void filter_line(const float* in, ptrdiff_t step, size_t values, int radius, float full, float edge, float* out) {
  const ptrdiff_t outer = (radius + 1) * step;
  for (size_t i = 0; i < values; ++i) {
    float inner = 0;
    for (ptrdiff_t d = -outer + step; d < outer; d += step) inner += in[static_cast<ptrdiff_t>(i) + d];
    out[i] = full * inner + edge * (in[static_cast<ptrdiff_t>(i) - outer] + in[static_cast<ptrdiff_t>(i) + outer]);
  }
}

/// Three passes over `lines` of `values` values each, in which a neighbour lies `unit` values further on.
void filter_thrice(float* values_begin, size_t values, size_t unit, BoxFilter filter, std::vector<float>& memory) {
  constexpr float kOne = 1 << 24;
  const float full = static_cast<float>(filter.full) / kOne, edge = static_cast<float>(filter.edge) / kOne;
  const size_t pad = static_cast<size_t>(filter.radius + 1) * unit;
  memory.resize(values + 2 * pad);
  float* const line = memory.data() + pad;
  for (int pass = 0; pass < 3; ++pass) {
    std::copy_n(values_begin, values, line);
    for (size_t i = 0; i < pad; i += unit) {
      std::copy_n(values_begin, unit, line - pad + i);
      std::copy_n(values_begin + values - unit, unit, line + values + i);
    }
    filter_line(line, static_cast<ptrdiff_t>(unit), values, filter.radius, full, edge, values_begin);
  }
}

}  // namespace

void resize(ValueView in, ResizeBox box, MutableValueView out, Filter filter, ValueScratch& scratch) {
  check<UsageError>(in.channels == out.channels, "resize: input and output must have the same channels; got ", in.channels, " and ", out.channels);
  const ResampleWeights vertical = resample_weights(in.height, box.top, box.bottom, out.height, filter);
  const int top = vertical.first.front(), bottom = vertical.first.back() + vertical.count.back();
  scratch.intermediate.resize(size_t(bottom - top) * out.row_samples());
  const MutableValueView intermediate(scratch.intermediate.data(), bottom - top, out.width, out.channels);
  resample_columns(in.crop(top, 0, bottom - top, in.width), resample_weights(in.width, box.left, box.right, out.width, filter), intermediate);
  resample_rows(intermediate, top, vertical, out);
}

void gaussian_blur(MutableValueView image, float sigma, ValueScratch& scratch) {
  const BoxFilter filter = gaussian_box_filter(sigma);
  if (filter.edge == 0 && filter.radius == 0) return;
  const size_t samples = image.row_samples();
  for (int y = 0; y < image.height; ++y) filter_thrice(image.row(y), samples, size_t(image.channels), filter, scratch.line);
  // A dense image is one long line in which the pixel below is a row further on.
  scratch.intermediate.resize(samples * size_t(image.height));
  for (int y = 0; y < image.height; ++y) std::copy_n(image.row(y), samples, &scratch.intermediate[size_t(y) * samples]);
  filter_thrice(scratch.intermediate.data(), scratch.intermediate.size(), samples, filter, scratch.line);
  for (int y = 0; y < image.height; ++y) std::copy_n(&scratch.intermediate[size_t(y) * samples], samples, image.row(y));
}

void flip_horizontally(MutableValueView image) {
  for (int y = 0; y < image.height; ++y) {
    float* left = image.row(y);
    float* right = left + ptrdiff_t{image.width - 1} * image.channels;
    for (; left < right; left += image.channels, right -= image.channels) std::swap_ranges(left, left + image.channels, right);
  }
}

void normalize(ValueView image, std::span<const float> mean, std::span<const float> deviation, float scale, float shift, float* out) {
  const auto channels = static_cast<size_t>(image.channels);
  check<UsageError>(mean.size() == channels && deviation.size() == channels, "normalize: one mean and one deviation per channel; got ",
                    mean.size(), " and ", deviation.size(), " for ", channels, " channels");
  for (int y = 0; y < image.height; ++y) {
    const float* in = image.row(y);
    for (int x = 0; x < image.width; ++x) {
      for (size_t c = 0; c < channels; ++c) *out++ = (*in++ - mean[c]) / deviation[c] * scale + shift;
    }
  }
}

}  // namespace dino
