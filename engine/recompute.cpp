#include "engine/recompute.h"

#include <algorithm>
#include <utility>

#include "engine/run.h"

namespace dino {
namespace {

/// A part as one op of the tape that recorded it.
class PartNode final : public TapeNode {
 public:
  PartNode(Part part, std::vector<Tensor> inputs, std::vector<std::shared_ptr<GradSlot>> output_grads)
      : part_(std::move(part)), inputs_(std::move(inputs)), output_grads_(std::move(output_grads)) {}

  void backward(Context& context) override {
    const auto touched = [](const auto& slot) { return slot && slot->touched(); };
    if (std::none_of(output_grads_.begin(), output_grads_.end(), touched)) return;  // nothing of this part reached the loss
    Tape tape(context);
    // The inputs bring the slots that they had the first time, so their gradients are summed up in the same order.
    std::vector<Tensor> outputs = part_(context, std::move(inputs_));
    for (size_t i = 0; i < outputs.size(); ++i)
      if (touched(output_grads_[i])) outputs[i].grad()->take(*output_grads_[i]);
    outputs.clear();  // the tape keeps what it needs
    tape.undo();
  }

 private:
  Part part_;
  std::vector<Tensor> inputs_;
  std::vector<std::shared_ptr<GradSlot>> output_grads_;
};

}  // namespace

std::vector<Tensor> recompute(Context& context, std::vector<Tensor> inputs, Part part) {
  Tape* const tape = context.tape();
  if (!tape) return part(context, std::move(inputs));
  std::vector<Tensor> outputs;
  {
    const Tape forgetful(context, Tape::Recording::forget);
    outputs = part(context, inputs);
  }
  std::vector<std::shared_ptr<GradSlot>> grads;
  for (const Tensor& output : outputs) {
    for (const Tensor& input : inputs)
      check(!output.grad() || output.grad() != input.grad(), "recompute: an output of a part must not be one of its inputs");
    grads.push_back(output.grad());
  }
  tape->record(std::make_unique<PartNode>(std::move(part), std::move(inputs), std::move(grads)));
  return outputs;
}

}  // namespace dino
