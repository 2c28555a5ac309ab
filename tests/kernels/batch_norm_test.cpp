#include "kernels/batch_norm.h"

#include <catch2/catch.hpp>

#include "tests/op_harness.h"

using namespace dino;
using namespace dino::test;

namespace {

/// [rows, channels] of mean `mean` and standard deviation `deviation`, rounded to f32.
Case<BatchNorm> shifted_case(Shape shape) { return {{}, {{shape}}}; }

Buffers shifted_inputs(Shape shape, Dtype dtype, double mean, double deviation) {
  Buffers in = make_inputs(shifted_case(shape), dtype);
  for (int64_t i = 0; i < in[0].count(); ++i)
    in[0].set(i, static_cast<double>(static_cast<float>(mean + deviation * in[0].at(i))));
  return in;
}

double largest_difference(const Buffer& a, const Buffer& b) {
  double result = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    if (std::isnan(a.at(i)) || std::isnan(b.at(i))) return std::numeric_limits<double>::infinity();
    result = std::max(result, std::abs(a.at(i) - b.at(i)));
  }
  return result;
}

TEST_CASE("batch norm in f32 is right when the mean is a thousand times the standard deviation") {
  auto stream = make_stream(2);
  for (const Shape shape : {Shape{20000, 3}, Shape{8, 30, 30, 40}, Shape{5, 2048}}) {
    INFO(shape);
    const Buffers f64 = forward(BatchNorm{}, *stream, shifted_inputs(shape, Dtype::f64, 100, 0.1));
    const Buffers f32 = forward(BatchNorm{}, *stream, shifted_inputs(shape, Dtype::f32, 100, 0.1));
    // The mean can be no better than half a spacing of floats near 100, and y inherits that times rstd.
    const double half_spacing = 3.9e-6;
    CHECK(largest_difference(f32[BatchNorm::mean], f64[BatchNorm::mean]) <= 1.01 * half_spacing);
    CHECK(largest_difference(f32[BatchNorm::var], f64[BatchNorm::var]) <= 0.01 * 1e-5);
    double rstd = 0;
    for (int64_t c = 0; c < shape.cols(); ++c) rstd = std::max(rstd, f64[BatchNorm::rstd].at(c));
    CHECK(largest_difference(f32[BatchNorm::y], f64[BatchNorm::y]) <= 2 * half_spacing * rstd);
  }
}

TEST_CASE("batch norm in evaluation uses the running statistics and in training its own") {
  auto stream = make_stream(1);
  const Case<BatchNorm> c{{.eps = 0, .training = false}, {{{4, 1}}, {{1}}, {{1}}, {{1}}, {{1}}}};
  Buffers in = make_inputs(c, Dtype::f64);
  const std::array<double, 4> x = {1, 2, 3, 6};
  for (int64_t i = 0; i < 4; ++i) in[BatchNorm::x].set(i, x[static_cast<size_t>(i)]);
  in[BatchNorm::gamma].set(0, 2);
  in[BatchNorm::beta].set(0, 10);
  in[BatchNorm::running_mean].set(0, 1);
  in[BatchNorm::running_var].set(0, 4);
  const Buffers evaluated = forward(c.op, *stream, in);
  CHECK(evaluated[BatchNorm::y].at(3) == 2 * (6 - 1) / 2.0 + 10);
  const Buffers trained = forward(BatchNorm{.eps = 0}, *stream, in);
  CHECK(trained[BatchNorm::mean].at(0) == 3);
  CHECK(trained[BatchNorm::var].at(0) == Approx(3.5));
  CHECK(trained[BatchNorm::y].at(3) == Approx(2 * 3 / std::sqrt(3.5) + 10));
}

TEST_CASE("a NaN in a batch reaches the statistics of its channel and of no other") {
  auto stream = make_stream(2);
  for (const Dtype dtype : {Dtype::f64, Dtype::f32}) {
    Buffers in = make_inputs(shifted_case({3000, 40}), dtype);
    in[0].set(2000 * 40 + 7, std::numeric_limits<double>::quiet_NaN());
    const Buffers out = forward(BatchNorm{}, *stream, in);
    for (int64_t c = 0; c < 40; ++c) {
      CHECK(std::isnan(out[BatchNorm::mean].at(c)) == (c == 7));
      CHECK(std::isnan(out[BatchNorm::var].at(c)) == (c == 7));
    }
  }
}

TEST_CASE("running statistics take the unbiased variance with weight momentum, also in place") {
  auto stream = make_stream(1);
  const RunningStats op{.momentum = 0.25, .count = 5};
  Buffers in = make_inputs(Case<RunningStats>{op, {{{1}}, {{1}}, {{1}}, {{1}}}}, Dtype::f32);
  in[RunningStats::running_mean].set(0, 8);
  in[RunningStats::running_var].set(0, 4);
  in[RunningStats::mean].set(0, 4);
  in[RunningStats::var].set(0, 16);
  const std::vector<View> v = views(in);
  op.forward(*stream, v, std::span(v).first(2));
  CHECK(in[RunningStats::running_mean].at(0) == 0.75 * 8 + 0.25 * 4);
  CHECK(in[RunningStats::running_var].at(0) == 0.75 * 4 + 0.25 * 16 * 5 / 4);
  CHECK_THROWS_AS((RunningStats{.momentum = 0.1, .count = 1}.infer(specs(in))), UsageError);
}

}  // namespace
