#pragma once

#include "tests/cuda/device_buffer.h"
#include "tests/op_compare.h"

/// What tests of ops on the GPU need: forward and backward in one call, on inputs from the host.
namespace dino::test {

/// Outputs of an op on the device; inputs are copied there.
template <class O>
Buffers cuda_forward(const O& op, const Buffers& in) {
  Buffers out;
  for (const Spec& spec : op.infer(specs(in))) out.emplace_back(spec);
  const DeviceBuffers device_in = on_device(in), device_out = on_device(out, true);
  op.forward(cuda_stream(), views(device_in), views(device_out));
  Buffers result = on_host(device_out);
  CHECK(guards_intact(device_in));
  CHECK(guards_intact(device_out));
  return result;
}

/// Gradients of all inputs of an op on the device. With `before` they are added to what that holds. What the masks of
/// `keep` leave out has a shape, but no data.
template <class O>
Buffers cuda_backward(const O& op, const Buffers& in, const Buffers& out, const Buffers& dout, const Buffers* before = nullptr,
                      Keep keep = {~0u, ~0u}, uint32_t wanted = ~0u) {
  const DeviceBuffers device_in = on_device(in), device_out = on_device(out), device_dout = on_device(dout);
  const DeviceBuffers device_din = before ? on_device(*before) : on_device(make_input_gradients<O>(in), true);
  const auto kept = [](const DeviceBuffers& buffers, uint32_t mask) {
    std::vector<View> result;
    for (size_t i = 0; i < buffers.size(); ++i)
      result.push_back(mask >> i & 1 ? buffers[i].view() : buffers[i].without_data());
    return result;
  };
  std::vector<Grad> modes = grads(device_din, before ? GradMode::add : GradMode::write);
  for (size_t i = 0; i < modes.size(); ++i)
    if (!(wanted >> i & 1)) modes[i].mode = GradMode::skip;
  op.backward(cuda_stream(), kept(device_in, keep.inputs), kept(device_out, keep.outputs), views(device_dout), modes);
  Buffers result;
  for (size_t i = 0; i < device_din.size(); ++i)
    result.push_back(wanted >> i & 1 ? device_din[i].host() : Buffer());
  CHECK(guards_intact(device_din));
  CHECK(guards_intact(device_in));
  return result;
}

}  // namespace dino::test
