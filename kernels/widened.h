#pragma once

#include <algorithm>
#include <array>
#include <concepts>

#include "kernels/op.h"
#include "kernels/rows.h"

/// How ops run on the CPU with values in bf16: by code of their own (`kOwnBf16`), or here, on copies in f32
/// whose results are rounded once.
namespace dino {

/// Whether the CPU's kernels of O take bf16 themselves.
template <class O>
constexpr bool own_bf16() {
  if constexpr (requires { O::kOwnBf16; }) return O::kOwnBf16;
  return false;
}

namespace detail {

inline bool is_bf16(const View& view) { return view.dtype == Dtype::bf16; }

/// Dense f32 copies in the stream's memory, one after the other.
class WideCopies {
 public:
  WideCopies(CpuStream& stream, int64_t elements) : stream_(stream) {
    next_ = reinterpret_cast<float*>(stream.wide_scratch(static_cast<size_t>(elements) * sizeof(float)));
  }

  /// Elements that a copy of `view` takes up.
  static int64_t elements(const View& view) { return is_bf16(view) ? (view.count() + 15) / 16 * 16 : 0; }

  /// A view of memory for a copy of a view in bf16; any other view itself, and a view without data without
  /// data.
  View like(const View& view) {
    if (!is_bf16(view)) return view;
    if (!view.defined()) return {nullptr, Dtype::f32, view.shape};
    const View copy{next_, Dtype::f32, view.shape};
    next_ += elements(view);
    return copy;
  }
  View of(const View& view) {
    const View copy = like(view);
    if (is_bf16(view) && view.defined())
      for_rows(view, [&](int64_t row) {
        rows::convert(view.row<BFloat16>(row), copy.row<float>(row), view.cols());
      });
    return copy;
  }

  /// to = copy, or to + copy, rounded once.
  void round(const View& copy, const View& to, bool add) {
    if (!is_bf16(to) || !to.defined()) return;
    for_rows(to, [&](int64_t row) {
      const float* from = copy.row<float>(row);
      BFloat16* target = to.row<BFloat16>(row);
      if (!add) return rows::convert(from, target, to.cols());
      for (int64_t i = 0; i < to.cols(); ++i) target[i] = BFloat16(static_cast<float>(target[i]) + from[i]);
    });
  }

 private:
  template <class F>
  void for_rows(const View& view, const F& f) {
    stream_.pool().for_ranges(view.rows(), std::max<int64_t>(1, 16384 / std::max<int64_t>(1, view.cols())),
                              [&](int64_t begin, int64_t end) {
                                for (int64_t row = begin; row < end; ++row) f(row);
                              });
  }

  CpuStream& stream_;
  float* next_;
};

inline int64_t wide_elements(std::span<const View> views) {
  int64_t sum = 0;
  for (const View& view : views) sum += WideCopies::elements(view);
  return sum;
}

template <class O>
void widened_forward(const O& op, CpuStream& stream, std::span<const View> in, std::span<const View> out) {
  WideCopies copies(stream, wide_elements(in) + wide_elements(out));
  std::array<View, O::kInputs.size()> wide_in;
  std::array<View, O::kOutputs.size()> wide_out;
  for (size_t i = 0; i < in.size(); ++i) wide_in[i] = copies.of(in[i]);
  for (size_t i = 0; i < out.size(); ++i) wide_out[i] = copies.like(out[i]);
  op.forward(stream, wide_in, wide_out);
  for (size_t i = 0; i < out.size(); ++i) copies.round(wide_out[i], out[i], false);
}

template <class O>
void widened_backward(const O& op, CpuStream& stream, std::span<const View> in, std::span<const View> out,
                      std::span<const View> dout, std::span<const Grad> din) {
  int64_t elements = wide_elements(in) + wide_elements(out) + wide_elements(dout);
  for (const Grad& grad : din) elements += WideCopies::elements(grad.view);
  WideCopies copies(stream, elements);
  std::array<View, O::kInputs.size()> wide_in;
  std::array<View, O::kOutputs.size()> wide_out, wide_dout;
  std::array<Grad, O::kInputs.size()> wide_din;
  for (size_t i = 0; i < in.size(); ++i) {
    wide_in[i] = copies.of(in[i]);
    wide_din[i] = {copies.like(din[i].view),
                   is_bf16(din[i].view) && din[i].wanted() ? GradMode::write : din[i].mode};
  }
  for (size_t i = 0; i < out.size(); ++i) {
    wide_out[i] = copies.of(out[i]);
    wide_dout[i] = copies.of(dout[i]);
  }
  op.backward(stream, wide_in, wide_out, wide_dout, wide_din);
  for (size_t i = 0; i < in.size(); ++i)
    if (din[i].wanted()) copies.round(wide_din[i].view, din[i].view, din[i].mode == GradMode::add);
}

inline bool any_bf16(std::span<const View> views) {
  for (const View& view : views)
    if (is_bf16(view)) return true;
  return false;
}

}  // namespace detail

/// `op.forward`, whatever the dtypes and wherever the stream is.
template <Op O, class Stream>
void forward_on(const O& op, Stream& stream, std::span<const View> in, std::span<const View> out) {
  if constexpr (std::same_as<Stream, CpuStream> && takes_bf16<O>() && !own_bf16<O>())
    if (detail::any_bf16(in) || detail::any_bf16(out)) return detail::widened_forward(op, stream, in, out);
  op.forward(stream, in, out);
}

/// `op.backward`, whatever the dtypes and wherever the stream is.
template <DifferentiableOp O, class Stream>
void backward_on(const O& op, Stream& stream, std::span<const View> in, std::span<const View> out,
                 std::span<const View> dout, std::span<const Grad> din) {
  if constexpr (std::same_as<Stream, CpuStream> && takes_bf16<O>() && !own_bf16<O>()) {
    const bool gradients =
        std::any_of(din.begin(), din.end(), [](const Grad& grad) { return detail::is_bf16(grad.view); });
    if (gradients || detail::any_bf16(in) || detail::any_bf16(out) || detail::any_bf16(dout))
      return detail::widened_backward(op, stream, in, out, dout, din);
  }
  op.backward(stream, in, out, dout, din);
}

}  // namespace dino
