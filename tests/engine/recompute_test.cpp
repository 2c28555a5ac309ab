#include "engine/recompute.h"

#include <catch2/catch.hpp>

#include "engine/ops.h"
#include "engine/run.h"
#include "kernels/philox.h"

using namespace dino;

namespace {

constexpr int64_t kRows = 64, kDim = 16;

Tensor random_tensor(Context& context, Shape shape, uint64_t index) {
  const Tensor tensor = context.tensor({Dtype::f32, shape});
  Random random(3, Purpose::test, index);
  std::generate_n(tensor.view().as<float>(), shape.count(), [&] { return random.uniform(-1, 1); });
  return tensor;
}

/// A tensor whose gradient can be read after a step.
struct Leaf {
  Tensor values, gradient;

  Leaf(Context& context, Shape shape, uint64_t index)
      : values(random_tensor(context, shape, index)), gradient(random_tensor(context, shape, 100)) {
    values.set_grad(std::make_shared<GradSlot>(gradient.view()));
  }
};

Tensor scalar_of(Context& context, const Tensor& y) {
  return run(context, CropsMse{.crops = 2}, {y, random_tensor(context, y.shape(), 50)})[CropsMse::loss];
}

/// A residual block that uses its input twice and one weight twice.
struct Mlp {
  Leaf up, down;
  mutable int runs = 0;

  Mlp(Context& context, uint64_t index) : up(context, {4 * kDim, kDim}, index), down(context, {kDim, 4 * kDim}, index + 1) {}

  Part part() const {
    return [this](Context& context, std::vector<Tensor> in) {
      ++runs;
      const Tensor hidden = run(context, Gelu{}, {run(context, Linear{}, {in[0], up.values})[Linear::y]})[Gelu::y];
      const Tensor again = run(context, Gelu{}, {run(context, Linear{}, {in[0], up.values})[Linear::y]})[Gelu::y];
      const Tensor both = run(context, ResidualAdd{}, {hidden, again})[ResidualAdd::y];
      const Tensor branch = run(context, Linear{}, {both, down.values})[Linear::y];
      return std::vector{run(context, ResidualAdd{}, {in[0], branch})[ResidualAdd::y], branch};
    };
  }
};

enum class How { kept, recomputed, nested };

struct Result {
  std::vector<double> loss, dx, first, second;
  bool operator==(const Result&) const = default;
};

struct Measured {
  Result result;
  size_t kept;  ///< bytes in use between forward and backward
  int runs;     ///< of the first block
};

Measured train(How how) {
  Context context(2);
  const Leaf x(context, {kRows, kDim}, 1);
  const Mlp first(context, 10), second(context, 20);
  const Part both = [&](Context& where, std::vector<Tensor> in) {
    Tensor y = recompute(where, std::move(in), first.part())[0];
    return recompute(where, {y}, second.part());
  };
  Tape tape(context);
  const size_t before = context.arena().used_bytes();
  Tensor y;
  if (how == How::kept) y = second.part()(context, {first.part()(context, {x.values})[0]})[0];
  if (how == How::recomputed) y = both(context, {x.values})[0];
  if (how == How::nested) y = recompute(context, {x.values}, both)[0];
  const size_t kept = context.arena().used_bytes() - before;
  const Tensor loss = scalar_of(context, y);
  tape.backward(loss);
  return {{values_of(loss), values_of(x.gradient), values_of(first.up.gradient), values_of(second.down.gradient)}, kept, first.runs};
}

}  // namespace

TEST_CASE("a part that is recomputed gives the same gradients bit for bit and keeps its inputs only") {
  const Measured kept = train(How::kept), recomputed = train(How::recomputed), nested = train(How::nested);
  CHECK(recomputed.result == kept.result);
  CHECK(nested.result == kept.result);
  const size_t tensor = kRows * kDim * sizeof(float);
  CHECK(kept.kept > 20 * tensor);
  CHECK(recomputed.kept == 2 * tensor);  // what lies between the parts, and the result
  CHECK(nested.kept == tensor);
  CHECK(kept.runs == 1);
  CHECK(recomputed.runs == 2);
  CHECK(nested.runs == 3);
}

TEST_CASE("a part that did not reach the loss is not run again") {
  Context context(1);
  const Leaf x(context, {kRows, kDim}, 1);
  const Mlp used(context, 10), unused(context, 20);
  Tape tape(context);
  recompute(context, {x.values}, unused.part());
  tape.backward(scalar_of(context, recompute(context, {x.values}, used.part())[0]));
  CHECK(used.runs == 2);
  CHECK(unused.runs == 1);
  CHECK(unused.up.values.grad()->touched() == false);
}

TEST_CASE("without a tape a part runs as it is") {
  Context context(1);
  const Leaf x(context, {kRows, kDim}, 1);
  const Mlp block(context, 10);
  CHECK(recompute(context, {x.values}, block.part())[0].grad() == nullptr);
  CHECK(block.runs == 1);
}

TEST_CASE("a part that hands out its input is refused") {
  Context context(1);
  const Leaf x(context, {kRows, kDim}, 1);
  const Tape tape(context);
  CHECK_THROWS_WITH(recompute(context, {x.values}, [](Context&, std::vector<Tensor> in) { return in; }),
                    Catch::Contains("must not be one of its inputs"));
}
