#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "engine/tape.h"
#include "engine/tensor.h"
#include "kernels/stream.h"

namespace dino {

/// Where computing happens: a stream, the memory of its tensors, and the tape that is recording, if any.
/// It must outlive its tensors.
class Context {
 public:
  explicit Context(int threads = 0) : stream_(threads) {}

  CpuStream& stream() { return stream_; }
  Arena& arena() { return arena_; }
  Tape* tape() const { return tape_; }

  /// An uninitialised tensor.
  Tensor tensor(Spec spec) { return allocate(arena_, spec); }

 private:
  friend class Tape;
  CpuStream stream_;
  Arena arena_;
  Tape* tape_ = nullptr;
};

/// The outputs of an op, by its own `Outputs` names.
template <Op O>
using OutputsOf = std::array<Tensor, O::kOutputs.size()>;

namespace detail {

/// What the tape needs of one executed op: values that backward reads, and the gradient slots of inputs and outputs.
template <DifferentiableOp O>
class OpNode final : public TapeNode {
 public:
  OpNode(const O& op, std::span<const Tensor> inputs, std::span<const Tensor> outputs) : op_(op) {
    const Keep keep = op.keep();
    for (size_t i = 0; i < inputs.size(); ++i) {
      input_specs_[i] = inputs[i].spec();
      if (keep.inputs >> i & 1) kept_inputs_[i] = inputs[i].detached();
      if (O::kDifferentiable >> i & 1) input_grads_[i] = inputs[i].grad();
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (keep.outputs >> i & 1) kept_outputs_[i] = outputs[i].detached();
      output_grads_[i] = outputs[i].grad();
    }
  }

  void backward(Context& context) override {
    std::array<View, O::kOutputs.size()> out, dout;
    bool any = false;
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = kept_outputs_[i].view();
      if (output_grads_[i]) dout[i] = output_grads_[i]->value();
      any = any || dout[i].defined();
    }
    if (!any) return;  // nothing of this op reached the loss
    std::array<View, O::kInputs.size()> in;
    std::array<Grad, O::kInputs.size()> din;
    for (size_t i = 0; i < in.size(); ++i) {
      in[i] = kept_inputs_[i].view();
      // Backward may need the shape of a value that is gone.
      if (!in[i].defined() && input_specs_[i].defined()) in[i] = View(nullptr, input_specs_[i].dtype, input_specs_[i].shape);
      if (input_grads_[i]) din[i] = input_grads_[i]->touch();
    }
    op_.backward(context.stream(), in, out, dout, din);
  }

 private:
  O op_;
  std::array<Spec, O::kInputs.size()> input_specs_;
  std::array<Tensor, O::kInputs.size()> kept_inputs_;
  std::array<Tensor, O::kOutputs.size()> kept_outputs_;
  std::array<std::shared_ptr<GradSlot>, O::kInputs.size()> input_grads_;
  std::array<std::shared_ptr<GradSlot>, O::kOutputs.size()> output_grads_;
};

}  // namespace detail

/// Runs `op` on the given inputs (absent optional ones may be left out at the end) into new tensors, or into `outputs`
/// where these are given. Records it if a tape is alive and somebody wants the gradient of an input.
/// Throws Error if the inputs break the op's shape rule.
template <Op O>
OutputsOf<O> run(Context& context, const O& op, std::span<const Tensor> given, OutputsOf<O> outputs = {}) {
  check(given.size() <= O::kInputs.size(), O::kName, ": takes at most ", O::kInputs.size(), " inputs");
  std::array<Tensor, O::kInputs.size()> inputs;
  std::copy(given.begin(), given.end(), inputs.begin());
  std::array<Spec, O::kInputs.size()> specs;
  std::array<View, O::kInputs.size()> in;
  for (size_t i = 0; i < inputs.size(); ++i) {
    specs[i] = inputs[i].spec();
    in[i] = inputs[i].view();
  }
  const std::vector<Spec> out_specs = op.infer(specs);
  std::array<View, O::kOutputs.size()> out;
  for (size_t i = 0; i < out.size(); ++i) {
    if (!outputs[i].defined()) outputs[i] = context.tensor(out_specs[i]);
    check(outputs[i].spec() == out_specs[i], O::kName, ": output ", O::kOutputs[i], " must be ", out_specs[i].shape,
          "; got ", outputs[i].shape());
    out[i] = outputs[i].view();
  }
  op.forward(context.stream(), in, out);
  if constexpr (DifferentiableOp<O>) {
    bool wanted = false;
    for (size_t i = 0; i < inputs.size(); ++i) wanted = wanted || ((O::kDifferentiable >> i & 1) && inputs[i].grad());
    if (context.tape() && wanted) {
      for (Tensor& output : outputs) output.set_grad(std::make_shared<GradSlot>(&context.arena(), output.spec()));
      context.tape()->record(std::make_unique<detail::OpNode<O>>(op, inputs, outputs));
    }
  }
  return outputs;
}

template <Op O>
OutputsOf<O> run(Context& context, const O& op, std::initializer_list<Tensor> inputs, OutputsOf<O> outputs = {}) {
  return run(context, op, std::span<const Tensor>(inputs.begin(), inputs.size()), std::move(outputs));
}

}  // namespace dino
