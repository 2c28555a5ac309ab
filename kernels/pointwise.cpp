#include "kernels/pointwise.h"

#include "kernels/pieces.h"
#include "kernels/rows.h"

namespace dino {
namespace {

/// Calls f(row) for all rows; an element-wise op has no other structure.
template <class F>
void for_rows(CpuStream& stream, const View& like, F&& f) {
  stream.pool().for_ranges(like.rows(), rows_per_piece(like.cols()), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

}  // namespace

std::vector<Spec> Gelu::infer(std::span<const Spec> in) const {
  require_float_dtypes<Gelu>(in);
  require<Gelu>(is_gelu(form), "its form is gelu or gelu_tanh", in);
  return {in[x]};
}

void Gelu::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_real(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_rows(stream, in[x],
             [&](int64_t row) { rows::gelu(form, in[x].row<T>(row), out[y].row<T>(row), in[x].cols()); });
  });
}

void Gelu::backward(CpuStream& stream, std::span<const View> in, std::span<const View>,
                    std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& dx = din[x];
  if (!dx.wanted()) return;
  with_real(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_rows(stream, in[x], [&](int64_t row) {
      rows::gelu_backward(form, in[x].row<T>(row), dout[y].row<T>(row), dx.view.row<T>(row), in[x].cols(),
                          dx.mode == GradMode::add);
    });
  });
}

std::vector<Case<Gelu>> Gelu::cases(Tiny) {
  constexpr Gelu tanh{.form = Activation::gelu_tanh};
  return {{{}, {{{3, 21}}}}, {{}, {{{2, 3, 4, 5}}}}, {tanh, {{{3, 21}}}}, {tanh, {{{2, 3, 4, 8}}}}};
}

std::vector<Case<Gelu>> Gelu::cases(Real) {
  return {
      {{}, {{{14848, 768}}}}, {{}, {{{2464, 1536}}}}, {{.form = Activation::gelu_tanh}, {{{14848, 768}}}}};
}

std::vector<Spec> Relu::infer(std::span<const Spec> in) const {
  require_float_dtypes<Relu>(in);
  return {in[x]};
}

void Relu::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_rows(stream, in[x],
             [&](int64_t row) { rows::relu(in[x].row<T>(row), out[y].row<T>(row), in[x].cols()); });
  });
}

void Relu::backward(CpuStream& stream, std::span<const View>, std::span<const View> out,
                    std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& dx = din[x];
  if (!dx.wanted()) return;
  with_float(out[y].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_rows(stream, out[y], [&](int64_t row) {
      rows::relu_backward(out[y].row<T>(row), dout[y].row<T>(row), dx.view.row<T>(row), out[y].cols(),
                          dx.mode == GradMode::add);
    });
  });
}

std::vector<Case<Relu>> Relu::cases(Tiny) { return {{{}, {{{3, 21}, Fill::away_from_zero}}}}; }

std::vector<Case<Relu>> Relu::cases(Real) { return {{{}, {{{128, 14, 14, 32}}}}}; }

}  // namespace dino
