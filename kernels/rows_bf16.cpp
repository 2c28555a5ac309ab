#include <algorithm>

#include "kernels/gelu_avx512.h"
#include "kernels/rows.h"

// The arithmetic of rows with values in bf16: strips that stay in the first cache are widened, computed in
// f32, and rounded.
namespace dino::rows {
namespace {

constexpr int64_t kStrip = 512;

/// Calls body(begin, count) for strips that cover [0, n).
template <class Body>
void for_strips(int64_t n, const Body& body) {
  for (int64_t begin = 0; begin < n; begin += kStrip) body(begin, std::min(kStrip, n - begin));
}

struct Strip {
  alignas(64) float values[kStrip];

  const float* of(const BFloat16* x, int64_t n) {
    convert(x, values, n);
    return values;
  }
};

}  // namespace

void axpy(float a, const float* x, BFloat16* y, int64_t n, bool add) {
  Strip sum;
  for_strips(n, [&](int64_t begin, int64_t count) {
    if (add) sum.of(y + begin, count);
    axpy(a, x + begin, sum.values, count, add);
    convert(sum.values, y + begin, count);
  });
}

void axpy(float a, const BFloat16* x, float* y, int64_t n, bool add) {
  Strip wide;
  for_strips(
      n, [&](int64_t begin, int64_t count) { axpy(a, wide.of(x + begin, count), y + begin, count, add); });
}

void add_scaled(const float* x, float a, const BFloat16* y, float* z, int64_t n) {
  Strip wide;
  for_strips(n, [&](int64_t begin, int64_t count) {
    add_scaled(x + begin, a, wide.of(y + begin, count), z + begin, count);
  });
}

void normalize(const float* x, float mean, float rstd, const float* gamma, const float* beta, BFloat16* y,
               int64_t n) {
  Strip result;
  for_strips(n, [&](int64_t begin, int64_t count) {
    normalize(x + begin, mean, rstd, gamma + begin, beta + begin, result.values, count);
    convert(result.values, y + begin, count);
  });
}

NormSums<float> normalize_backward_sums(const float* x, float mean, float rstd, const float* gamma,
                                        const BFloat16* dy, float* dgamma, float* dbeta, int64_t n) {
  Strip wide;
  NormSums<float> sums{0, 0};
  for_strips(n, [&](int64_t begin, int64_t count) {
    const NormSums<float> part =
        normalize_backward_sums(x + begin, mean, rstd, gamma + begin, wide.of(dy + begin, count),
                                dgamma ? dgamma + begin : nullptr, dbeta ? dbeta + begin : nullptr, count);
    sums.grad += part.grad;
    sums.grad_times_x += part.grad_times_x;
  });
  return sums;
}

void normalize_backward(const float* x, float mean, float rstd, const float* gamma, const BFloat16* dy,
                        float mean_grad, float mean_grad_x, float* dx, int64_t n, bool add) {
  Strip wide;
  for_strips(n, [&](int64_t begin, int64_t count) {
    normalize_backward(x + begin, mean, rstd, gamma + begin, wide.of(dy + begin, count), mean_grad,
                       mean_grad_x, dx + begin, count, add);
  });
}

void gelu(const BFloat16* x, BFloat16* y, int64_t n) {
  if (gelu_avx512::supported()) return gelu_avx512::forward(x, y, n);
  Strip strip;
  for_strips(n, [&](int64_t begin, int64_t count) {
    gelu(strip.of(x + begin, count), strip.values, count);
    convert(strip.values, y + begin, count);
  });
}

void gelu_backward(const BFloat16* x, const BFloat16* dy, BFloat16* dx, int64_t n, bool add) {
  if (gelu_avx512::supported()) return gelu_avx512::backward(x, dy, dx, n, add);
  Strip wide_x, wide_dy, result;
  for_strips(n, [&](int64_t begin, int64_t count) {
    if (add) result.of(dx + begin, count);
    gelu_backward(wide_x.of(x + begin, count), wide_dy.of(dy + begin, count), result.values, count, add);
    convert(result.values, dx + begin, count);
  });
}

void gelu_tanh(const BFloat16* x, BFloat16* y, int64_t n) {
  Strip strip;
  for_strips(n, [&](int64_t begin, int64_t count) {
    gelu_tanh(strip.of(x + begin, count), strip.values, count);
    convert(strip.values, y + begin, count);
  });
}

void gelu_tanh_backward(const BFloat16* x, const BFloat16* dy, BFloat16* dx, int64_t n, bool add) {
  Strip wide_x, wide_dy, result;
  for_strips(n, [&](int64_t begin, int64_t count) {
    if (add) result.of(dx + begin, count);
    gelu_tanh_backward(wide_x.of(x + begin, count), wide_dy.of(dy + begin, count), result.values, count, add);
    convert(result.values, dx + begin, count);
  });
}

}  // namespace dino::rows
