#include "engine/ops.h"
#include "tests/cuda/cuda_harness.h"

using namespace dino;
using namespace dino::test;

// Every op of the engine on the GPU, on every small case of its own: no op needs a line here.
// `dino_cuda_tests -c attention` runs one op.
namespace {

/// Calls body(variant, inputs) for every op, case and variant.
template <class Body>
void for_all(const Body& body) {
  for_each_op<AllOps>([&]<class O>() {
    DYNAMIC_SECTION(O::kName) {
      size_t index = 0;
      for (const Case<O>& c : O::cases(Tiny{})) {
        for (const Variant<O>& variant : variants(c.op)) {
          INFO("case " << index << ", " << variant.name);
          body(variant, make_inputs(c, variant.dtype));
        }
        ++index;
      }
    }
  });
}

template <class Body>
void for_all_differentiable(const Body& body) {
  for_all([&]<class O>(const Variant<O>& variant, const Buffers& in) {
    if constexpr (DifferentiableOp<O>) body(variant, in);
  });
}

Buffers in_f64(const Buffers& buffers) {
  Buffers result;
  for (const Buffer& buffer : buffers) result.push_back(buffer.as(Dtype::f64));
  return result;
}

/// Outputs and gradients on the CPU in f64, whatever type the result has on the device.
struct Reference {
  Buffers out, din;
};

template <class O>
Reference reference(O op, CpuStream& stream, const Buffers& in, const Buffers& dout) {
  if constexpr (requires { op.output; }) op.output = Dtype::none;
  Reference result{forward(op, stream, in), {}};
  if constexpr (DifferentiableOp<O>) result.din = backward(op, stream, in, result.out, dout);
  return result;
}

/// A plain kernel errs about as much as an exact one whose inputs were rounded otherwise, plus a rounding of the result.
/// A kernel here may err twice as much. `plain` also takes in the error of the CPU's kernel of that type, if there is one.
void check_close(const Buffers& got, const Buffers& exact, const std::vector<Buffers>& others, const Buffers* plain, Dtype dtype,
                 const auto& names) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (!got[i].defined()) continue;
    INFO(names[i]);
    if (!got[i].is_float()) {
      CHECK(got[i].equal_bits(exact[i]));
      continue;
    }
    double error = plain ? distance((*plain)[i], exact[i]) : 0;
    for (const Buffers& other : others) error = std::max(error, distance(other[i], exact[i]));
    const double bound = 2 * (error + epsilon(dtype) * largest(exact[i]));
    INFO("error " << distance(got[i], exact[i]) << ", bound " << bound << ", largest " << largest(exact[i]));
    CHECK(distance(got[i], exact[i]) <= bound);
  }
}

TEST_CASE("every op on the GPU agrees with f64 on the CPU, forward and backward") {
  auto stream = make_stream(2);
  for_all([&]<class O>(const Variant<O>& variant, const Buffers& in) {
    const Buffers out = cuda_forward(variant.op, in);
    const Buffers dout = DifferentiableOp<O> ? make_output_gradients<O>(out) : Buffers();
    const Buffers exact_in = in_f64(in), exact_dout = in_f64(dout);
    const Reference exact = reference(variant.op, *stream, exact_in, exact_dout);
    std::vector<Buffers> out_others, din_others;
    for (uint32_t draw = 0; draw < 3; ++draw) {
      const Reference other = reference(variant.op, *stream, rounded_otherwise(exact_in, draw, variant.dtype),
                                        rounded_otherwise(exact_dout, draw + 100, variant.dtype));
      out_others.push_back(copies(other.out));
      din_others.push_back(copies(other.din));
    }
    Reference plain;
    if (variant.dtype == Dtype::f32) plain = reference(variant.op, *stream, in, dout);
    const bool has_plain = variant.dtype == Dtype::f32;
    check_close(out, exact.out, out_others, has_plain ? &plain.out : nullptr, variant.dtype, O::kOutputs);
    if constexpr (DifferentiableOp<O>) {
      const Buffers din = cuda_backward(variant.op, in, out, dout);
      check_close(din, exact.din, din_others, has_plain ? &plain.din : nullptr, variant.dtype, O::kInputs);
    }
  });
}

TEST_CASE("gradients on the GPU are added to what was there, or left alone") {
  for_all_differentiable([&]<class O>(const Variant<O>& variant, const Buffers& in) {
    const Buffers out = cuda_forward(variant.op, in), dout = make_output_gradients<O>(out);
    const Buffers written = cuda_backward(variant.op, in, out, dout);
    Buffers before = make_input_gradients<O>(in);
    for (size_t i = 0; i < before.size(); ++i)
      if (Draws draws(400 + i); before[i].defined()) fill(before[i], Fill::normal, draws);
    const Buffers sum = cuda_backward(variant.op, in, out, dout, &before);
    for (size_t i = 0; i < sum.size(); ++i) {
      if (!sum[i].defined()) continue;
      INFO("gradient of " << O::kInputs[i]);
      Buffer expected = before[i].as(Dtype::f64);
      for (int64_t e = 0; e < expected.count(); ++e) expected.set(e, before[i].at(e) + written[i].at(e));
      const double scale = largest(before[i]) + largest(written[i]);
      const Dtype dtype = sum[i].spec().dtype;
      CHECK(distance(sum[i], expected) <= (dtype == Dtype::bf16 ? 2 : 16) * epsilon(dtype) * scale);
    }
    for (uint32_t i = 0; i < in.size(); ++i) {
      if (!differentiable<O>(in, i)) continue;
      INFO("only the gradient of " << O::kInputs[i]);
      const Buffer alone = std::move(cuda_backward(variant.op, in, out, dout, nullptr, {~0u, ~0u}, bit(static_cast<int>(i)))[i]);
      // The bias gradient of a linear layer (a 1×1 convolution is one) comes out of the weight's matmul if both are wanted,
      // which sums in an order of its own.
      if constexpr (std::is_same_v<O, Linear> || std::is_same_v<O, Conv2d>)
        CHECK(distance(alone, written[i]) <= 16 * epsilon(alone.spec().dtype) * largest(written[i]));
      else
        CHECK(alone.equal_bits(written[i]));
    }
  });
}

TEST_CASE("what an op keeps is enough for its backward on the GPU") {
  for_all_differentiable([&]<class O>(const Variant<O>& variant, const Buffers& in) {
    const Buffers out = cuda_forward(variant.op, in), dout = make_output_gradients<O>(out);
    const Buffers expected = cuda_backward(variant.op, in, out, dout);
    const Buffers part = cuda_backward(variant.op, in, out, dout, nullptr, variant.op.keep());
    for (size_t i = 0; i < part.size(); ++i) {
      INFO("gradient of " << O::kInputs[i]);
      CHECK(part[i].equal_bits(expected[i]));
    }
  });
}

TEST_CASE("two runs on the GPU give the same bits") {
  for_all([&]<class O>(const Variant<O>& variant, const Buffers& in) {
    const Buffers out = cuda_forward(variant.op, in), again = cuda_forward(variant.op, in);
    for (size_t i = 0; i < out.size(); ++i) {
      INFO(O::kOutputs[i]);
      CHECK(out[i].equal_bits(again[i]));
    }
  });
}

TEST_CASE("ops that take strided rows give the same on the GPU with padding between the rows") {
  for_all([&]<class O>(const Variant<O>& variant, const Buffers& in) {
    if constexpr (requires { requires O::kStridedInputs; }) {
      const Buffers out = cuda_forward(variant.op, in), strided = cuda_forward(variant.op, copies(in, 3));
      for (size_t i = 0; i < out.size(); ++i) {
        INFO(O::kOutputs[i]);
        // Padding may lead to another kernel of a library, so the order of a sum may differ.
        CHECK(distance(strided[i], out[i]) <= 16 * epsilon(out[i].spec().dtype) * largest(out[i]));
      }
      if constexpr (DifferentiableOp<O>) {
        const Buffers dout = make_output_gradients<O>(out);
        const Buffers dense_din = cuda_backward(variant.op, in, out, dout);
        const Buffers din = cuda_backward(variant.op, copies(in, 3), out, dout);
        for (size_t i = 0; i < din.size(); ++i) {
          INFO("gradient of " << O::kInputs[i]);
          CHECK(distance(din[i], dense_din[i]) <= 16 * epsilon(din[i].spec().dtype) * largest(dense_din[i]));
        }
      }
    }
  });
}

}  // namespace
