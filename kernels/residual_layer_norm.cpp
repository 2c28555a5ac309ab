#include "kernels/residual_layer_norm.h"

#include "kernels/layer_norm_rows.h"

namespace dino {
namespace {

/// The factor of the sequence that a row belongs to.
template <class T>
T factor_of(const ResidualLayerNorm& op, const View& scale, int64_t row) {
  if (!scale.defined()) return T{1};
  return scale.as<T>()[op.cls_only ? row : op.sequences.sequence_of(row)];
}

/// Calls f(zero of x's type, of branch's, of y's): all f64, or f32, where branch and y may be bf16.
template <class F>
void with_types(Dtype branch, Dtype y, Dtype x, const F& f) {
  with_norm_types(x, y, [&](auto zero, auto y_zero) {
    if constexpr (std::is_same_v<decltype(zero), float>)
      if (branch == Dtype::bf16) return f(zero, BFloat16{}, y_zero);
    f(zero, zero, y_zero);
  });
}

}  // namespace

std::vector<Spec> ResidualLayerNorm::infer(std::span<const Spec> in) const {
  using Self = ResidualLayerNorm;
  require_float_dtypes<Self>(in);
  require<Self>(in[x].shape == in[branch].shape, "x and branch must have the same shape", in);
  if (in[scale].defined()) {
    require<Self>(in[scale].shape.count() == sequences.count(), "scale must have one value per sequence", in);
    require<Self>(in[x].shape.rows() == (cls_only ? sequences.count() : sequences.tokens()),
                  "x must have one row per token (or per sequence, with cls_only)", in);
  }
  const Shape per_column{in[x].shape.cols()};
  require<Self>(in[gamma].shape == per_column && in[beta].shape == per_column,
                "gamma and beta must have the length of x's last axis", in);
  const Spec per_row{in[x].dtype, Shape{in[x].shape.rows()}};
  return {in[x], {output == Dtype::none ? in[x].dtype : output, in[x].shape}, per_row, per_row};
}

void ResidualLayerNorm::forward(CpuStream& stream, std::span<const View> in,
                                std::span<const View> out) const {
  const NormViews n{out[sum], in[gamma], out[mean], out[rstd]};
  with_types(in[branch].dtype, out[y].dtype, out[sum].dtype, [&](auto zero, auto branch_zero, auto y_zero) {
    using T = decltype(zero);
    using B = decltype(branch_zero);
    using Y = decltype(y_zero);
    stream.pool().for_ranges(in[x].rows(), kNormRows, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        rows::add_scaled(in[x].row<T>(row), factor_of<T>(*this, in[scale], row), in[branch].row<B>(row),
                         out[sum].row<T>(row), in[x].cols());
        normalize_row<T>(n, in[beta], eps, row, out[y].row<Y>(row));
      }
    });
  });
}

void ResidualLayerNorm::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                                 std::span<const View> dout, std::span<const Grad> din) const {
  const NormViews n{out[sum], in[gamma], out[mean], out[rstd]};
  const View &dsum = dout[sum], &dy = dout[y];
  const Grad &dx = din[x], &dbranch = din[branch];
  const int64_t dim = n.x.cols();
  const Dtype branch_dtype = dbranch.wanted() ? dbranch.view.dtype : n.x.dtype, y_dtype = dy.defined() ? dy.dtype : n.x.dtype;
  with_types(branch_dtype, y_dtype, n.x.dtype, [&](auto zero, auto branch_zero, auto y_zero) {
    using T = decltype(zero);
    using B = decltype(branch_zero);
    using Y = decltype(y_zero);
    normalize_backward_rows<T, Y>(
        stream, n, dy, din[gamma], din[beta], [&](int64_t row, const auto& sums, int thread) {
          if (!dx.wanted() && !dbranch.wanted()) return;
          T* d = reinterpret_cast<T*>(stream.scratch(thread, static_cast<size_t>(dim) * sizeof(T)));
          if (dsum.defined())
            std::copy_n(dsum.row<T>(row), dim, d);
          else
            std::fill_n(d, dim, T{0});
          if (dy.defined()) normalize_row_backward<T, Y>(n, dy, row, sums, d, true);
          if (dx.wanted()) rows::axpy(T{1}, d, dx.view.row<T>(row), dim, dx.mode == GradMode::add);
          if (dbranch.wanted())
            rows::axpy(factor_of<T>(*this, in[scale], row), d, dbranch.view.row<B>(row), dim,
                       dbranch.mode == GradMode::add);
        });
  });
}

std::vector<Case<ResidualLayerNorm>> ResidualLayerNorm::cases(Tiny) {
  const auto plain = [](int64_t rows, int64_t dim) {
    return Case<ResidualLayerNorm>{{}, {{{rows, dim}}, {{rows, dim}}, {{}}, {{dim}}, {{dim}}}};
  };
  Sequences sequences;
  sequences.append(2, 2, 3);
  sequences.append(3, 1, 2);
  const auto scaled = [&](bool cls_only, int64_t dim) {
    const Shape matrix{cls_only ? sequences.count() : sequences.tokens(), dim};
    return Case<ResidualLayerNorm>{{.sequences = sequences, .cls_only = cls_only},
                                   {{matrix}, {matrix}, {{5}, Fill::keep_mask}, {{dim}}, {{dim}}}};
  };
  return {plain(4, 6),      plain(3, 136),     scaled(false, 6), scaled(true, 6),
          scaled(false, 8), scaled(true, 264), plain(1100, 4)};
}

std::vector<Case<ResidualLayerNorm>> ResidualLayerNorm::cases(Real) {
  Sequences sequences;
  sequences.append(128, 8, 8);
  sequences.append(384, 4, 4);
  return {{{.sequences = sequences},
           {{{14848, 192}}, {{14848, 192}}, {{512}, Fill::keep_mask}, {{192}}, {{192}}}},
          {{}, {{{2464, 384}}, {{2464, 384}}, {{}}, {{384}}, {{384}}}}};
}

}  // namespace dino
