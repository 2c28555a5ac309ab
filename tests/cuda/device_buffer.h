#pragma once

#include <cstring>

#include "kernels/cuda_memory.h"
#include "tests/op_harness.h"

/// Copies of buffers on the device, with guards around them, and the ways in which an op may run there.
namespace dino::test {

/// Device memory of one tensor between two guard zones. It is not written unless asked for, so that whoever checks for
/// reads of such memory sees them; on a GPU, where nobody does, it starts out as NaN.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// A copy of the buffer's values and layout, or with `empty` only of its layout.
  explicit DeviceBuffer(const Buffer& host, bool empty = false) : layout_(host.view()) {
    if (!host.defined()) return;
    bytes_ = host.bytes();
    memory_.reset(cuda::allocate(bytes_ + 2 * kGuard));
    check(memory_ != nullptr, "tests: the device has no memory left");
    const std::vector<unsigned char> marks(kGuard, kMark);
    cuda::copy(memory_.get(), marks.data(), kGuard);
    cuda::copy(memory_.get() + kGuard + bytes_, marks.data(), kGuard);
    if (!empty) {
      cuda::copy(memory_.get() + kGuard, host.data(), bytes_);
    } else if (!cuda::emulated()) {
      const std::vector<unsigned char> nan(bytes_, 0xFF);
      cuda::copy(memory_.get() + kGuard, nan.data(), bytes_);
    }
  }

  bool defined() const { return memory_ != nullptr; }
  View view() const {
    if (!defined()) return {};
    return View(memory_.get() + kGuard, layout_.dtype, layout_.shape, layout_.row_stride, Device::cuda);
  }
  View without_data() const {
    return defined() ? View(nullptr, layout_.dtype, layout_.shape, layout_.row_stride, Device::cuda) : View();
  }

  /// The values, in host memory.
  Buffer host() const {
    if (!defined()) return {};
    Buffer result(Spec{layout_.dtype, layout_.shape}, layout_.row_stride - layout_.shape.cols());
    cuda::copy(result.data(), memory_.get() + kGuard, bytes_);
    return result;
  }

  bool guards_intact() const {
    if (!defined()) return true;
    std::vector<unsigned char> zones(2 * kGuard);
    cuda::copy(zones.data(), memory_.get(), kGuard);
    cuda::copy(zones.data() + kGuard, memory_.get() + kGuard + bytes_, kGuard);
    return std::all_of(zones.begin(), zones.end(), [](int c) { return c == kMark; });
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr unsigned char kMark = 0xA5;
  struct Free {
    void operator()(std::byte* p) const { cuda::release(p); }
  };
  View layout_;
  size_t bytes_ = 0;
  std::unique_ptr<std::byte, Free> memory_;
};

using DeviceBuffers = std::vector<DeviceBuffer>;

inline DeviceBuffers on_device(const Buffers& buffers, bool empty = false) {
  DeviceBuffers result;
  for (const Buffer& buffer : buffers) result.emplace_back(buffer, empty);
  return result;
}
inline Buffers on_host(const DeviceBuffers& buffers) {
  Buffers result;
  for (const DeviceBuffer& buffer : buffers) result.push_back(buffer.host());
  return result;
}
inline std::vector<View> views(const DeviceBuffers& buffers) {
  std::vector<View> result;
  for (const DeviceBuffer& buffer : buffers) result.push_back(buffer.view());
  return result;
}
inline bool guards_intact(const DeviceBuffers& buffers) {
  return std::all_of(buffers.begin(), buffers.end(), [](const DeviceBuffer& b) { return b.guards_intact(); });
}
inline std::vector<Grad> grads(const DeviceBuffers& din, GradMode mode) {
  std::vector<Grad> result;
  for (const DeviceBuffer& buffer : din) result.push_back(buffer.defined() ? Grad{buffer.view(), mode} : Grad{});
  return result;
}

/// The stream of all tests, in the midst of step `kStep`.
inline CudaStream& cuda_stream() {
  static CudaStream stream;
  stream.set_step(kStep);
  return stream;
}

}  // namespace dino::test
