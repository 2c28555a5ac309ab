#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "engine/tape.h"
#include "engine/tensor.h"
#include "kernels/stream.h"
#include "kernels/widened.h"

namespace dino {

/// Where computing happens: streams, the memory of their tensors, and the tape that is recording, if any. Ops run where
/// their inputs lie: the CPU is always there, a GPU if the context is made for it. It must outlive its tensors.
class Context {
 public:
  /// Throws UsageError, with what to do, if `device` is a GPU that cannot be used.
  explicit Context(int threads = 0, Device device = Device::cpu);

  /// Where networks and their training live.
  Device device() const { return device_; }
  CpuStream& stream() { return stream_; }
  ThreadPool& pool() { return stream_.pool(); }
  /// Only if `device()` is a GPU.
  CudaStream& cuda() { return *cuda_; }
  Arena& arena(Device device) { return device == Device::cpu ? arena_ : *device_arena_; }
  Arena& arena() { return arena(device()); }
  Tape* tape() const { return tape_; }

  /// Hands the scalars of the next step to all streams.
  void set_step(const StepScalars& step);
  const StepScalars& step() const { return stream_.step(); }

  /// An uninitialised tensor.
  Tensor tensor(Spec spec, Device device) { return allocate(arena(device), spec); }
  Tensor tensor(Spec spec) { return tensor(spec, device()); }
  Tensor host_tensor(Spec spec) { return tensor(spec, Device::cpu); }
  /// A tensor [1] that always holds `value`.
  Tensor constant(double value, Dtype dtype, Device device);
  /// The tensor itself, or a copy of it, where the context computes; and where the host can read it.
  Tensor on_device(const Tensor& tensor);
  Tensor on_host(const Tensor& tensor);

  /// Copies to a dense tensor from host memory that may change right after, in order with the ops; on a GPU without waiting.
  void upload(const void* from, const Tensor& to);

  /// While a step is only planned: the largest scratch memory that one op would take on the host, in bytes.
  size_t planned_scratch() const { return planned_scratch_; }
  void plan_scratch(size_t bytes) { planned_scratch_ = std::max(planned_scratch_, bytes); }

  /// Until the next call, new tensors of a device other than the CPU lie in `arena` (null: the context's own): how the
  /// memory of a recorded graph is kept apart.
  void use_arena(Arena* arena) { device_arena_ = arena ? arena : own_device_arena_.get(); }

 private:
  friend class Tape;
  Device device_;
  CpuStream stream_;
  Arena arena_;
  std::unique_ptr<CudaStream> cuda_;
  std::unique_ptr<Arena> own_device_arena_;
  Arena* device_arena_ = nullptr;
  std::map<std::tuple<double, Dtype, Device>, Tensor> constants_;
  Tape* tape_ = nullptr;
  size_t planned_scratch_ = 0;
};

/// The device that `name` stands for: cpu, cuda, or auto (a GPU if one can be used). Throws UsageError for other names, and
/// with what to do for a GPU that cannot be used.
Device device_named(const std::string& name);

/// The outputs of an op, by its own `Outputs` names.
template <Op O>
using OutputsOf = std::array<Tensor, O::kOutputs.size()>;

namespace detail {

/// Calls f(stream) with the stream of `device`: the one place where a device becomes a stream type.
template <class F>
void on_stream(Context& context, Device device, const F& f) {
  if constexpr (kWithCuda)
    if (device == Device::cuda) return f(context.cuda());
  if (device == Device::cpu) f(context.stream());
}

/// Where the present tensors lie. Throws Error unless that is one device.
template <class O>
Device device_of(std::span<const Tensor> inputs) {
  const Tensor* first = nullptr;
  for (const Tensor& input : inputs) {
    if (!input.defined()) continue;
    if (!first) first = &input;
    check(input.device() == first->device(), O::kName, ": all inputs must lie on one device");
  }
  return first ? first->device() : Device::cpu;
}

/// The gradient of an output may be of a wider type than the output.
template <class O>
Spec gradient_spec(Spec output, size_t i) {
  if constexpr (requires { O::kWideOutputGradients; })
    if (O::kWideOutputGradients >> i & 1) output.dtype = wide(output.dtype);
  return output;
}

/// What the tape needs of one executed op: values that backward reads, and the gradient slots of inputs and outputs.
template <DifferentiableOp O>
class OpNode final : public TapeNode {
 public:
  OpNode(const O& op, std::span<const Tensor> inputs, std::span<const Tensor> outputs) : op_(op) {
    const Keep keep = op.keep();
    device_ = device_of<O>(inputs);
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
      if (!in[i].defined() && input_specs_[i].defined()) in[i] = View(nullptr, input_specs_[i].dtype, input_specs_[i].shape, 0, device_);
      if (input_grads_[i]) din[i] = input_grads_[i]->touch();
    }
    on_stream(context, device_, [&](auto& stream) { backward_on(op_, stream, in, out, dout, din); });
  }

 private:
  O op_;
  Device device_;
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
  const Device device = detail::device_of<O>(inputs);
  std::array<View, O::kOutputs.size()> out;
  for (size_t i = 0; i < out.size(); ++i) {
    if (!out_specs[i].defined()) continue;  // an output that was not asked for
    if (!outputs[i].defined()) outputs[i] = context.tensor(out_specs[i], device);
    check(outputs[i].spec() == out_specs[i], O::kName, ": output ", O::kOutputs[i], " must be ", out_specs[i].shape,
          "; got ", outputs[i].shape());
    out[i] = outputs[i].view();
  }
  detail::on_stream(context, device, [&](auto& stream) { forward_on(op, stream, in, out); });
  if constexpr (requires { op.host_scratch(specs); })
    if (device == Device::plan) context.plan_scratch(op.host_scratch(specs));
  if constexpr (DifferentiableOp<O>) {
    bool wanted = false;
    for (size_t i = 0; i < inputs.size(); ++i) wanted = wanted || ((O::kDifferentiable >> i & 1) && inputs[i].grad());
    if (context.tape() && wanted) {
      for (size_t i = 0; i < outputs.size(); ++i)
        if (outputs[i].defined())
          outputs[i].set_grad(std::make_shared<GradSlot>(&context.arena(device), detail::gradient_spec<O>(outputs[i].spec(), i)));
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
