#include "kernels/channels.h"

#include <cmath>

// Highway compiles everything between BEFORE_NAMESPACE and AFTER_NAMESPACE once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/channels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/row_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dino::channels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using row_vectors::HWY_NAMESPACE::load_first;
using row_vectors::HWY_NAMESPACE::store_first;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

/// Calls body(c, load, store) for the first channel of every vector of a row; the tail uses masked memory.
template <class Body>
HWY_INLINE void for_channels(int64_t channels, const Body& body) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = 0;
  for (; c + lanes <= channels; c += lanes)
    body(
        c, [&](const float* p) HWY_ATTR { return hn::LoadU(d, p); },
        [&](V v, float* p) HWY_ATTR { hn::StoreU(v, d, p); });
  if (c < channels) {
    const auto mask = hn::FirstN(d, static_cast<size_t>(channels - c));
    body(
        c, [&](const float* p) HWY_ATTR { return load_first(mask, d, p); },
        [&](V v, float* p) HWY_ATTR { store_first(v, mask, d, p); });
  }
}

void AddMoments(const float* x, const float* origin, int64_t rows, int64_t channels, float* sum,
                float* square) {
  // Four rows at a time, because each trip of a sum through memory costs as much as several additions.
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4)
    for_channels(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
      const float* p = x + row * channels + c;
      const V o = load(origin + c);
      const V a = hn::Sub(load(p), o), b = hn::Sub(load(p + channels), o);
      const V e = hn::Sub(load(p + 2 * channels), o), f = hn::Sub(load(p + 3 * channels), o);
      store(hn::Add(load(sum + c), hn::Add(hn::Add(a, b), hn::Add(e, f))), sum + c);
      const V squares = hn::Add(hn::MulAdd(a, a, hn::Mul(b, b)), hn::MulAdd(e, e, hn::Mul(f, f)));
      store(hn::Add(load(square + c), squares), square + c);
    });
  for (; row < rows; ++row)
    for_channels(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
      const V a = hn::Sub(load(x + row * channels + c), load(origin + c));
      store(hn::Add(load(sum + c), a), sum + c);
      store(hn::MulAdd(a, a, load(square + c)), square + c);
    });
}

void ScaleShift(const float* x, const float* mean, const float* scale, const float* shift,
                const float* residual, int64_t rows, int64_t channels, float* y) {
  for (int64_t row = 0; row < rows; ++row)
    for_channels(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
      const int64_t i = row * channels + c;
      const V v = hn::MulAdd(hn::Sub(load(x + i), load(mean + c)), load(scale + c), load(shift + c));
      store(residual ? hn::Add(v, load(residual + i)) : v, y + i);
    });
}

void AddGradSums(const float* x, const float* mean, const float* g, int64_t rows, int64_t channels,
                 float* sum, float* sum_x) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4)
    for_channels(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
      const float *p = x + row * channels + c, *q = g + row * channels + c;
      const V m = load(mean + c), ga = load(q), gb = load(q + channels), ge = load(q + 2 * channels),
              gf = load(q + 3 * channels);
      store(hn::Add(load(sum + c), hn::Add(hn::Add(ga, gb), hn::Add(ge, gf))), sum + c);
      const V ab = hn::MulAdd(ga, hn::Sub(load(p), m), hn::Mul(gb, hn::Sub(load(p + channels), m)));
      const V ef =
          hn::MulAdd(ge, hn::Sub(load(p + 2 * channels), m), hn::Mul(gf, hn::Sub(load(p + 3 * channels), m)));
      store(hn::Add(load(sum_x + c), hn::Add(ab, ef)), sum_x + c);
    });
  for (; row < rows; ++row)
    for_channels(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
      const int64_t i = row * channels + c;
      const V grad = load(g + i);
      store(hn::Add(load(sum + c), grad), sum + c);
      store(hn::MulAdd(grad, hn::Sub(load(x + i), load(mean + c)), load(sum_x + c)), sum_x + c);
    });
}

void CenteredGrad(const float* x, const float* mean, const float* g, const float* scale,
                  const float* constant, const float* slope, int64_t rows, int64_t channels, float* dx,
                  bool add) {
  for (int64_t row = 0; row < rows; ++row)
    for_channels(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
      const int64_t i = row * channels + c;
      const V centered = hn::Sub(load(x + i), load(mean + c));
      const V v = hn::NegMulAdd(centered, load(slope + c),
                                hn::MulSub(load(g + i), load(scale + c), load(constant + c)));
      store(add ? hn::Add(v, load(dx + i)) : v, dx + i);
    });
}

void KeepMax(const float* x, int32_t position, int64_t channels, float* best, int32_t* index) {
  const D d;
  const hn::RebindToSigned<D> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = 0;
  for (; c + lanes <= channels; c += lanes) {
    const V v = hn::LoadU(d, x + c), old = hn::LoadU(d, best + c);
    const auto better = hn::Or(hn::Gt(v, old), hn::IsNaN(v));
    hn::StoreU(hn::IfThenElse(better, v, old), d, best + c);
    hn::StoreU(hn::IfThenElse(hn::RebindMask(di, better), hn::Set(di, position), hn::LoadU(di, index + c)),
               di, index + c);
  }
  for (; c < channels; ++c)
    if (x[c] > best[c] || std::isnan(x[c])) best[c] = x[c], index[c] = position;
}

}  // namespace dino::channels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dino::channels {

HWY_EXPORT(AddMoments);
HWY_EXPORT(ScaleShift);
HWY_EXPORT(AddGradSums);
HWY_EXPORT(CenteredGrad);
HWY_EXPORT(KeepMax);

void add_moments(const float* x, const float* origin, int64_t rows, int64_t channels, float* sum,
                 float* square) {
  HWY_DYNAMIC_DISPATCH(AddMoments)(x, origin, rows, channels, sum, square);
}
void scale_shift(const float* x, const float* mean, const float* scale, const float* shift,
                 const float* residual, int64_t rows, int64_t channels, float* y) {
  HWY_DYNAMIC_DISPATCH(ScaleShift)(x, mean, scale, shift, residual, rows, channels, y);
}
void add_grad_sums(const float* x, const float* mean, const float* g, int64_t rows, int64_t channels,
                   float* sum, float* sum_x) {
  HWY_DYNAMIC_DISPATCH(AddGradSums)(x, mean, g, rows, channels, sum, sum_x);
}
void centered_grad(const float* x, const float* mean, const float* g, const float* scale,
                   const float* constant, const float* slope, int64_t rows, int64_t channels, float* dx,
                   bool add) {
  HWY_DYNAMIC_DISPATCH(CenteredGrad)(x, mean, g, scale, constant, slope, rows, channels, dx, add);
}
void keep_max(const float* x, int32_t position, int64_t channels, float* best, int32_t* index) {
  HWY_DYNAMIC_DISPATCH(KeepMax)(x, position, channels, best, index);
}

// The definitions: plain loops, in double.

void add_moments(const double* x, const double* origin, int64_t rows, int64_t channels, double* sum,
                 double* square) {
  for (int64_t i = 0; i < rows * channels; ++i) {
    const int64_t c = i % channels;
    sum[c] += x[i] - origin[c];
    square[c] += (x[i] - origin[c]) * (x[i] - origin[c]);
  }
}

void scale_shift(const double* x, const double* mean, const double* scale, const double* shift,
                 const double* residual, int64_t rows, int64_t channels, double* y) {
  for (int64_t i = 0; i < rows * channels; ++i) {
    const int64_t c = i % channels;
    y[i] = (x[i] - mean[c]) * scale[c] + shift[c] + (residual ? residual[i] : 0);
  }
}

void add_grad_sums(const double* x, const double* mean, const double* g, int64_t rows, int64_t channels,
                   double* sum, double* sum_x) {
  for (int64_t i = 0; i < rows * channels; ++i) {
    const int64_t c = i % channels;
    sum[c] += g[i];
    sum_x[c] += g[i] * (x[i] - mean[c]);
  }
}

void centered_grad(const double* x, const double* mean, const double* g, const double* scale,
                   const double* constant, const double* slope, int64_t rows, int64_t channels, double* dx,
                   bool add) {
  for (int64_t i = 0; i < rows * channels; ++i) {
    const int64_t c = i % channels;
    dx[i] = g[i] * scale[c] - constant[c] - (x[i] - mean[c]) * slope[c] + (add ? dx[i] : 0);
  }
}

void keep_max(const double* x, int32_t position, int64_t channels, double* best, int32_t* index) {
  for (int64_t c = 0; c < channels; ++c)
    if (x[c] > best[c] || std::isnan(x[c])) best[c] = x[c], index[c] = position;
}

}  // namespace dino::channels
#endif  // HWY_ONCE
