#include <catch2/catch.hpp>

#include "engine/ops.h"
#include "tests/op_compare.h"

using namespace dino;
using namespace dino::test;

// Every op of the engine, on every small case of its own: no op needs a line here.
namespace {

/// Calls body(op, inputs) for all small cases and types.
template <class O, class Body>
void for_all_variants(const Body& body) {
  for_variants<O>({Dtype::f64, Dtype::f32},
                  [&](const Variant<O>& variant, const Buffers& in) { body(variant.op, in); });
}

template <class Body>
void for_differentiable_ops(const Body& body) {
  for_each_op<AllOps>([&]<class O>() {
    if constexpr (DifferentiableOp<O>) body.template operator()<O>();
  });
}

bool check_equal_bits(const Buffers& a, const Buffers& b, std::string_view what, const auto& names) {
  bool all = true;
  for (size_t i = 0; i < a.size(); ++i) {
    INFO(what << " " << names[i]);
    CHECK(a[i].equal_bits(b[i]));
    all = all && a[i].equal_bits(b[i]);
  }
  return all;
}

// 1. Gradients

/// Σ dout · out as a function of the inputs.
template <class O>
class Probe {
 public:
  Probe(const O& op, CpuStream& stream, const Buffers& in) : op_(op), stream_(stream), in_(copies(in)) {
    out_ = forward(op_, stream_, in_);
    dout_ = make_output_gradients<O>(out_);
    din_ = backward(op_, stream_, in_, out_, dout_);
  }
  const Buffer& gradient(size_t input) const { return din_[input]; }

  /// Derivative along `direction` in input `input` by the central difference of fourth order: its own error
  /// is of order step⁴, small against rounding, so the step can be small enough to stay clear of kinks.
  double difference(size_t input, const std::vector<double>& direction) {
    constexpr double kStep = 2e-5;
    const Buffer before = in_[input].copy();
    const auto at = [&](double t) {
      for (int64_t i = 0; i < before.count(); ++i)
        in_[input].set(i, before.at(i) + t * direction[static_cast<size_t>(i)]);
      return loss();
    };
    const double near = at(kStep) - at(-kStep), far = at(2 * kStep) - at(-2 * kStep);
    at(0);
    return (8 * near - far) / (12 * kStep);
  }

 private:
  double loss() {
    op_.forward(stream_, views(in_), views(out_));
    long double sum = 0;
    for (size_t o = 0; o < out_.size(); ++o)
      for (int64_t i = 0; i < dout_[o].count(); ++i)
        sum += static_cast<long double>(dout_[o].at(i)) * static_cast<long double>(out_[o].at(i));
    return static_cast<double>(sum);
  }
  const O& op_;
  CpuStream& stream_;
  Buffers in_, out_, dout_, din_;
};

template <class O>
void check_gradient(Probe<O>& probe, const Buffer& x, size_t input) {
  constexpr double kTolerance = 1e-6;
  constexpr int64_t kSamples = 12;
  INFO("gradient of " << O::kInputs[input]);
  Draws draws(200 + input);
  const Buffer& gradient = probe.gradient(input);
  std::vector<double> direction(static_cast<size_t>(x.count()));
  for (double& d : direction) d = draws.normal();
  double analytic = 0;
  for (int64_t i = 0; i < x.count(); ++i) analytic += gradient.at(i) * direction[static_cast<size_t>(i)];
  const double numeric = probe.difference(input, direction);
  INFO("along a direction: " << analytic << ", by differences " << numeric);
  CHECK(std::abs(analytic - numeric) <= kTolerance * std::max(1.0, std::abs(numeric)));
  for (int64_t sample = 0; sample < std::min(kSamples, x.count()); ++sample) {
    const int64_t i = x.count() <= kSamples
                          ? sample
                          : static_cast<int64_t>(draws.uniform() * static_cast<double>(x.count()));
    std::fill(direction.begin(), direction.end(), 0.0);
    direction[static_cast<size_t>(i)] = 1;
    const double slope = probe.difference(input, direction);
    INFO("element " << i << ": " << gradient.at(i) << ", by differences " << slope);
    CHECK(std::abs(gradient.at(i) - slope) <= kTolerance * std::max(1.0, std::abs(slope)));
  }
}

TEST_CASE("every op's gradient equals central differences in f64") {
  auto stream = make_stream(2);
  for_differentiable_ops([&]<class O>() {
    for_cases<O>(Dtype::f64, [&](const Case<O>& c, const Buffers& in, const std::string&) {
      Probe<O> probe(c.op, *stream, in);
      for (size_t i = 0; i < in.size(); ++i)
        if (differentiable<O>(in, i)) check_gradient(probe, in[i], i);
    });
  });
}

// 2. f32 against f64

template <class O>
Results run(const O& op, CpuStream& stream, const Buffers& in, const Buffers* dout = nullptr) {
  Results results;
  results.out = forward(op, stream, in);
  if constexpr (DifferentiableOp<O>) {
    const Buffers own = dout ? Buffers() : make_output_gradients<O>(results.out);
    results.din = backward(op, stream, in, results.out, dout ? *dout : own);
  }
  return results;
}

/// A good f32 kernel errs about as much as an exact one whose inputs were rounded differently, which measures
/// how well the problem is conditioned, plus a rounding of the result. It may err kRoundings times as much,
/// because it rounds in every step and not only at both ends.
constexpr double kRoundings = 16;

void check_f32(const Buffers& f32, const Buffers& f64, const std::vector<const Buffers*>& others,
               const auto& names) {
  for (size_t i = 0; i < f32.size(); ++i) {
    INFO(names[i]);
    if (!f32[i].is_float()) {
      CHECK(f32[i].equal_bits(f64[i]));
      continue;
    }
    double spread = 0;
    for (const Buffers* other : others) spread = std::max(spread, distance((*other)[i], f64[i]));
    const double bound = kRoundings * (spread + epsilon(Dtype::f32) * largest(f64[i]));
    INFO("error " << distance(f32[i], f64[i]) << ", bound " << bound << ", largest " << largest(f64[i]));
    CHECK(distance(f32[i], f64[i]) <= bound);
  }
}

TEST_CASE("f32 agrees with f64 forward and backward") {
  auto stream = make_stream(2);
  for_each_op<AllOps>([&]<class O>() {
    size_t index = 0;
    for (const Case<O>& c : O::cases(Tiny{})) {
      INFO(place<O>(index++, Dtype::f32));
      const Buffers in = make_inputs(c, Dtype::f64);
      const Results f64 = run(c.op, *stream, in), f32 = run(c.op, *stream, make_inputs(c, Dtype::f32));
      std::array<Results, 3> others;
      for (uint32_t draw = 0; draw < others.size(); ++draw) {
        const Buffers dout = rounded_otherwise(make_output_gradients<O>(f64.out), draw + 100, Dtype::f32);
        others[draw] = run(c.op, *stream, rounded_otherwise(in, draw, Dtype::f32), &dout);
      }
      check_f32(f32.out, f64.out, {&others[0].out, &others[1].out, &others[2].out}, O::kOutputs);
      if constexpr (DifferentiableOp<O>)
        check_f32(f32.din, f64.din, {&others[0].din, &others[1].din, &others[2].din}, O::kInputs);
    }
  });
}

TEST_CASE("bf16 agrees with f64 forward and backward") {
  auto stream = make_stream(2);
  for_each_op<AllOps>([&]<class O>() {
    for_variants<O>({}, [&](const Variant<O>& variant, const Buffers& in) {
      const Buffers out = forward(variant.op, *stream, in), dout = make_output_gradients<O>(out);
      const Expected<O> expected(variant, *stream, in, dout);
      check_close(out, expected, &Results::out, nullptr, Dtype::bf16, O::kOutputs);
      if constexpr (DifferentiableOp<O>)
        check_close(backward(variant.op, *stream, in, out, dout), expected, &Results::din, nullptr,
                    Dtype::bf16, O::kInputs);
    });
  });
}

// 3. Gradient modes

template <class O>
void check_add(const O& op, CpuStream& stream, const Buffers& in, const Buffers& out, const Buffers& dout,
               const Buffers& written) {
  Buffers before = make_input_gradients<O>(in);
  for (size_t i = 0; i < before.size(); ++i)
    if (Draws draws(400 + i); before[i].defined()) fill(before[i], Fill::normal, draws);
  const Buffers sum = copies(before);
  backward_on(op, stream, views(in), views(out), views(dout), grads(sum, GradMode::add));
  for (size_t i = 0; i < sum.size(); ++i) {
    if (!sum[i].defined()) continue;
    INFO("mode add, " << O::kInputs[i]);
    Buffer expected = before[i].copy();
    for (int64_t e = 0; e < expected.count(); ++e) expected.set(e, before[i].at(e) + written[i].at(e));
    const double scale = largest(before[i]) + largest(written[i]);
    const Dtype dtype = expected.spec().dtype;
    CHECK(distance(sum[i], expected) <= sum_roundings(dtype) * epsilon(dtype) * scale);
    CHECK(sum[i].guards_intact());
  }
}

/// With one gradient wanted at a time, that one comes out as before and the memory of the others is not
/// touched.
template <class O>
void check_skip(const O& op, CpuStream& stream, const Buffers& in, const Buffers& out, const Buffers& dout,
                const Buffers& written) {
  const Buffers untouched = make_input_gradients<O>(in);
  for (size_t wanted = 0; wanted < in.size(); ++wanted) {
    if (!differentiable<O>(in, wanted)) continue;
    const Buffers din = make_input_gradients<O>(in);
    std::vector<Grad> modes = grads(din, GradMode::skip);
    modes[wanted].mode = GradMode::write;
    backward_on(op, stream, views(in), views(out), views(dout), modes);
    for (size_t i = 0; i < in.size(); ++i) {
      if (!din[i].defined()) continue;
      INFO("only " << O::kInputs[wanted] << " wanted, looking at " << O::kInputs[i]);
      CHECK(din[i].equal_bits(i == wanted ? written[i] : untouched[i]));
    }
  }
}

TEST_CASE("gradient modes write, add and skip do what they say") {
  auto stream = make_stream(2);
  for_differentiable_ops([&]<class O>() {
    for_all_variants<O>([&](const O& op, const Buffers& in) {
      const Buffers out = forward(op, *stream, in), dout = make_output_gradients<O>(out);
      const Buffers written = backward(op, *stream, in, out, dout);  // into NaN
      CHECK(guards_intact(out));
      for (size_t i = 0; i < written.size(); ++i) {
        INFO("mode write, " << O::kInputs[i]);
        CHECK(std::isfinite(distance(written[i], written[i])));
        CHECK(written[i].guards_intact());
      }
      check_add(op, *stream, in, out, dout, written);
      check_skip(op, *stream, in, out, dout, written);
    });
  });
}

// 4. What backward keeps

TEST_CASE("what an op keeps is enough for its backward") {
  auto stream = make_stream(2);
  for_differentiable_ops([&]<class O>() {
    for_all_variants<O>([&](const O& op, const Buffers& in) {
      const Buffers out = forward(op, *stream, in), dout = make_output_gradients<O>(out);
      const Buffers expected = backward(op, *stream, in, out, dout);
      const Keep keep = op.keep();
      const Buffers part =
          backward(op, *stream, overwritten(in, keep.inputs), overwritten(out, keep.outputs), dout);
      // An op that reads what it does not keep fails here, before it would read through a null pointer
      // below.
      if (!check_equal_bits(part, expected, "with the rest overwritten, gradient of", O::kInputs)) return;
      const Buffers din = make_input_gradients<O>(in);
      backward_on(op, *stream, absent(in, keep.inputs), absent(out, keep.outputs), views(dout),
                  grads(din, GradMode::write));
      check_equal_bits(din, expected, "with the rest absent, gradient of", O::kInputs);
    });
  });
}

// 5. Threads

TEST_CASE("results have equal bits for one, two and three threads") {
  auto one = make_stream(1), two = make_stream(2), three = make_stream(3);
  for_each_op<AllOps>([&]<class O>() {
    for_all_variants<O>([&](const O& op, const Buffers& in) {
      const Results expected = run(op, *one, in);
      for (CpuStream* stream : {two.get(), three.get()}) {
        INFO(stream->pool().threads() << " threads");
        const Results results = run(op, *stream, in);
        check_equal_bits(results.out, expected.out, "output", O::kOutputs);
        check_equal_bits(results.din, expected.din, "gradient of", O::kInputs);
      }
    });
  });
}

// 6. Shape errors

/// Whether infer refuses `in` with an Error that begins with the op's name; a message of another form is a
/// failure.
template <class O>
bool refuses(const O& op, const std::vector<Spec>& in) {
  try {
    op.infer(in);
  } catch (const Error& error) {
    INFO(error.what());
    CHECK(std::string_view(error.what()).starts_with(str(O::kName, ": ")));
    return true;
  }
  return false;
}

/// Mask of the inputs that fit whatever their shape, given the others: the op's `kAnyShape`, or a lone input.
template <class O>
constexpr uint32_t any_shape() {
  if constexpr (requires { O::kAnyShape; })
    return O::kAnyShape;
  else
    return O::kInputs.size() == 1 ? 1 : 0;
}

/// Whether input i is refused with another dtype, and with one extent that differs.
struct Refusals {
  bool present = false, dtype = true, shape = false;
};

template <class O>
void try_misfits(const O& op, const std::vector<Spec>& good, size_t i, Refusals& refusals) {
  refusals.present = true;
  std::vector<Spec> in = good;
  in[i].dtype = good[i].dtype == Dtype::u8 ? Dtype::f32 : Dtype::u8;
  refusals.dtype &= refuses(op, in);
  for (int axis = 0; axis < good[i].shape.rank; ++axis) {
    in[i] = good[i];
    in[i].shape.extent[static_cast<size_t>(axis)] += 1;
    refusals.shape |= refuses(op, in);
  }
}

TEST_CASE("every op refuses inputs that do not fit, and names itself") {
  for_each_op<AllOps>([&]<class O>() {
    std::array<Refusals, O::kInputs.size()> refusals;
    for_cases<O>(Dtype::f32, [&](const Case<O>& c, const Buffers& in, const std::string&) {
      for (size_t i = 0; i < in.size(); ++i)
        if (in[i].defined()) try_misfits(c.op, specs(in), i, refusals[i]);
    });
    for (size_t i = 0; i < refusals.size(); ++i) {
      INFO(O::kName << ", input " << O::kInputs[i]);
      CHECK(refusals[i].present);  // in some case, else nothing is tested with it
      if (!refusals[i].present) continue;
      CHECK(refusals[i].dtype);                                 // in every case
      CHECK((refusals[i].shape || (any_shape<O>() >> i & 1)));  // in some case
    }
  });
}

// 7. Strided rows

template <class O>
void check_strided(const O& op, CpuStream& stream, const Buffers& in) {
  const Results dense = run(op, stream, in), strided = run(op, stream, copies(in, 3));
  const auto close = [&](const Buffers& a, const Buffers& b, const auto& names) {
    for (size_t i = 0; i < a.size(); ++i) {
      INFO(names[i]);
      // Padding may lead to another kernel of a library, so the order of a sum may differ.
      CHECK(distance(a[i], b[i]) <= 16 * epsilon(a[i].spec().dtype) * largest(b[i]));
    }
  };
  close(strided.out, dense.out, O::kOutputs);
  close(strided.din, dense.din, O::kInputs);
}

TEST_CASE("ops that take strided rows give the same with padding between the rows") {
  auto stream = make_stream(2);
  for_each_op<AllOps>([&]<class O>() {
    if constexpr (requires { requires O::kStridedInputs; })
      for_all_variants<O>([&](const O& op, const Buffers& in) { check_strided(op, *stream, in); });
  });
}

}  // namespace
