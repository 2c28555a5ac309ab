#include "kernels/rows.h"

#include <algorithm>
#include <cmath>

// Highway compiles everything between BEFORE_NAMESPACE and AFTER_NAMESPACE once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rows.cpp"
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

void Widen(const BFloat16* x, float* y, int64_t n) {
  const D d;
  const hn::RebindToUnsigned<D> bits;
  const hn::Rebind<uint16_t, D> half;
  const auto* from = reinterpret_cast<const uint16_t*>(x);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(bits, hn::LoadU(half, from + i)))), d, y + i);
  for (; i < n; ++i) y[i] = static_cast<float>(x[i]);
}

void Narrow(const float* x, BFloat16* y, int64_t n) {
  const D d;
  const hn::RebindToUnsigned<D> bits;
  const hn::RebindToSigned<D> integer;
  const hn::Rebind<uint16_t, D> half;
  auto* to = reinterpret_cast<uint16_t*>(y);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const V v = hn::LoadU(d, x + i);
    const auto all = hn::BitCast(bits, v);
    const auto odd = hn::And(hn::ShiftRight<16>(all), hn::Set(bits, 1));
    const auto rounded = hn::Add(all, hn::Add(hn::Set(bits, 0x7FFF), odd));
    const auto quiet = hn::Or(all, hn::Set(bits, 0x400000));
    const auto result = hn::IfThenElse(hn::RebindMask(bits, hn::IsNaN(v)), quiet, rounded);
    hn::StoreU(hn::DemoteTo(half, hn::BitCast(integer, hn::ShiftRight<16>(result))), half, to + i);
  }
  for (; i < n; ++i) y[i] = BFloat16(x[i]);
}

float Sum(const float* x, int64_t n) {
  V sum = hn::Zero(D());
  for_vectors(n, [&](int64_t, auto load, auto, auto) HWY_ATTR { sum = hn::Add(sum, load(x)); });
  return hn::GetLane(hn::SumOfLanes(D(), sum));
}

float Dot(const float* x, const float* y, int64_t n) {
  V sum = hn::Zero(D());
  for_vectors(n, [&](int64_t, auto load, auto, auto) HWY_ATTR { sum = hn::MulAdd(load(x), load(y), sum); });
  return hn::GetLane(hn::SumOfLanes(D(), sum));
}

float Max(const float* x, int64_t n) {
  V best = hn::Set(D(), x[0]);
  for_vectors(n, [&](int64_t, auto load, auto, auto mask) HWY_ATTR {
    best = hn::IfThenElse(mask, hn::Max(best, load(x)), best);
  });
  return hn::GetLane(hn::MaxOfLanes(D(), best));
}

float SquaredDeviation(const float* x, float mean, int64_t n) {
  const V m = hn::Set(D(), mean);
  V sum = hn::Zero(D());
  for_vectors(n, [&](int64_t, auto load, auto, auto mask) HWY_ATTR {
    const V centered = hn::IfThenElseZero(mask, hn::Sub(load(x), m));
    sum = hn::MulAdd(centered, centered, sum);
  });
  return hn::GetLane(hn::SumOfLanes(D(), sum));
}

void Axpy(float a, const float* x, float* y, int64_t n, bool add) {
  const V va = hn::Set(D(), a);
  if (add)
    for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR { store(hn::MulAdd(va, load(x), load(y)), y); });
  else
    for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR { store(hn::Mul(va, load(x)), y); });
}

void AddScaled(const float* x, float a, const float* y, float* z, int64_t n) {
  const V va = hn::Set(D(), a);
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR { store(hn::MulAdd(va, load(y), load(x)), z); });
}

float ExpSum(const float* x, float scale, float shift, float* y, int64_t n) {
  const V s = hn::Set(D(), scale), b = hn::Set(D(), -shift);
  V sum = hn::Zero(D());
  for_vectors(n, [&](int64_t, auto load, auto store, auto mask) HWY_ATTR {
    const V e = hn::Exp(D(), hn::MulAdd(load(x), s, b));
    store(e, y);
    sum = hn::Add(sum, hn::IfThenElseZero(mask, e));
  });
  return hn::GetLane(hn::SumOfLanes(D(), sum));
}

void Normalize(const float* x, float mean, float rstd, const float* gamma, const float* beta, float* y, int64_t n) {
  const V m = hn::Set(D(), mean), r = hn::Set(D(), rstd);
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    store(hn::MulAdd(hn::Mul(hn::Sub(load(x), m), r), load(gamma), load(beta)), y);
  });
}

NormSums<float> NormalizeBackwardSums(const float* x, float mean, float rstd, const float* gamma, const float* dy,
                                      float* dgamma, float* dbeta, int64_t n) {
  const V m = hn::Set(D(), mean), r = hn::Set(D(), rstd);
  V sum = hn::Zero(D()), sum_x = hn::Zero(D());
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    const V g = load(dy), xhat = hn::Mul(hn::Sub(load(x), m), r), weighted = hn::Mul(g, load(gamma));
    sum = hn::Add(sum, weighted);
    sum_x = hn::MulAdd(weighted, xhat, sum_x);
    if (dgamma) store(hn::MulAdd(g, xhat, load(dgamma)), dgamma);
    if (dbeta) store(hn::Add(g, load(dbeta)), dbeta);
  });
  return {hn::GetLane(hn::SumOfLanes(D(), sum)), hn::GetLane(hn::SumOfLanes(D(), sum_x))};
}

void NormalizeBackward(const float* x, float mean, float rstd, const float* gamma, const float* dy, float mean_grad,
                       float mean_grad_x, float* dx, int64_t n, bool add) {
  const V m = hn::Set(D(), mean), r = hn::Set(D(), rstd), a = hn::Set(D(), mean_grad), b = hn::Set(D(), mean_grad_x);
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    const V xhat = hn::Mul(hn::Sub(load(x), m), r);
    const V centered = hn::NegMulAdd(xhat, b, hn::MulSub(load(dy), load(gamma), a));
    store(add ? hn::MulAdd(r, centered, load(dx)) : hn::Mul(r, centered), dx);
  });
}

/// Φ(x) and e^(−x²/2). With z = |x|/√2 and t = 1/(1 + 0.3 z), erfc(z) = e^(−z²) · Q(t); Q is the polynomial of degree 9
/// through the Chebyshev nodes of [0.26, 1], relative error 5e-8. Being relative, it serves both tails.
HWY_INLINE V gaussian_cdf(V x, V* exp_half_square) {
  const D d;
  const V z = hn::Mul(hn::Min(hn::Abs(x), hn::Set(d, 13.0f)), hn::Set(d, 0.70710678118654752f));
  const V t = hn::Div(hn::Set(d, 1.0f), hn::MulAdd(z, hn::Set(d, 0.3f), hn::Set(d, 1.0f)));
  const V e = hn::Exp(d, hn::Neg(hn::Mul(z, z)));
  V q = hn::Set(d, -0.11617889285146177f);
  q = hn::MulAdd(q, t, hn::Set(d, 0.41116241013166055f));
  q = hn::MulAdd(q, t, hn::Set(d, -0.3319318086431942f));
  q = hn::MulAdd(q, t, hn::Set(d, 0.2986046112079501f));
  q = hn::MulAdd(q, t, hn::Set(d, 0.12117195601247553f));
  q = hn::MulAdd(q, t, hn::Set(d, 0.09345566456451876f));
  q = hn::MulAdd(q, t, hn::Set(d, 0.19270673001745026f));
  q = hn::MulAdd(q, t, hn::Set(d, 0.1605824514274738f));
  q = hn::MulAdd(q, t, hn::Set(d, 0.17050028412888876f));
  q = hn::MulAdd(q, t, hn::Set(d, -7.341269223003975e-05f));
  const V tail = hn::Mul(hn::Mul(q, e), hn::Set(d, 0.5f));
  *exp_half_square = e;
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.0f), tail));
}

void Gelu(const float* x, float* y, int64_t n) {
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    V e;
    const V v = load(x);
    store(hn::Mul(v, gaussian_cdf(v, &e)), y);
  });
}

void GeluBackward(const float* x, const float* dy, float* dx, int64_t n, bool add) {
  const V density = hn::Set(D(), 0.39894228040143268f);
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    V e;
    const V v = load(x), cdf = gaussian_cdf(v, &e);
    const V slope = hn::MulAdd(hn::Mul(v, e), density, cdf);
    store(add ? hn::MulAdd(load(dy), slope, load(dx)) : hn::Mul(load(dy), slope), dx);
  });
}

void Relu(const float* x, float* y, int64_t n) {
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR { const V v = load(x);
    store(hn::IfThenElse(hn::Lt(v, hn::Zero(D())), hn::Zero(D()), v), y); });
}

void ReluBackward(const float* y, const float* dy, float* dx, int64_t n, bool add) {
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    const V g = hn::IfThenElseZero(hn::Gt(load(y), hn::Zero(D())), load(dy));
    store(add ? hn::Add(load(dx), g) : g, dx);
  });
}

void SoftmaxBackward(const float* p, const float* dp, float delta, float scale, float* ds, int64_t n) {
  const V shift = hn::Set(D(), delta), s = hn::Set(D(), scale);
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    store(hn::Mul(hn::Mul(load(p), s), hn::Sub(load(dp), shift)), ds);
  });
}

void AdamW(const AdamWScalars& s, const float* grad, float* weight, float* m, float* v, int64_t n) {
  const auto set = [](double value) HWY_ATTR { return hn::Set(D(), static_cast<float>(value)); };
  const V scale = set(s.grad_scale), beta1 = set(s.beta1), rest1 = set(1 - s.beta1), beta2 = set(s.beta2);
  const V rest2 = set(1 - s.beta2), eps = set(s.eps), keep = set(s.keep), step = set(s.step_size);
  const V bias2 = set(s.inv_sqrt_bias2);
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    const V g = hn::Mul(load(grad), scale);
    const V m1 = hn::MulAdd(beta1, load(m), hn::Mul(rest1, g));
    const V v1 = hn::MulAdd(beta2, load(v), hn::Mul(rest2, hn::Mul(g, g)));
    const V denominator = hn::MulAdd(hn::Sqrt(v1), bias2, eps);
    store(m1, m);
    store(v1, v);
    store(hn::NegMulAdd(step, hn::Div(m1, denominator), hn::Mul(load(weight), keep)), weight);
  });
}

void Ema(double momentum, const float* source, float* target, int64_t n) {
  const V keep = hn::Set(D(), static_cast<float>(momentum)), rest = hn::Set(D(), static_cast<float>(1 - momentum));
  for_vectors(n, [&](int64_t, auto load, auto store, auto) HWY_ATTR {
    store(hn::MulAdd(keep, load(target), hn::Mul(rest, load(source))), target);
  });
}

}  // namespace dino::rows::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dino::rows {

HWY_EXPORT(Widen);
HWY_EXPORT(Narrow);
HWY_EXPORT(Sum);
HWY_EXPORT(Dot);
HWY_EXPORT(Max);
HWY_EXPORT(SquaredDeviation);
HWY_EXPORT(Axpy);
HWY_EXPORT(AddScaled);
HWY_EXPORT(ExpSum);
HWY_EXPORT(Normalize);
HWY_EXPORT(NormalizeBackwardSums);
HWY_EXPORT(NormalizeBackward);
HWY_EXPORT(Gelu);
HWY_EXPORT(GeluBackward);
HWY_EXPORT(Relu);
HWY_EXPORT(ReluBackward);
HWY_EXPORT(SoftmaxBackward);
HWY_EXPORT(AdamW);
HWY_EXPORT(Ema);

void convert(const BFloat16* x, float* y, int64_t n) { HWY_DYNAMIC_DISPATCH(Widen)(x, y, n); }
void convert(const float* x, BFloat16* y, int64_t n) { HWY_DYNAMIC_DISPATCH(Narrow)(x, y, n); }
float sum(const float* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(Sum)(x, n); }
float dot(const float* x, const float* y, int64_t n) { return HWY_DYNAMIC_DISPATCH(Dot)(x, y, n); }
float max(const float* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(Max)(x, n); }
float squared_deviation(const float* x, float mean, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(SquaredDeviation)(x, mean, n);
}
void axpy(float a, const float* x, float* y, int64_t n, bool add) { HWY_DYNAMIC_DISPATCH(Axpy)(a, x, y, n, add); }
void add_scaled(const float* x, float a, const float* y, float* z, int64_t n) {
  HWY_DYNAMIC_DISPATCH(AddScaled)(x, a, y, z, n);
}
float exp_sum(const float* x, float scale, float shift, float* y, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(ExpSum)(x, scale, shift, y, n);
}
void normalize(const float* x, float mean, float rstd, const float* gamma, const float* beta, float* y, int64_t n) {
  HWY_DYNAMIC_DISPATCH(Normalize)(x, mean, rstd, gamma, beta, y, n);
}
NormSums<float> normalize_backward_sums(const float* x, float mean, float rstd, const float* gamma, const float* dy,
                                        float* dgamma, float* dbeta, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(NormalizeBackwardSums)(x, mean, rstd, gamma, dy, dgamma, dbeta, n);
}
void normalize_backward(const float* x, float mean, float rstd, const float* gamma, const float* dy, float mean_grad,
                        float mean_grad_x, float* dx, int64_t n, bool add) {
  HWY_DYNAMIC_DISPATCH(NormalizeBackward)(x, mean, rstd, gamma, dy, mean_grad, mean_grad_x, dx, n, add);
}
void gelu(const float* x, float* y, int64_t n) { HWY_DYNAMIC_DISPATCH(Gelu)(x, y, n); }
void gelu_backward(const float* x, const float* dy, float* dx, int64_t n, bool add) {
  HWY_DYNAMIC_DISPATCH(GeluBackward)(x, dy, dx, n, add);
}
void relu(const float* x, float* y, int64_t n) { HWY_DYNAMIC_DISPATCH(Relu)(x, y, n); }
void relu_backward(const float* y, const float* dy, float* dx, int64_t n, bool add) {
  HWY_DYNAMIC_DISPATCH(ReluBackward)(y, dy, dx, n, add);
}
void softmax_backward(const float* p, const float* dp, float delta, float scale, float* ds, int64_t n) {
  HWY_DYNAMIC_DISPATCH(SoftmaxBackward)(p, dp, delta, scale, ds, n);
}
void adamw(const AdamWScalars& s, const float* grad, float* weight, float* m, float* v, int64_t n) {
  HWY_DYNAMIC_DISPATCH(AdamW)(s, grad, weight, m, v, n);
}
void ema(double momentum, const float* source, float* target, int64_t n) {
  HWY_DYNAMIC_DISPATCH(Ema)(momentum, source, target, n);
}

// The definitions: one plain loop each, in double.

double sum(const double* x, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

double dot(const double* x, const double* y, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i] * y[i];
  return total;
}

double max(const double* x, int64_t n) {
  double best = x[0];
  for (int64_t i = 1; i < n; ++i) best = x[i] > best || std::isnan(x[i]) ? x[i] : best;
  return best;
}

double squared_deviation(const double* x, double mean, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += (x[i] - mean) * (x[i] - mean);
  return total;
}

void axpy(double a, const double* x, double* y, int64_t n, bool add) {
  for (int64_t i = 0; i < n; ++i) y[i] = a * x[i] + (add ? y[i] : 0);
}

void add_scaled(const double* x, double a, const double* y, double* z, int64_t n) {
  for (int64_t i = 0; i < n; ++i) z[i] = x[i] + a * y[i];
}

double exp_sum(const double* x, double scale, double shift, double* y, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += y[i] = std::exp(x[i] * scale - shift);
  return total;
}

void normalize(const double* x, double mean, double rstd, const double* gamma, const double* beta, double* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * rstd * gamma[i] + beta[i];
}

NormSums<double> normalize_backward_sums(const double* x, double mean, double rstd, const double* gamma,
                                         const double* dy, double* dgamma, double* dbeta, int64_t n) {
  NormSums<double> sums{0, 0};
  for (int64_t i = 0; i < n; ++i) {
    const double xhat = (x[i] - mean) * rstd;
    sums.grad += dy[i] * gamma[i];
    sums.grad_times_x += dy[i] * gamma[i] * xhat;
    if (dgamma) dgamma[i] += dy[i] * xhat;
    if (dbeta) dbeta[i] += dy[i];
  }
  return sums;
}

void normalize_backward(const double* x, double mean, double rstd, const double* gamma, const double* dy,
                        double mean_grad, double mean_grad_x, double* dx, int64_t n, bool add) {
  for (int64_t i = 0; i < n; ++i) {
    const double value = rstd * (dy[i] * gamma[i] - mean_grad - (x[i] - mean) * rstd * mean_grad_x);
    dx[i] = value + (add ? dx[i] : 0);
  }
}

void gelu(const double* x, double* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * 0.5 * std::erfc(-x[i] * M_SQRT1_2);
}

void gelu_backward(const double* x, const double* dy, double* dx, int64_t n, bool add) {
  for (int64_t i = 0; i < n; ++i) {
    const double cdf = 0.5 * std::erfc(-x[i] * M_SQRT1_2);
    const double density = std::exp(-0.5 * x[i] * x[i]) * 0.5 * M_SQRT1_2 * M_2_SQRTPI;
    dx[i] = dy[i] * (cdf + x[i] * density) + (add ? dx[i] : 0);
  }
}

void relu(const double* x, double* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] < 0 ? 0 : x[i];
}

void relu_backward(const double* y, const double* dy, double* dx, int64_t n, bool add) {
  for (int64_t i = 0; i < n; ++i) dx[i] = (y[i] > 0 ? dy[i] : 0) + (add ? dx[i] : 0);
}

void softmax_backward(const double* p, const double* dp, double delta, double scale, double* ds, int64_t n) {
  for (int64_t i = 0; i < n; ++i) ds[i] = p[i] * (dp[i] - delta) * scale;
}

void adamw(const AdamWScalars& s, const double* grad, double* weight, double* m, double* v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double g = grad[i] * s.grad_scale;
    m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
    v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
    weight[i] = weight[i] * s.keep - s.step_size * m[i] / (std::sqrt(v[i]) * s.inv_sqrt_bias2 + s.eps);
  }
}

void ema(double momentum, const double* source, double* target, int64_t n) {
  for (int64_t i = 0; i < n; ++i) target[i] = momentum * target[i] + (1 - momentum) * source[i];
}

}  // namespace dino::rows
#endif  // HWY_ONCE
