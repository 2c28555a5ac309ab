#include "kernels/layer_norm.h"

#include "kernels/layer_norm_rows.h"

namespace dino {

std::vector<Spec> LayerNorm::infer(std::span<const Spec> in) const {
  require_float_dtypes<LayerNorm>(in);
  const Shape per_column{in[x].shape.cols()};
  require<LayerNorm>(in[gamma].shape == per_column && in[beta].shape == per_column,
                     "gamma and beta must have the length of x's last axis", in);
  const Spec per_row{in[x].dtype, Shape{in[x].shape.rows()}};
  return {{output == Dtype::none ? in[x].dtype : output, in[x].shape}, per_row, per_row};
}

void LayerNorm::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  const NormViews n{in[x], in[gamma], out[mean], out[rstd]};
  with_norm_types(in[x].dtype, out[y].dtype, [&](auto zero, auto y_zero) {
    using T = decltype(zero);
    using Y = decltype(y_zero);
    stream.pool().for_ranges(in[x].rows(), kNormRows, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) normalize_row<T>(n, in[beta], eps, row, out[y].row<Y>(row));
    });
  });
}

void LayerNorm::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  const NormViews n{in[x], in[gamma], out[mean], out[rstd]};
  const Grad& dx = din[x];
  with_norm_types(n.x.dtype, dout[y].dtype, [&](auto zero, auto y_zero) {
    using T = decltype(zero);
    using Y = decltype(y_zero);
    normalize_backward_rows<T, Y>(
        stream, n, dout[y], din[gamma], din[beta], [&](int64_t row, const auto& sums, int) {
          if (dx.wanted())
            normalize_row_backward<T, Y>(n, dout[y], row, sums, dx.view.row<T>(row), dx.mode == GradMode::add);
        });
  });
}

std::vector<Case<LayerNorm>> LayerNorm::cases(Tiny) {
  const auto of = [](int64_t rows, int64_t dim) {
    return Case<LayerNorm>{{}, {{{rows, dim}}, {{dim}}, {{dim}}}};
  };
  // On a GPU: rows of 1, 2, 3, 6 and 8 packs per lane, whole and in part, several per warp; no packs; rows
  // too long for registers.
  return {of(3, 8),   of(1, 24),  of(300, 5),  of(1100, 4), of(9, 192),
          of(2, 384), of(2, 644), of(2, 1024), of(2, 1028)};
}

std::vector<Case<LayerNorm>> LayerNorm::cases(Real) {
  const auto of = [](int64_t rows, int64_t dim) {
    return Case<LayerNorm>{{}, {{{rows, dim}}, {{dim}}, {{dim}}}};
  };
  return {of(14848, 192), of(2464, 384)};
}

}  // namespace dino
