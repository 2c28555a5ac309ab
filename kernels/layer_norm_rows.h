#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/op.h"
#include "kernels/rows.h"

/// What layer norm shares on the CPU, whether or not a residual connection comes before it.
namespace dino {

/// Rows per piece of work; a fixed number, so that the order of the sums over rows is fixed.
inline constexpr int64_t kNormRows = 128;

/// Parameters and statistics of a layer norm over `x` [rows, dim].
struct NormViews {
  View x, gamma, mean, rstd;
};

/// Calls f(zero of x's type, zero of y's type): both f64, both f32, or f32 and bf16.
template <class F>
void with_norm_types(Dtype x, Dtype y, const F& f) {
  if (x == Dtype::f32 && y == Dtype::bf16) return f(float{}, BFloat16{});
  with_float(x, [&](auto zero) { f(zero, zero); });
}

/// Normalises row `row` of n.x into `y` and stores its statistics.
template <class T, class Y>
void normalize_row(const NormViews& n, const View& beta, double eps, int64_t row, Y* y) {
  const int64_t dim = n.x.cols();
  const T* x = n.x.row<T>(row);
  const T mean = rows::sum(x, dim) / static_cast<T>(dim);
  const T variance = rows::squared_deviation(x, mean, dim) / static_cast<T>(dim);
  const T rstd = T{1} / std::sqrt(variance + static_cast<T>(eps));
  rows::normalize(x, mean, rstd, n.gamma.as<T>(), beta.as<T>(), y, dim);
  n.mean.as<T>()[row] = mean;
  n.rstd.as<T>()[row] = rstd;
}

/// d = or += the gradient of row `row` of n.x, given the sums over the row.
template <class T, class Y>
void normalize_row_backward(const NormViews& n, const View& dy, int64_t row, const rows::NormSums<T>& sums,
                            T* d, bool add) {
  const int64_t dim = n.x.cols();
  rows::normalize_backward(n.x.row<T>(row), n.mean.as<T>()[row], n.rstd.as<T>()[row], n.gamma.as<T>(),
                           dy.row<Y>(row), sums.grad / static_cast<T>(dim),
                           sums.grad_times_x / static_cast<T>(dim), d, dim, add);
}

/// Calls finish(row, sums over the row, thread) for all rows, and sums up the gradients of gamma and beta. dy
/// may be absent, which is zero.
template <class T, class Y, class Finish>
void normalize_backward_rows(CpuStream& stream, const NormViews& n, const View& dy, const Grad& dgamma,
                             const Grad& dbeta, const Finish& finish) {
  const int64_t count = n.x.rows(), dim = n.x.cols(), pieces = (count + kNormRows - 1) / kNormRows;
  const bool sums = dgamma.wanted() || dbeta.wanted();
  T* partial =
      sums ? reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(pieces * 2 * dim) * sizeof(T)))
           : nullptr;
  stream.pool().parallel(pieces, [&](int64_t piece, int thread) {
    T* gamma_sum = sums ? partial + piece * 2 * dim : nullptr;
    T* beta_sum = sums ? gamma_sum + dim : nullptr;
    if (sums) std::fill(gamma_sum, gamma_sum + 2 * dim, T{0});
    for (int64_t row = piece * kNormRows; row < std::min(count, (piece + 1) * kNormRows); ++row) {
      rows::NormSums<T> of_row{0, 0};
      if (dy.defined())
        of_row = rows::normalize_backward_sums(n.x.row<T>(row), n.mean.as<T>()[row], n.rstd.as<T>()[row],
                                               n.gamma.as<T>(), dy.row<Y>(row), gamma_sum, beta_sum, dim);
      finish(row, of_row, thread);
    }
  });
  for (int64_t piece = 0; sums && piece < pieces; ++piece) {
    const T* sum = partial + piece * 2 * dim;
    if (dgamma.wanted())
      rows::axpy(T{1}, sum, dgamma.view.as<T>(), dim, piece > 0 || dgamma.mode == GradMode::add);
    if (dbeta.wanted())
      rows::axpy(T{1}, sum + dim, dbeta.view.as<T>(), dim, piece > 0 || dbeta.mode == GradMode::add);
  }
}

}  // namespace dino
