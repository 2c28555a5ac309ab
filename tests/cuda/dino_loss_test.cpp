#include "kernels/dino_loss.h"

#include "kernels/sinkhorn.h"
#include "tests/cuda/cuda_harness.h"

using namespace dino;
using namespace dino::test;

// Rows of prototypes as long as real ones are, and longer than what kernels keep in registers or sum in one go.
namespace {

/// What a rounding of each input changes, and one of the result.
double bound_of(const Buffer& exact, double roundings) { return roundings * epsilon(Dtype::f32) * largest(exact); }

template <class O>
void check_long_rows(const O& op, const std::vector<CaseInput>& inputs) {
  auto stream = make_stream(2);
  const Buffers in = make_inputs(Case<O>{op, inputs}, Dtype::f32);
  Buffers exact_in;
  for (const Buffer& buffer : in) exact_in.push_back(buffer.as(Dtype::f64));
  const Buffers out = cuda_forward(op, in), exact = forward(op, *stream, exact_in);
  for (size_t i = 0; i < out.size(); ++i) {
    INFO(O::kName << " " << O::kOutputs[i] << ": " << distance(out[i], exact[i]) << " of " << largest(exact[i]));
    CHECK(distance(out[i], exact[i]) <= bound_of(exact[i], 16));
  }
  if constexpr (DifferentiableOp<O>) {
    const Buffers dout = make_output_gradients<O>(out);
    Buffers exact_dout;
    for (const Buffer& buffer : dout) exact_dout.push_back(buffer.as(Dtype::f64));
    const Buffers dins = cuda_backward(op, in, out, dout),
                  exact_dins = backward(op, *stream, exact_in, exact, exact_dout);
    const Buffer &din = dins[0], &exact_din = exact_dins[0];
    INFO(O::kName << " gradient: " << distance(din, exact_din) << " of " << largest(exact_din));
    CHECK(distance(din, exact_din) <= bound_of(exact_din, 16));
  }
}

TEST_CASE("losses and targets of long rows agree with f64 on the CPU") {
  for (const int64_t dim : {67000, 67001}) {
    INFO(dim << " prototypes");
    check_long_rows(TeacherSoftmax{}, {{{2, dim}}, {{1, dim}}});
    check_long_rows(CenteredUnit{}, {{{2, dim}}, {{1, dim}}});
    check_long_rows(DinoCrossEntropy{.crops = 3}, {{{3, dim}}, {{2, dim}, Fill::probabilities}});
    check_long_rows(CropsMse{.crops = 2}, {{{2, dim}}, {{2, dim}}});
    check_long_rows(TargetStatistics{}, {{{3, dim}, Fill::probabilities}});
    check_long_rows(Sinkhorn{}, {{{3, dim}}});
  }
}

TEST_CASE("of several largest targets on the GPU the first counts") {
  for (const int64_t dim : {3000, 3001}) {
    Buffers in;
    Buffer& p = in.emplace_back(Spec{Dtype::f32, Shape{4, dim}});
    for (int64_t i = 0; i < p.count(); ++i) p.set(i, 0.25);  // row 0: all
    p.set(dim, 0.5);                                         // row 1: the first
    p.set(2 * dim + 7, 0.5);                                 // row 2: the eighth, and the last
    p.set(3 * dim - 1, 0.5);
    p.set(3 * dim + 7, 0.5);  // row 3: the eighth
    const Buffers out = cuda_forward(TargetStatistics{}, in);
    CHECK(out[0].at(2) == static_cast<double>(2 / static_cast<float>(dim)));
  }
}

}  // namespace
