#include "kernels/linear.h"

#include <algorithm>

#include "kernels/gemm.h"
#include "kernels/pieces.h"

namespace dino {
namespace {

template <class T>
Matrix<const T> read(const View& x, bool transposed = false) {
  return {x.as<T>(), x.row_stride, transposed};
}

template <class T>
Matrix<T> target(const View& x) {
  return {x.as<T>(), x.row_stride};
}

template <class T>
void forward_all(CpuStream& stream, std::span<const View> in, const View& y) {
  const View &x = in[Linear::x], &weight = in[Linear::weight], &bias = in[Linear::bias];
  const int64_t rows = x.rows(), out = y.cols();
  if (bias.defined())
    stream.pool().for_ranges(rows, rows_per_piece(out), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) std::copy_n(bias.as<T>(), out, y.row<T>(row));
    });
  gemm<T>(stream, rows, out, x.cols(), T{1}, read<T>(x), read<T>(weight, true), bias.defined() ? T{1} : T{0}, target<T>(y));
}

template <class T>
void backward_all(CpuStream& stream, std::span<const View> in, const View& dy, std::span<const Grad> din) {
  const View &x = in[Linear::x], &weight = in[Linear::weight];
  const int64_t rows = dy.rows(), out = dy.cols(), inner = weight.cols();
  const auto beta = [](const Grad& grad) { return grad.mode == GradMode::add ? T{1} : T{0}; };
  if (const Grad& dx = din[Linear::x]; dx.wanted())
    gemm<T>(stream, rows, inner, out, T{1}, read<T>(dy), read<T>(weight), beta(dx), target<T>(dx.view));
  if (const Grad& dw = din[Linear::weight]; dw.wanted())
    gemm<T>(stream, out, inner, rows, T{1}, read<T>(dy, true), read<T>(x), beta(dw), target<T>(dw.view));
  if (const Grad& db = din[Linear::bias]; db.wanted()) column_sums<T>(stream, dy, db.view.as<T>(), db.mode);
}

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
  with_float(out[y].dtype, [&](auto zero) { forward_all<decltype(zero)>(stream, in, out[y]); });
}

void Linear::backward(CpuStream& stream, std::span<const View> in, std::span<const View>, std::span<const View> dout,
                      std::span<const Grad> din) const {
  with_float(dout[y].dtype, [&](auto zero) { backward_all<decltype(zero)>(stream, in, dout[y], din); });
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
