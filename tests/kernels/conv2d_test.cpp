#include "kernels/conv2d.h"

#include <catch2/catch.hpp>

#include "kernels/pool.h"
#include "tests/op_harness.h"

using namespace dino;
using namespace dino::test;

namespace {

void fill_with(Buffer& target, double value) {
  for (int64_t i = 0; i < target.count(); ++i) target.set(i, value);
}

TEST_CASE("conv2d shifts its filter over the image, channels innermost, and pads with zeros") {
  auto stream = make_stream(2);
  const Conv2d op{.kernel = 3, .stride = 2, .pad = 1};
  for (const Dtype dtype : {Dtype::f64, Dtype::f32}) {
    // One pixel of one channel is set, so each output is one weight.
    Buffers in = make_inputs(Case<Conv2d>{op, {{{1, 5, 6, 2}}, {{3, 2, 3, 3}}, {{3}}}}, dtype);
    fill_with(in[Conv2d::x], 0);
    in[Conv2d::x].set((2 * 6 + 3) * 2 + 1, 1);  // row 2, column 3, channel 1
    for (int64_t o = 0; o < 3; ++o) in[Conv2d::bias].set(o, 10 * static_cast<double>(o));
    const Buffers out = forward(op, *stream, in);
    REQUIRE(out[0].spec().shape == Shape{1, 3, 3, 3});
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j)
        for (int64_t o = 0; o < 3; ++o) {
          const int64_t r = 2 - (2 * i - 1), s = 3 - (2 * j - 1);
          const bool inside = r >= 0 && r < 3 && s >= 0 && s < 3;
          const double weight = inside ? in[Conv2d::weight].at(((o * 2 + 1) * 3 + r) * 3 + s) : 0;
          INFO("row " << i << ", column " << j << ", channel " << o);
          CHECK(out[0].at((i * 3 + j) * 3 + o) == Approx(weight + 10 * static_cast<double>(o)));
        }
  }
}

TEST_CASE("conv2d says which rule an input breaks") {
  const std::vector<Spec> in = {{Dtype::f32, {1, 2, 8, 3}}, {Dtype::f32, {4, 3, 5, 5}}, {}};
  CHECK_THROWS_WITH(
      (Conv2d{.kernel = 5, .stride = 1, .pad = 1}.infer(in)),
      "conv2d: the filter must fit in the padded image; got x f32[1, 2, 8, 3], weight f32[4, 3, 5, 5]");
}

TEST_CASE("average pooling of bins that overlap averages rows ⌊i·h/n⌋ to ⌈(i+1)·h/n⌉") {
  auto stream = make_stream(1);
  const AveragePool op{.rows = 2, .cols = 1};
  Buffers in = make_inputs(Case<AveragePool>{op, {{{1, 3, 2, 1}}}}, Dtype::f64);
  for (int64_t i = 0; i < 6; ++i) in[0].set(i, static_cast<double>(i));
  const Buffers out = forward(op, *stream, in);
  CHECK(out[0].at(0) == Approx((0 + 1 + 2 + 3) / 4.0));
  CHECK(out[0].at(1) == Approx((2 + 3 + 4 + 5) / 4.0));
}

TEST_CASE("max pooling ignores its padding, prefers the first of equals and lets NaN through") {
  auto stream = make_stream(2);
  const MaxPool op{.kernel = 3, .stride = 2, .pad = 1};
  for (const Dtype dtype : {Dtype::f64, Dtype::f32}) {
    Buffers in = make_inputs(Case<MaxPool>{op, {{{1, 4, 4, 19}}}}, dtype);
    fill_with(in[0], -5);
    in[0].set((3 * 4 + 3) * 19 + 4, std::numeric_limits<double>::quiet_NaN());   // channel 4, a vector
    in[0].set((2 * 4 + 2) * 19 + 18, std::numeric_limits<double>::quiet_NaN());  // channel 18, a tail
    in[0].set((1 * 4 + 1) * 19 + 2, -1);
    const Buffers out = forward(op, *stream, in);
    const auto y = [&](int64_t pixel, int64_t channel) { return out[MaxPool::y].at(pixel * 19 + channel); };
    const auto index = [&](int64_t pixel, int64_t channel) {
      return out[MaxPool::index].at(pixel * 19 + channel);
    };
    CHECK(y(0, 0) == -5);
    CHECK(index(0, 0) == 0);
    CHECK(index(3, 0) == 5);
    CHECK(y(0, 2) == -1);
    CHECK(index(3, 2) == 5);
    CHECK(std::isnan(y(3, 4)));
    CHECK(index(3, 4) == 15);
    CHECK(std::isnan(y(3, 18)));
    CHECK(index(3, 18) == 10);
    CHECK(y(0, 4) == -5);
  }
}

}  // namespace
