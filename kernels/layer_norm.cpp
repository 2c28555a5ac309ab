#include "kernels/layer_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/rows.h"

namespace dino {
namespace {

/// Rows per piece of work; a fixed number, so that the order of the sums over rows is fixed.
constexpr int64_t kRows = 128;

template <class T>
void forward_rows(const LayerNorm& op, std::span<const View> in, std::span<const View> out, int64_t begin, int64_t end) {
  const int64_t dim = in[LayerNorm::x].cols();
  for (int64_t row = begin; row < end; ++row) {
    const T* x = in[LayerNorm::x].row<T>(row);
    const T mean = rows::sum(x, dim) / static_cast<T>(dim);
    const T variance = rows::squared_deviation(x, mean, dim) / static_cast<T>(dim);
    const T rstd = T{1} / std::sqrt(variance + static_cast<T>(op.eps));
    rows::normalize(x, mean, rstd, in[LayerNorm::gamma].as<T>(), in[LayerNorm::beta].as<T>(),
                    out[LayerNorm::y].row<T>(row), dim);
    out[LayerNorm::mean].as<T>()[row] = mean;
    out[LayerNorm::rstd].as<T>()[row] = rstd;
  }
}

template <class T>
void backward_all(CpuStream& stream, std::span<const View> in, std::span<const View> out, const View& dy,
                  std::span<const Grad> din) {
  const View& x = in[LayerNorm::x];
  const int64_t count = x.rows(), dim = x.cols(), pieces = (count + kRows - 1) / kRows;
  const Grad &dx = din[LayerNorm::x], &dgamma = din[LayerNorm::gamma], &dbeta = din[LayerNorm::beta];
  const bool sums = dgamma.wanted() || dbeta.wanted();
  T* partial = sums ? reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(pieces * 2 * dim) * sizeof(T))) : nullptr;
  stream.pool().parallel(pieces, [&](int64_t piece, int) {
    T* gamma_sum = sums ? partial + piece * 2 * dim : nullptr;
    T* beta_sum = sums ? gamma_sum + dim : nullptr;
    if (sums) std::fill(gamma_sum, gamma_sum + 2 * dim, T{0});
    for (int64_t row = piece * kRows; row < std::min(count, (piece + 1) * kRows); ++row) {
      const T mean = out[LayerNorm::mean].as<T>()[row], rstd = out[LayerNorm::rstd].as<T>()[row];
      const T* gamma = in[LayerNorm::gamma].as<T>();
      const auto s = rows::normalize_backward_sums(x.row<T>(row), mean, rstd, gamma, dy.row<T>(row), gamma_sum, beta_sum, dim);
      if (dx.wanted())
        rows::normalize_backward(x.row<T>(row), mean, rstd, gamma, dy.row<T>(row), s.grad / static_cast<T>(dim),
                                 s.grad_times_x / static_cast<T>(dim), dx.view.row<T>(row), dim, dx.mode == GradMode::add);
    }
  });
  for (int64_t piece = 0; sums && piece < pieces; ++piece) {
    const T* sum = partial + piece * 2 * dim;
    if (dgamma.wanted()) rows::axpy(T{1}, sum, dgamma.view.as<T>(), dim, piece > 0 || dgamma.mode == GradMode::add);
    if (dbeta.wanted()) rows::axpy(T{1}, sum + dim, dbeta.view.as<T>(), dim, piece > 0 || dbeta.mode == GradMode::add);
  }
}

}  // namespace

std::vector<Spec> LayerNorm::infer(std::span<const Spec> in) const {
  require_one_float_dtype<LayerNorm>(in);
  const Shape per_column{in[x].shape.cols()};
  require<LayerNorm>(in[gamma].shape == per_column && in[beta].shape == per_column,
                     "gamma and beta must have the length of x's last axis", in);
  const Spec per_row{in[x].dtype, Shape{in[x].shape.rows()}};
  return {in[x], per_row, per_row};
}

void LayerNorm::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    stream.pool().for_ranges(in[x].rows(), kRows,
                             [&](int64_t begin, int64_t end) { forward_rows<T>(*this, in, out, begin, end); });
  });
}

void LayerNorm::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  with_float(in[x].dtype, [&](auto zero) { backward_all<decltype(zero)>(stream, in, out, dout[y], din); });
}

std::vector<Case<LayerNorm>> LayerNorm::cases(Tiny) {
  const auto of = [](int64_t rows, int64_t dim) {
    return Case<LayerNorm>{{}, {{{rows, dim}}, {{dim}}, {{dim}}}};
  };
  return {of(3, 8), of(1, 24), of(300, 5)};
}

std::vector<Case<LayerNorm>> LayerNorm::cases(Real) {
  const auto of = [](int64_t rows, int64_t dim) {
    return Case<LayerNorm>{{}, {{{rows, dim}}, {{dim}}, {{dim}}}};
  };
  return {of(14848, 192), of(2464, 384)};
}

}  // namespace dino
