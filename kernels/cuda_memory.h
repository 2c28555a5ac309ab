#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

/// Device memory and devices, for the layers that must not see CUDA. Without CUDA, nothing can be had and there are none.
namespace dino::cuda {

/// Memory of the current device, aligned to 256 bytes; null if it has no more.
std::byte* allocate(size_t bytes);
/// Memory of the host that the device copies from and to without a detour; null if the system has no more.
std::byte* allocate_pinned(size_t bytes);
void release(std::byte* memory);
void release_pinned(std::byte* memory);

/// Copies between any two places, after all ops that were started before; returns when it is done.
void copy(void* to, const void* from, size_t bytes);
/// Sets `rows` stretches of `width` bytes that lie `pitch` bytes apart to zero.
void clear(void* to, size_t pitch, size_t width, size_t rows);

/// Memory of the current device that nobody uses.
size_t free_bytes();

struct DeviceInfo {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  size_t bytes = 0;          ///< of memory
  int multiprocessors = 0;
};
std::vector<DeviceInfo> devices();

/// Why no op can run on a GPU, with what to do; empty if it can.
std::string problem();

/// What runs the kernels: "CUDA 13.0, driver 13.0", and whether that is an emulator.
std::string runtime();
bool emulated();

}  // namespace dino::cuda
