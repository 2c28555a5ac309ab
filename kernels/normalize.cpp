#include "kernels/normalize.h"

#include <algorithm>
#include <cmath>

#include "kernels/pieces.h"
#include "kernels/rows.h"

namespace dino {
namespace {

template <class F>
void for_rows(CpuStream& stream, int64_t rows, int64_t cols, F&& f) {
  stream.pool().for_ranges(rows, rows_per_piece(cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

/// to = factor · from, rounded once.
void scale_to_bf16(float factor, const float* from, BFloat16* to, int64_t count) {
  constexpr int64_t kStrip = 512;
  float wide[kStrip];
  for (int64_t begin = 0; begin < count; begin += kStrip) {
    const int64_t length = std::min(kStrip, count - begin);
    rows::axpy(factor, from + begin, wide, length, false);
    rows::convert(wide, to + begin, length);
  }
}

}  // namespace

std::vector<Spec> L2Normalize::infer(std::span<const Spec> in) const {
  require_float_dtypes<L2Normalize>(in);
  return {in[x], {wide(in[x].dtype), Shape{in[x].shape.rows()}}};
}

void L2Normalize::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t dim = in[x].cols();
    for_rows(stream, in[x].rows(), dim, [&](int64_t row) {
      const T* source = in[x].row<T>(row);
      const T length = std::max(std::sqrt(rows::dot(source, source, dim)), static_cast<T>(eps));
      rows::axpy(T{1} / length, source, out[y].row<T>(row), dim, false);
      out[norm].as<T>()[row] = length;
    });
  });
}

void L2Normalize::backward(CpuStream& stream, std::span<const View>, std::span<const View> out,
                           std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& grad = din[x];
  if (!grad.wanted()) return;
  with_float(out[y].dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t dim = out[y].cols();
    for_rows(stream, out[y].rows(), dim, [&](int64_t row) {
      const T *unit = out[y].row<T>(row), *dy = dout[y].row<T>(row);
      const T length = out[norm].as<T>()[row];
      // A row at the floor eps is divided by a constant; its gradient has no projection.
      const T along = length > static_cast<T>(eps) ? rows::dot(unit, dy, dim) : T{0};
      T* dx = grad.view.row<T>(row);
      rows::axpy(T{1} / length, dy, dx, dim, grad.mode == GradMode::add);
      rows::axpy(-along / length, unit, dx, dim, true);
    });
  });
}

std::vector<Case<L2Normalize>> L2Normalize::cases(Tiny) {
  return {{{}, {{{5, 7}}}}, {{.eps = 100}, {{{3, 8}}}}, {{}, {{{11, 8}}}}, {{}, {{{2, 260}}}}, {{}, {{{2, 1028}}}}};
}

std::vector<Case<L2Normalize>> L2Normalize::cases(Real) { return {{{}, {{{512, 256}}}}}; }

std::vector<Spec> WeightNorm::infer(std::span<const Spec> in) const {
  require_float_dtypes<WeightNorm>(in);
  require<WeightNorm>(in[v].shape.rank == 2 && in[g].shape == Shape{in[v].shape[0], 1},
                      "v must be [out, in] and g [out, 1]", in);
  return {{output == Dtype::none ? in[v].dtype : output, in[v].shape}, {in[v].dtype, Shape{in[v].shape[0]}}};
}

void WeightNorm::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[v].dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t dim = in[v].cols();
    for_rows(stream, in[v].rows(), dim, [&](int64_t row) {
      const T* direction = in[v].row<T>(row);
      const T length = std::sqrt(rows::dot(direction, direction, dim));
      const T factor = in[g].as<T>()[row] / length;
      out[norm].as<T>()[row] = length;
      if constexpr (std::is_same_v<T, float>)
        if (out[w].dtype == Dtype::bf16) return scale_to_bf16(factor, direction, out[w].row<BFloat16>(row), dim);
      rows::axpy(factor, direction, out[w].row<T>(row), dim, false);
    });
  });
}

void WeightNorm::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                          std::span<const View> dout, std::span<const Grad> din) const {
  const Grad &dg = din[g], &dv = din[v];
  with_float(in[v].dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t dim = in[v].cols();
    for_rows(stream, in[v].rows(), dim, [&](int64_t row) {
      const T *direction = in[v].row<T>(row), *dw = dout[w].row<T>(row);
      const T length = out[norm].as<T>()[row], along = rows::dot(direction, dw, dim) / length;
      if (dg.wanted()) accumulate(dg.view.as<T>()[row], along, dg.mode);
      if (!dv.wanted()) return;
      const T factor = in[g].as<T>()[row] / length;
      rows::axpy(factor, dw, dv.view.row<T>(row), dim, dv.mode == GradMode::add);
      rows::axpy(-factor * along / length, direction, dv.view.row<T>(row), dim, true);
    });
  });
}

std::vector<Case<WeightNorm>> WeightNorm::cases(Tiny) {
  return {{{}, {{{6, 1}, Fill::positive}, {{6, 5}}}},
          {{}, {{{11, 1}, Fill::positive}, {{11, 8}}}},
          {{}, {{{2, 1}, Fill::positive}, {{2, 260}}}}};
}

std::vector<Case<WeightNorm>> WeightNorm::cases(Real) { return {{{}, {{{65536, 1}, Fill::positive}, {{65536, 256}}}}}; }

}  // namespace dino
