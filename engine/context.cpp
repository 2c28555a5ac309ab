#include "engine/run.h"
#include "kernels/cuda_memory.h"

namespace dino {

namespace {

/// `threads`, or UsageError for a number that no machine has: starting that many would end the program.
int checked_threads(int threads) {
  check<UsageError>(threads >= 0 && threads <= 4096, "--threads ", threads, " must lie between 0 (one per processor) and 4096");
  return threads;
}

}  // namespace

Context::Context(int threads, Device device) : device_(device), stream_(checked_threads(threads)) {
  if (device == Device::cuda) cuda_ = std::make_unique<CudaStream>();
  if (device == Device::cpu) return;
  own_device_arena_ = std::make_unique<Arena>(device);
  device_arena_ = own_device_arena_.get();
}

void Context::set_step(const StepScalars& step) {
  stream_.set_step(step);
  if (cuda_) cuda_->set_step(step);
}

Tensor Context::constant(double value, Dtype dtype, Device device) {
  Tensor& tensor = constants_[{value, dtype, device}];
  if (tensor.defined()) return tensor;
  tensor = allocate(device == Device::cpu ? arena_ : *own_device_arena_, {dtype, Shape{1}});
  with_float(dtype, [&](auto zero) {
    const auto exact = static_cast<decltype(zero)>(value);
    copy_from_host(&exact, tensor.view());
  });
  return tensor;
}

Tensor Context::on_device(const Tensor& tensor) {
  if (!tensor.defined() || tensor.device() == device()) return tensor;
  const Tensor result = this->tensor(tensor.spec());
  copy_from_host(tensor.view().data, result.view());
  return result;
}

Tensor Context::on_host(const Tensor& tensor) {
  if (!tensor.defined() || tensor.device() == Device::cpu) return tensor;
  const Tensor result = host_tensor(tensor.spec());
  copy_to_host(tensor.view(), result.view().data);
  return result;
}

void Context::upload(const void* from, const Tensor& to) {
  if (to.device() != Device::cuda) return copy_from_host(from, to.view());
  cuda_->upload(to.view().data, from, static_cast<size_t>(to.shape().count()) * bytes_of(to.dtype()));
}

Device device_named(const std::string& name) {
  if (name == "cpu") return Device::cpu;
  check<UsageError>(name == "auto" || name == "cuda", "--device ", name, " is not known (known: auto, cpu, cuda)");
  const std::string problem = cuda::problem();
  check<UsageError>(name == "auto" || problem.empty(), "--device cuda: ", problem);
  return problem.empty() ? Device::cuda : Device::cpu;
}

}  // namespace dino
