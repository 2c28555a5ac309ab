#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "kernels/stream.h"
#include "kernels/view.h"

namespace dino {

/// What backward does with the gradient of one input: nothing, overwrite it, or add to it. The first touch of a
/// gradient in a step writes and later ones add, so no pass is needed that fills gradients with zeros.
enum class GradMode { skip, write, add };

/// The gradient of one input. `view` is absent in mode skip.
struct Grad {
  View view;
  GradMode mode = GradMode::skip;
  bool wanted() const { return mode != GradMode::skip; }
};

/// Bit masks of the inputs and outputs whose values backward reads. Everything else may be gone by then.
struct Keep {
  uint32_t inputs = 0;
  uint32_t outputs = 0;
};

constexpr uint32_t bit(int index) { return 1u << index; }

/// How a test or a bench fills an input.
enum class Fill {
  normal,         ///< independent, mean 0, standard deviation 1
  away_from_zero, ///< magnitude in [0.1, 1.1): for kinks
  positive,       ///< in [0.5, 1.5)
  probabilities,  ///< positive rows that sum to 1
  keep_mask,      ///< 0 or 1.25
  zero_to_one,    ///< uniform
  pixels,         ///< 0 … 255
};

struct CaseInput {
  Shape shape;  ///< rank 0: the optional input is absent
  Fill fill = Fill::normal;
  Dtype dtype = Dtype::none;         ///< none: the floating-point type that the op runs in
  std::vector<int64_t> values = {};  ///< the elements, instead of `fill`; required for i64 and i32
};

/// One situation in which an op is tested or timed.
template <class O>
struct Case {
  O op;
  std::vector<CaseInput> inputs;
};

/// Chooses the small cases, which cover every branch, or the ones of real training steps.
struct Tiny {};
struct Real {};

namespace detail {

template <class O, class Stream>
concept ForwardOn = requires(const O& op, std::span<const View> views, Stream& stream) {
  { op.forward(stream, views, views) } -> std::same_as<void>;
};
template <class O, class Stream>
concept BackwardOn =
    requires(const O& op, std::span<const View> views, std::span<const Grad> grads, Stream& stream) {
      { op.backward(stream, views, views, views, grads) } -> std::same_as<void>;
    };

template <class O, class AllStreams>
inline constexpr bool kForwardOnAll = false;
template <class O, class... Stream>
inline constexpr bool kForwardOnAll<O, std::tuple<Stream...>> = (ForwardOn<O, Stream> && ...);
template <class O, class AllStreams>
inline constexpr bool kBackwardOnAll = false;
template <class O, class... Stream>
inline constexpr bool kBackwardOnAll<O, std::tuple<Stream...>> = (BackwardOn<O, Stream> && ...);

}  // namespace detail

/// An op is one plain struct: its attributes are its members, and
///  - `kName`, `kInputs`, `kOutputs`: names for messages;
///  - `infer(specs)`: the specs of its outputs, or an Error that names the broken rule;
///  - `forward(stream, in, out)` for every stream type of the build: a pure function of borrowed memory;
///  - `cases(Tiny)` and `cases(Real)`.
/// An op may also have `flops(specs)`, for benches, and `kStridedInputs`, if its matrices may have strided rows.
///
/// Ops run in f64 (CPU only), in f32, or with values in bf16 (on the CPU where they say `kOwnBf16`, else by kernels/widened.h). Beside bf16 values, parameters, statistics and
/// sums stay f32: `kWideInputs` masks the inputs that do, and `kWideGradients` those whose gradients do although they
/// are given as bf16 copies. An op whose inputs are wide but whose result may be bf16 has a member `Dtype output`, where
/// none means the dtype of its first input.
template <class O>
concept Op = requires(const O& op, std::span<const Spec> specs) {
  { O::kName } -> std::convertible_to<std::string_view>;
  { O::kInputs.size() } -> std::convertible_to<size_t>;
  { O::kOutputs.size() } -> std::convertible_to<size_t>;
  { op.infer(specs) } -> std::same_as<std::vector<Spec>>;
  { O::cases(Tiny{}) } -> std::same_as<std::vector<Case<O>>>;
  { O::cases(Real{}) } -> std::same_as<std::vector<Case<O>>>;
} && detail::kForwardOnAll<O, Streams>;

/// An op with a gradient: also
///  - `kDifferentiable`: mask of the inputs that have one;
///  - `keep()`: which values backward reads;
///  - `backward(stream, in, out, dout, din)` for every stream type of the build: absent views in `dout` are zero; values
///    that are not kept have a shape in `in`/`out` but no data.
template <class O>
concept DifferentiableOp = Op<O> && requires(const O& op) {
  { O::kDifferentiable } -> std::convertible_to<uint32_t>;
  { op.keep() } -> std::same_as<Keep>;
} && detail::kBackwardOnAll<O, Streams>;

/// Throws an Error "op: rule; got name shape, …" if `holds` is false.
template <class O>
void require(bool holds, std::string_view rule, std::span<const Spec> in) {
  if (holds) return;
  std::string got;
  for (size_t i = 0; i < in.size(); ++i) {
    if (!in[i].defined()) continue;
    got += str(got.empty() ? "" : ", ", O::kInputs[i], " ", name_of(in[i].dtype), in[i].shape);
  }
  throw UsageError(str(O::kName, ": ", rule, "; got ", got));
}

/// Mask of the inputs that never are bf16: they are f32 beside inputs that are.
template <class O>
constexpr uint32_t wide_inputs() {
  if constexpr (requires { O::kWideInputs; }) return O::kWideInputs;
  return 0;
}

/// Mask of the inputs whose gradients never are bf16: those that are not themselves, and parameters.
template <class O>
constexpr uint32_t wide_gradients() {
  if constexpr (requires { O::kWideGradients; }) return O::kWideGradients | wide_inputs<O>();
  return wide_inputs<O>();
}

/// Whether the op computes with bf16 in some way.
template <class O>
constexpr bool takes_bf16() {
  constexpr uint32_t all = (1u << O::kInputs.size()) - 1;
  return (wide_inputs<O>() & all) != all || requires(O op) { op.output; };
}

/// Throws unless the present inputs have one dtype, f64, f32 or bf16, but for wide inputs, which have its wide one.
template <class O>
void require_float_dtypes(std::span<const Spec> in) {
  Dtype dtype = Dtype::none;
  for (size_t i = in.size(); i-- > 0;)
    if (in[i].defined() && (dtype == Dtype::none || !(wide_inputs<O>() >> i & 1))) dtype = in[i].dtype;
  require<O>(dtype == Dtype::f32 || dtype == Dtype::f64 || dtype == Dtype::bf16, "inputs must be f64, f32 or bf16", in);
  for (size_t i = 0; i < in.size(); ++i) {
    if (!in[i].defined()) continue;
    const bool is_wide = wide_inputs<O>() >> i & 1;
    require<O>(in[i].dtype == (is_wide ? wide(dtype) : dtype), "all inputs must have one dtype, but for f32 parameters beside bf16", in);
  }
}

/// Stores or adds, as the mode says.
template <class T>
void accumulate(T& target, T value, GradMode mode) {
  target = mode == GradMode::add ? target + value : value;
}

}  // namespace dino
