#include <cmath>

#include "kernels/rows.h"

// The tanh form of GELU, through the logistic function: (1 + tanh u) / 2 = 1 / (1 + e^(−2u)) keeps its
// relative precision in the tail of negative x, where 1 + tanh u cancels.

// Highway compiles everything between BEFORE_NAMESPACE and AFTER_NAMESPACE once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rows_gelu_tanh.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include "kernels/row_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dino::rows::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using row_vectors::HWY_NAMESPACE::for_vectors;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

HWY_INLINE V set(double value) { return hn::Set(D(), static_cast<float>(value)); }

/// e^(−2|u|) for u = √(2/π) (x + 0.044715 x³). Beyond ±13 it is 0 in f32.
struct Tail {
  V bounded;  ///< x within ±13
  V e;
};

HWY_INLINE Tail tail_of(V x) {
  const V magnitude = hn::Min(hn::Abs(x), set(13));
  const V cubic = hn::MulAdd(hn::Mul(magnitude, magnitude), set(0.044715), set(1));
  return {hn::CopySign(magnitude, x),
          hn::Exp(D(), hn::Mul(hn::Mul(magnitude, cubic), set(-2 * kGeluTanhScale)))};
}

/// 1 / (1 + e^(−2u)).
HWY_INLINE V logistic(V x, V e) {
  const V numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(D())), e, set(1));
  return hn::Div(numerator, hn::Add(e, set(1)));
}

void GeluTanh(const float* x, float* y, int64_t n) {
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    const V v = load(x);
    store(hn::Mul(v, logistic(v, tail_of(v).e)), y);
  });
}

void GeluTanhBackward(const float* x, const float* dy, float* dx, int64_t n, bool add) {
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    const V v = load(x);
    const Tail tail = tail_of(v);
    const V rest = hn::Add(tail.e, set(1));
    const V inner = hn::MulAdd(hn::Mul(tail.bounded, tail.bounded), set(2 * kGeluTanhScale * 3 * 0.044715),
                               set(2 * kGeluTanhScale));
    const V bump = hn::Div(hn::Mul(tail.e, inner), hn::Mul(rest, rest));
    const V slope = hn::MulAdd(v, bump, logistic(v, tail.e));
    const V g = load(dy);
    store(add ? hn::MulAdd(g, slope, load(dx)) : hn::Mul(g, slope), dx);
  });
}

}  // namespace dino::rows::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dino::rows {

HWY_EXPORT(GeluTanh);
HWY_EXPORT(GeluTanhBackward);

void gelu_tanh(const float* x, float* y, int64_t n) { HWY_DYNAMIC_DISPATCH(GeluTanh)(x, y, n); }

void gelu_tanh_backward(const float* x, const float* dy, float* dx, int64_t n, bool add) {
  HWY_DYNAMIC_DISPATCH(GeluTanhBackward)(x, dy, dx, n, add);
}

void gelu_tanh(const double* x, double* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    y[i] = 0.5 * x[i] * (1 + std::tanh(kGeluTanhScale * (x[i] + 0.044715 * x[i] * x[i] * x[i])));
}

void gelu_tanh_backward(const double* x, const double* dy, double* dx, int64_t n, bool add) {
  for (int64_t i = 0; i < n; ++i) {
    const double t = std::tanh(kGeluTanhScale * (x[i] + 0.044715 * x[i] * x[i] * x[i]));
    const double slope = kGeluTanhScale * (1 + 3 * 0.044715 * x[i] * x[i]);
    dx[i] = dy[i] * 0.5 * (1 + t + x[i] * (1 - t * t) * slope) + (add ? dx[i] : 0);
  }
}

}  // namespace dino::rows
#endif  // HWY_ONCE
