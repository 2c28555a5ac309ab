#include "engine/tape.h"

#include "engine/run.h"

namespace dino {

Tape::Tape(Context& context, Recording recording) : context_(context), recording_(recording), outer_(context.tape_) {
  context.tape_ = this;
}

Tape::~Tape() { context_.tape_ = outer_; }

void Tape::backward(const Tensor& loss, double seed) {
  check(loss.grad() != nullptr, "tape: the loss does not depend on anything that wants a gradient");
  check(loss.shape() == Shape{1}, "tape: a loss must have shape [1]; got ", loss.shape());
  loss.grad()->assign(context_.constant(seed, loss.dtype(), loss.device()));
  undo();
}

void Tape::undo() {
  while (!nodes_.empty()) {
    const std::unique_ptr<TapeNode> node = std::move(nodes_.back());
    nodes_.pop_back();
    node->backward(context_);
  }
}

}  // namespace dino
