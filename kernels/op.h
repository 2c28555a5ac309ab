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

/// Throws unless all present inputs have the dtype of the first, which must be f32 or f64.
template <class O>
void require_one_float_dtype(std::span<const Spec> in) {
  require<O>(in[0].dtype == Dtype::f32 || in[0].dtype == Dtype::f64, "inputs must be f32 or f64", in);
  for (const Spec& spec : in)
    require<O>(!spec.defined() || spec.dtype == in[0].dtype, "all inputs must have one dtype", in);
}

/// Stores or adds, as the mode says.
template <class T>
void accumulate(T& target, T value, GradMode mode) {
  target = mode == GradMode::add ? target + value : value;
}

}  // namespace dino
