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
    DYNAMIC_SECTION(O::kName) { for_variants<O>({Dtype::f32}, body); }
  });
}

template <class Body>
void for_all_differentiable(const Body& body) {
  for_all([&]<class O>(const Variant<O>& variant, const Buffers& in) {
    if constexpr (DifferentiableOp<O>) body(variant, in);
  });
}

TEST_CASE("every op on the GPU agrees with f64 on the CPU, forward and backward") {
  auto stream = make_stream(2);
  for_all([&]<class O>(const Variant<O>& variant, const Buffers& in) {
    const Buffers out = cuda_forward(variant.op, in);
    const Buffers dout = DifferentiableOp<O> ? make_output_gradients<O>(out) : Buffers();
    const Expected<O> expected(variant, *stream, in, dout);
    Results plain;
    const bool has_plain = variant.dtype == Dtype::f32;
    if (has_plain) {
      plain.out = forward(variant.op, *stream, in);
      if constexpr (DifferentiableOp<O>) plain.din = backward(variant.op, *stream, in, plain.out, dout);
    }
    check_close(out, expected, &Results::out, has_plain ? &plain : nullptr, variant.dtype, O::kOutputs);
    if constexpr (DifferentiableOp<O>)
      check_close(cuda_backward(variant.op, in, out, dout), expected, &Results::din,
                  has_plain ? &plain : nullptr, variant.dtype, O::kInputs);
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
      CHECK(distance(sum[i], expected) <= sum_roundings(dtype) * epsilon(dtype) * scale);
    }
    for (uint32_t i = 0; i < in.size(); ++i) {
      if (!differentiable<O>(in, i)) continue;
      INFO("only the gradient of " << O::kInputs[i]);
      const Buffer alone = std::move(
          cuda_backward(variant.op, in, out, dout, nullptr, {~0u, ~0u}, bit(static_cast<int>(i)))[i]);
      // The bias gradient of a linear layer (a 1×1 convolution is one) comes out of the weight's matmul if
      // both are wanted, which sums in an order of its own.
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
