// Launch limits, attributes, occupancy, device properties. Any environment; CUDA_EMULATOR_ARCH=80 and 90.
// Prints findings of kind api on stderr, on purpose: run without CUDA_EMULATOR_FAIL.
#include <cstring>

#include "expect.h"

extern __shared__ int dynamic[];

__global__ void nothing() {}
__global__ void uses_dynamic(int* out) {
  dynamic[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = dynamic[blockDim.x - 1 - threadIdx.x];
}
__global__ void __launch_bounds__(64) bounded() {}

static bool is_90() {
  int major = 0;
  OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  return major == 9;
}

template <class... Arguments>
static cudaError_t launch(void (*kernel)(Arguments...), dim3 grid, dim3 block, std::size_t shared,
                          Arguments... arguments) {
  kernel<<<grid, block, shared>>>(arguments...);
  return cudaGetLastError();
}

static void test_dimensions() {
  OK(launch(nothing, dim3(1), dim3(1024), 0));
  OK(launch(nothing, dim3(2, 3, 4), dim3(4, 4, 64), 0));
  EXPECT_ERROR(cudaErrorInvalidConfiguration, launch(nothing, dim3(1), dim3(1025), 0));
  EXPECT_ERROR(cudaErrorInvalidConfiguration, launch(nothing, dim3(0), dim3(1), 0));
  EXPECT_ERROR(cudaErrorInvalidConfiguration, launch(nothing, dim3(1), dim3(0), 0));
  EXPECT_ERROR(cudaErrorInvalidConfiguration, launch(nothing, dim3(1), dim3(1, 1, 65), 0));
  EXPECT_ERROR(cudaErrorInvalidConfiguration, launch(nothing, dim3(1, 65536), dim3(1), 0));
  EXPECT_ERROR(cudaErrorInvalidConfiguration, launch(nothing, dim3(1), dim3(64, 32), 0));
  OK(launch(bounded, dim3(1), dim3(64), 0));
  EXPECT(launch(bounded, dim3(1), dim3(65), 0) != cudaSuccess);
  OK(cudaDeviceSynchronize());
}

static void test_shared_memory() {
  int *out = nullptr, last = 0;
  OK(cudaMalloc(&out, 128 * sizeof(int)));
  OK(launch(uses_dynamic, dim3(1), dim3(128), 48 << 10, out));
  OK(cudaMemcpy(&last, out, sizeof last, cudaMemcpyDeviceToHost));
  EXPECT(last == 127);
  EXPECT_ERROR(cudaErrorInvalidValue, launch(uses_dynamic, dim3(1), dim3(128), (48 << 10) + 1, out));
  const int most = is_90() ? 232448 : 166912;
  EXPECT_ERROR(cudaErrorInvalidValue,
               cudaFuncSetAttribute(uses_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, most + 1));
  (void)cudaGetLastError();
  OK(cudaFuncSetAttribute(uses_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  OK(launch(uses_dynamic, dim3(1), dim3(128), most, out));
  cudaFuncAttributes attributes{};
  OK(cudaFuncGetAttributes(&attributes, uses_dynamic));
  EXPECT(attributes.maxDynamicSharedSizeBytes == most && attributes.maxThreadsPerBlock == 1024);
  OK(cudaFuncGetAttributes(&attributes, bounded));
  EXPECT(attributes.maxThreadsPerBlock == 64);
  OK(cudaFree(out));
  (void)cudaGetLastError();
}

static void test_functions() {
  EXPECT_ERROR(cudaErrorInvalidDeviceFunction,
               cudaLaunchKernel(nullptr, dim3(1), dim3(1), nullptr, 0, nullptr));
  int not_a_kernel = 0;
  EXPECT_ERROR(cudaErrorInvalidDeviceFunction,
               cudaLaunchKernel(&not_a_kernel, dim3(1), dim3(1), nullptr, 0, nullptr));
  int *a = nullptr, value = 4, n = 16, back = 0;
  OK(cudaMalloc(&a, n * sizeof(int)));
  OK(cudaMemset(a, 0, n * sizeof(int)));
  void* arguments[] = {&a, &value, &n};
  OK(cudaLaunchKernel(reinterpret_cast<const void*>(add_value), dim3(1), dim3(32), arguments, 0, nullptr));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributePriority;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  config.attrs = &attribute;
  config.numAttrs = 1;
  OK(cudaLaunchKernelEx(&config, add_value, a, value, n));
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {2, 1, 1};
  EXPECT_ERROR(cudaErrorNotSupported, cudaLaunchKernelEx(&config, add_value, a, value, n));
  cudaFunction_t function = nullptr;
  OK(cudaGetFuncBySymbol(&function, reinterpret_cast<const void*>(add_value)));
  OK(cudaLaunchKernel(function, dim3(1), dim3(32), arguments, 0, nullptr));
  OK(cudaMemcpy(&back, a, sizeof back, cudaMemcpyDeviceToHost));
  EXPECT(back == 12);
  OK(cudaFree(a));
  (void)cudaGetLastError();
}

static void test_cooperative() {
  int blocks = 0, multiprocessors = 0;
  OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, nothing, 256, 0));
  OK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  EXPECT(blocks == 8);
  EXPECT(multiprocessors == (is_90() ? 132 : 108));
  OK(cudaLaunchCooperativeKernel(nothing, dim3(static_cast<unsigned>(blocks * multiprocessors)), dim3(256),
                                 nullptr));
  EXPECT_ERROR(cudaErrorCooperativeLaunchTooLarge,
               cudaLaunchCooperativeKernel(nothing, dim3(static_cast<unsigned>(blocks * multiprocessors + 1)),
                                           dim3(256), nullptr));
  (void)cudaGetLastError();
  OK(cudaDeviceSynchronize());
}

static void test_occupancy() {
  int blocks = 0, grid = 0, block = 0;
  OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, nothing, 32, 0));
  EXPECT(blocks == 32);
  OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, nothing, 1024, 0));
  EXPECT(blocks == 2);
  OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, nothing, 128,
                                                   40 << 10));  // 41 KiB with the reserved one
  EXPECT(blocks == (is_90() ? 5 : 4));
  OK(cudaOccupancyMaxPotentialBlockSize(&grid, &block, nothing));
  EXPECT(block == 1024 && grid == 2 * (is_90() ? 132 : 108));
  std::size_t bytes = 0;
  OK(cudaOccupancyAvailableDynamicSMemPerBlock(&bytes, nothing, 2, 256));
  EXPECT(bytes == (is_90() ? 113u << 10 : 81u << 10));
}

static void test_device() {
  int count = 0, device = -1, value = 0;
  OK(cudaGetDeviceCount(&count));
  EXPECT(count == 1);
  OK(cudaSetDevice(0));
  EXPECT_ERROR(cudaErrorInvalidDevice, cudaSetDevice(1));
  OK(cudaGetDevice(&device));
  EXPECT(device == 0);
  cudaDeviceProp properties{};
  OK(cudaGetDeviceProperties(&properties, 0));
  EXPECT_ERROR(cudaErrorInvalidDevice, cudaGetDeviceProperties(&properties, 1));
  EXPECT(std::strstr(properties.name, "emulated") != nullptr);
  EXPECT(properties.warpSize == 32 && properties.sharedMemPerBlockOptin == (is_90() ? 232448u : 166912u));
  OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  EXPECT(value == static_cast<int>(properties.sharedMemPerBlockOptin));
  OK(cudaDeviceGetAttribute(&value, cudaDevAttrClockRate, 0));
  EXPECT(value > 1000000);
  OK(cudaRuntimeGetVersion(&value));
  EXPECT(value == 13000);
  OK(cudaDriverGetVersion(&value));
  EXPECT(value == 13000);
  std::size_t limit = 0;
  OK(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 1 << 24));
  OK(cudaDeviceGetLimit(&limit, cudaLimitMallocHeapSize));
  EXPECT(limit == 1 << 24);
  cudaArray_t array = nullptr;
  const cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
  EXPECT_ERROR(cudaErrorNotSupported,
               cudaMallocArray(&array, &format, 16, 16));  // not implemented: fails loudly
  (void)cudaGetLastError();
}

int main() {
  test_device();
  test_dimensions();
  test_shared_memory();
  test_functions();
  test_cooperative();
  test_occupancy();
  return status();
}
