#include "engine/tape.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "engine/ops.h"
#include "engine/run.h"

using namespace dino;

namespace {

/// [rows, cols] f64 with elements from `first` on.
Tensor counting(Context& context, int64_t rows, int64_t cols, double first = 1) {
  const Tensor tensor = context.tensor({Dtype::f64, Shape{rows, cols}});
  for (int64_t i = 0; i < rows * cols; ++i) tensor.view().as<double>()[i] = first + static_cast<double>(i);
  return tensor;
}

/// The same with a gradient slot, whose memory starts as NaN so that nobody can rely on zeros.
Tensor wanting(Context& context, int64_t rows, int64_t cols) {
  Tensor tensor = counting(context, rows, cols);
  const Tensor grad = counting(context, rows, cols);
  std::fill_n(grad.view().as<double>(), rows * cols, std::numeric_limits<double>::quiet_NaN());
  // The slot borrows the memory of `grad`; tying both to one owner keeps it alive as long as the slot.
  struct Owned {
    Tensor memory;
    GradSlot slot;
  };
  auto owned = std::make_shared<Owned>(Owned{grad, GradSlot(grad.view())});
  tensor.set_grad(std::shared_ptr<GradSlot>(owned, &owned->slot));
  return tensor;
}

/// A scalar that depends on all elements: the sum over rows of a linear map, reduced by a loss op.
Tensor scalar_of(Context& context, const Tensor& x) {
  const Tensor weight = counting(context, 1, x.shape().cols(), 0.5);
  const Tensor y = run(context, Linear{}, {x, weight})[Linear::y];
  return run(context, CropsMse{.crops = 2}, {y, counting(context, x.shape().rows(), 1, 0)})[CropsMse::loss];
}

}  // namespace

TEST_CASE("without a tape nothing is recorded and no slot appears") {
  Context context(1);
  const Tensor x = wanting(context, 2, 3);
  CHECK(run(context, Gelu{}, {x})[Gelu::y].grad() == nullptr);
  {
    Tape tape(context);
    CHECK(run(context, Gelu{}, {x})[Gelu::y].grad() != nullptr);
    CHECK(run(context, Gelu{}, {x.detached()})[Gelu::y].grad() == nullptr);
  }
  CHECK(run(context, Gelu{}, {x})[Gelu::y].grad() == nullptr);
}

TEST_CASE("a tensor that is used twice gets the sum of both gradients") {
  Context context(1);
  const auto gradient = [&](double seed, bool twice) {
    Tensor x = wanting(context, 2, 3);
    Tape tape(context);
    const Tensor y = twice ? run(context, ResidualAdd{}, {x, x})[ResidualAdd::y] : run(context, ResidualAdd{}, {x, counting(context, 2, 3)})[ResidualAdd::y];
    tape.backward(scalar_of(context, y), seed);
    const View grad = x.grad()->value();
    return std::vector<double>(grad.as<double>(), grad.as<double>() + 6);
  };
  // With y = x + x and y = x + c, c = x, the value of y is the same, so the gradient doubles exactly.
  const auto once = gradient(1, false), twice = gradient(1, true);
  for (size_t i = 0; i < 6; ++i) {
    CHECK(twice[i] == 2 * once[i]);
    CHECK(once[i] != 0);
  }
}

TEST_CASE("gradients of parts land in the whole and the rest is zero") {
  Context context(1);
  Tensor x = wanting(context, 4, 6);
  {
    Tape tape(context);
    tape.backward(scalar_of(context, x.cols(2, 4)));
  }
  const View grad = x.grad()->value();
  for (int64_t row = 0; row < 4; ++row)
    for (int64_t col = 0; col < 6; ++col) {
      INFO(row << ", " << col);
      if (col == 2 || col == 3) CHECK(std::abs(grad.row<double>(row)[col]) > 0);
      else CHECK(grad.row<double>(row)[col] == 0);
    }
}

TEST_CASE("parts that are used twice add, and overlapping parts are refused") {
  Context context(1);
  Tensor once = wanting(context, 4, 6), twice = wanting(context, 4, 6);
  {
    Tape tape(context);
    tape.backward(scalar_of(context, once.rows(0, 2)));
  }
  for (int i = 0; i < 2; ++i) {
    Tape tape(context);
    tape.backward(scalar_of(context, twice.rows(0, 2)));
  }
  for (int64_t i = 0; i < 12; ++i) CHECK(twice.grad()->value().as<double>()[i] == 2 * once.grad()->value().as<double>()[i]);
  Tensor overlapping = wanting(context, 4, 6);
  {
    Tape tape(context);
    tape.backward(scalar_of(context, overlapping.rows(0, 2)));
  }
  Tape tape(context);
  CHECK_THROWS_AS(tape.backward(scalar_of(context, overlapping.rows(1, 3))), Error);
}

TEST_CASE("a reset slot writes again") {
  Context context(1);
  Tensor x = wanting(context, 2, 2);
  std::vector<double> first;
  for (int step = 0; step < 2; ++step) {
    x.grad()->reset();
    CHECK_FALSE(x.grad()->touched());
    Tape tape(context);
    tape.backward(scalar_of(context, x));
    const View grad = x.grad()->value();
    const std::vector<double> now(grad.as<double>(), grad.as<double>() + 4);
    if (step == 1) CHECK(now == first);
    first = now;
  }
}

TEST_CASE("a loss that depends on nothing trainable is an error") {
  Context context(1);
  Tape tape(context);
  const Tensor loss = scalar_of(context, counting(context, 2, 2));
  CHECK_THROWS_AS(tape.backward(loss), Error);
}
