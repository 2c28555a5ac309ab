#include "kernels/cuda_memory.h"

#include <dlfcn.h>

#include "kernels/launch.cuh"

namespace dino::cuda {

std::byte* allocate(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cuda memory");
  return static_cast<std::byte*>(memory);
}

std::byte* allocate_pinned(size_t bytes) {
  void* memory = nullptr;
  if (cudaMallocHost(&memory, bytes) == cudaSuccess) return static_cast<std::byte*>(memory);
  cudaGetLastError();
  return nullptr;
}

// Memory is released by destructors, where nothing can be done about a failure.
void release(std::byte* memory) { cudaFree(memory); }
void release_pinned(std::byte* memory) { cudaFreeHost(memory); }

void copy(void* to, const void* from, size_t bytes) { check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "copy"); }

void clear(void* to, size_t pitch, size_t width, size_t rows) {
  if (width > 0 && rows > 0) check(cudaMemset2DAsync(to, pitch, 0, width, rows), "clear");
}

size_t free_bytes() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cuda memory");
  return free;
}

std::vector<DeviceInfo> devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  std::vector<DeviceInfo> result;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, device), "cuda devices");
    result.push_back({.name = properties.name,
                      .major = properties.major,
                      .minor = properties.minor,
                      .bytes = properties.totalGlobalMem,
                      .multiprocessors = properties.multiProcessorCount});
  }
  return result;
}

inline namespace cuda_memory_cu {

__global__ void probe() {}

/// Whether the kernels of this build can run on the current device.
std::string coverage() {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, probe);
  if (status == cudaSuccess) return {};
  cudaGetLastError();
  const std::vector<DeviceInfo> all = devices();
  return str("this build has no kernels for ", all.empty() ? "this GPU" : all.front().name, " (compute capability ",
             all.empty() ? 0 : all.front().major, ".", all.empty() ? 0 : all.front().minor,
             "): 8.0 and later are covered; on such a GPU, rebuild with -DCMAKE_CUDA_ARCHITECTURES=native, else use --device cpu");
}

}  // namespace cuda_memory_cu

std::string problem() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  switch (status) {
    case cudaSuccess:
      return count > 0 ? coverage() : "no CUDA device was found; use --device cpu";
    case cudaErrorNoDevice:
      return "no CUDA device was found (is CUDA_VISIBLE_DEVICES set?); use --device cpu";
    case cudaErrorInsufficientDriver:
      return "no NVIDIA driver for CUDA 13 was found: install driver 580 or later, or use --device cpu";
    default:
      return str("CUDA cannot start: ", cudaGetErrorString(status), "; check nvidia-smi, or use --device cpu");
  }
}

std::string runtime() {
  int version = 0, driver = 0;
  if (cudaRuntimeGetVersion(&version) != cudaSuccess || cudaDriverGetVersion(&driver) != cudaSuccess) cudaGetLastError();
  return str("CUDA ", version / 1000, ".", version % 1000 / 10, ", driver ", driver / 1000, ".", driver % 1000 / 10);
}

bool emulated() { return dlsym(RTLD_DEFAULT, "cudaEmulatorVersion") != nullptr; }

}  // namespace dino::cuda
