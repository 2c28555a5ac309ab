#include "kernels/linear.h"

#include <algorithm>

#include "kernels/gemm.h"
#include "kernels/linear_products.h"
#include "kernels/pieces.h"
#include "kernels/widened.h"

namespace dino {
namespace {

// The definition, in f64.

Matrix<const double> read(const View& x, bool transposed = false) { return {x.as<double>(), x.row_stride, transposed}; }

Matrix<double> target(const View& x) { return {x.as<double>(), x.row_stride}; }

void forward_f64(CpuStream& stream, std::span<const View> in, const View& y) {
  const View &x = in[Linear::x], &weight = in[Linear::weight], &bias = in[Linear::bias];
  for (int64_t row = 0; bias.defined() && row < y.rows(); ++row) std::copy_n(bias.as<double>(), y.cols(), y.row<double>(row));
  gemm<double>(stream, x.rows(), y.cols(), x.cols(), 1, read(x), read(weight, true), bias.defined() ? 1 : 0, target(y));
}

void backward_f64(CpuStream& stream, std::span<const View> in, const View& dy, std::span<const Grad> din) {
  const View &x = in[Linear::x], &weight = in[Linear::weight];
  const int64_t rows = dy.rows(), out = dy.cols(), inner = weight.cols();
  const auto beta = [](const Grad& grad) { return grad.mode == GradMode::add ? 1.0 : 0.0; };
  if (const Grad& dx = din[Linear::x]; dx.wanted())
    gemm<double>(stream, rows, inner, out, 1, read(dy), read(weight), beta(dx), target(dx.view));
  if (const Grad& dw = din[Linear::weight]; dw.wanted())
    gemm<double>(stream, out, inner, rows, 1, read(dy, true), read(x), beta(dw), target(dw.view));
}

/// A copy in bf16: what multiplies bf16 is bf16 itself.
View rounded(CpuStream& stream, const View& x) {
  const View copy{stream.wide_scratch(static_cast<size_t>(x.count()) * sizeof(BFloat16)), Dtype::bf16, x.shape};
  stream.pool().for_ranges(x.rows(), rows_per_piece(x.cols()), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) rows::convert(x.row<float>(row), copy.row<BFloat16>(row), x.cols());
  });
  return copy;
}

bool slow_bf16(const View& x) { return x.dtype == Dtype::bf16 && !multiplies_bf16(); }

Case<Linear> linear_case(int64_t rows, int64_t in, int64_t out, bool with_bias = true) {
  return {{}, {{{rows, in}}, {{out, in}}, {with_bias ? Shape{out} : Shape{}}}};
}

}  // namespace

std::vector<Spec> Linear::infer(std::span<const Spec> in) const {
  require_float_dtypes<Linear>(in);
  require<Linear>(in[weight].shape.rank == 2 && in[weight].shape[1] == in[x].shape.cols(),
                  "weight must be [out, in] with in = the length of x's last axis", in);
  require<Linear>(!in[bias].defined() || in[bias].shape == Shape{in[weight].shape[0]}, "bias must be [out]", in);
  return {{output == Dtype::none ? in[x].dtype : output, Shape{in[x].shape.rows(), in[weight].shape[0]}}};
}

void Linear::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  if (in[x].dtype == Dtype::f64) return forward_f64(stream, in, out[y]);
  if (slow_bf16(in[x])) return detail::widened_forward(*this, stream, in, out);
  // A bias in bf16 is a copy for GPUs; oneDNN adds it in f32.
  View wide_bias = in[bias];
  std::vector<float> values;
  if (in[bias].defined() && in[bias].dtype == Dtype::bf16) {
    values.resize(static_cast<size_t>(in[bias].count()));
    rows::convert(in[bias].as<BFloat16>(), values.data(), in[bias].count());
    wide_bias = View(values.data(), Dtype::f32, in[bias].shape);
  }
  multiply_rows(stream, in[x], in[weight], true, wide_bias, out[y], false);
}

void Linear::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                      std::span<const Grad> din) const {
  const Grad &dx = din[x], &dw = din[weight], &db = din[bias];
  if (slow_bf16(in[x])) return detail::widened_backward(*this, stream, in, out, dout, din);
  if (in[x].dtype == Dtype::f64) {
    backward_f64(stream, in, dout[y], din);
  } else {
    const View dy = in[x].dtype == dout[y].dtype ? dout[y] : rounded(stream, dout[y]);
    if (dx.wanted()) multiply_rows(stream, dy, in[weight], false, {}, dx.view, dx.mode == GradMode::add);
    if (dw.wanted()) multiply_columns(stream, dy, in[x], dw.view, dw.mode == GradMode::add);
  }
  if (db.wanted()) column_sums(stream, dout[y], db.view, db.mode);
}

size_t Linear::host_scratch(std::span<const Spec> in) const {
  return products_scratch(in[x].shape.rows(), in[weight].shape[1], in[weight].shape[0], in[x].dtype);
}

double Linear::flops(std::span<const Spec> in) const {
  return 2.0 * static_cast<double>(in[x].shape.count()) * static_cast<double>(in[weight].shape[0]);
}

std::vector<Case<Linear>> Linear::cases(Tiny) {
  return {linear_case(3, 5, 4), linear_case(7, 8, 6, false), linear_case(1, 3, 40), linear_case(2100, 4, 3),
          linear_case(24, 16, 8), linear_case(2100, 2, 16)};
}

std::vector<Case<Linear>> Linear::cases(Real) {
  return {linear_case(14848, 192, 576),  linear_case(14848, 192, 768), linear_case(14848, 768, 192),
          linear_case(2464, 384, 1536),  linear_case(40, 384, 2048),   linear_case(512, 2048, 2048),
          linear_case(40, 256, 65536, false)};
}

}  // namespace dino
