#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>

#include "abi/capture.h"
#include "abi/device.h"
#include "count/activity.h"
#include "memory/device_memory.h"

#pragma GCC visibility push(default)
#include <cuda_profiler_api.h>
#pragma GCC visibility pop

namespace emulator::abi {

const DeviceModel& device_model() {
  static constexpr DeviceModel h100 = {"NVIDIA H100 (emulated)",
                                       9,
                                       0,
                                       132,
                                       1755000,
                                       2619000,
                                       5120,
                                       50 << 20,
                                       32 << 20,
                                       32,
                                       48 << 10,
                                       227 << 10,
                                       228 << 10,
                                       1 << 10};
  static constexpr DeviceModel a100 = {"NVIDIA A100 (emulated)",
                                       8,
                                       0,
                                       108,
                                       1410000,
                                       1215000,
                                       5120,
                                       40 << 20,
                                       30 << 20,
                                       32,
                                       48 << 10,
                                       163 << 10,
                                       164 << 10,
                                       1 << 10};
  return options().arch >= 90 ? h100 : a100;
}

namespace {

struct Settings {
  std::atomic<unsigned> flags{0};
  std::atomic<cudaFuncCache> cache{cudaFuncCachePreferNone};
  std::size_t limits[7] = {1024, 1 << 20, 8 << 20, 2, 2048, 128, 0};
};
Settings& settings() {
  static auto* kept = new Settings;
  return *kept;
}

constexpr char kBusId[] = "0000:01:00.0";

}  // namespace
}  // namespace emulator::abi

using namespace emulator::abi;
using emulator::activity;

cudaError_t cudaGetDeviceCount(int* count) {
  if (!count) return leave("cudaGetDeviceCount", cudaErrorInvalidValue);
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  if (!device) return leave("cudaGetDevice", cudaErrorInvalidValue);
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return api("cudaSetDevice", [&](Lock&) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaInitDevice(int device, unsigned flags, unsigned are_valid) {
  return api("cudaInitDevice", [&](Lock&) -> cudaError_t {
    if (device != 0) return cudaErrorInvalidDevice;
    if (are_valid & cudaInitDeviceFlagsAreValid) settings().flags = flags;
    return cudaSuccess;
  });
}

cudaError_t cudaSetValidDevices(int* devices, int count) {
  return api("cudaSetValidDevices", [&](Lock&) {
    return count == 0 || (devices && count == 1 && devices[0] == 0) ? cudaSuccess : cudaErrorInvalidDevice;
  });
}

cudaError_t cudaChooseDevice(int* device, const cudaDeviceProp* properties) {
  return api("cudaChooseDevice", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(device && properties);
    *device = 0;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDeviceFlags(unsigned flags) {
  return api("cudaSetDeviceFlags", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE((flags & ~static_cast<unsigned>(cudaDeviceMask)) == 0);
    settings().flags = flags;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceFlags(unsigned* flags) {
  return api("cudaGetDeviceFlags", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(flags);
    *flags = settings().flags | cudaDeviceMapHost;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return api("cudaDeviceSynchronize", [](Lock& lock) -> cudaError_t {
    if (const cudaError_t error = check_no_capture("cudaDeviceSynchronize")) return error;
    ++activity().synchronizations;
    wait_for_all(lock);
    return sticky();
  });
}

cudaError_t cudaDeviceReset() {
  trace("cudaDeviceReset");
  Lock lock(device_mutex());
  wait_for_all(lock);
  forget_queue();
  unload_all();
  auto& memory = emulator::DeviceMemory::instance();
  for (const emulator::Extent& object : memory.live()) {
    if (object.kind != emulator::MemoryKind::registered) memory.release(object.begin);
  }
  clear_sticky();
  set_last_error(cudaSuccess);
  return cudaSuccess;
}

cudaError_t cudaDeviceSetLimit(cudaLimit limit, size_t value) {
  return api("cudaDeviceSetLimit", [&](Lock&) -> cudaError_t {
    if (limit < cudaLimitStackSize || limit > cudaLimitPersistingL2CacheSize)
      return cudaErrorUnsupportedLimit;
    settings().limits[limit] = value;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit limit) {
  return api("cudaDeviceGetLimit", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(value);
    if (limit < cudaLimitStackSize || limit > cudaLimitPersistingL2CacheSize)
      return cudaErrorUnsupportedLimit;
    *value = settings().limits[limit];
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache config) {
  return api("cudaDeviceSetCacheConfig", [&](Lock&) {
    settings().cache = config;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetCacheConfig(cudaFuncCache* config) {
  return api("cudaDeviceGetCacheConfig", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(config);
    *config = settings().cache;
    return cudaSuccess;
  });
}

// Banks of shared memory are always 4 bytes wide.
cudaError_t cudaDeviceSetSharedMemConfig(cudaSharedMemConfig) { return cudaSuccess; }
cudaError_t cudaFuncSetSharedMemConfig(const void*, cudaSharedMemConfig) { return cudaSuccess; }
cudaError_t cudaDeviceGetSharedMemConfig(cudaSharedMemConfig* config) {
  if (!config) return leave("cudaDeviceGetSharedMemConfig", cudaErrorInvalidValue);
  *config = cudaSharedMemBankSizeFourByte;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int device) {
  return api("cudaDeviceGetPCIBusId", [&](Lock&) -> cudaError_t {
    if (device != 0) return cudaErrorInvalidDevice;
    EMULATOR_REQUIRE(text && bytes > 12);
    std::strcpy(text, kBusId);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetByPCIBusId(int* device, const char* text) {
  return api("cudaDeviceGetByPCIBusId", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(device && text);
    if (std::string(text) != kBusId) return cudaErrorInvalidDevice;
    *device = 0;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  return api("cudaDeviceCanAccessPeer", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(can);
    *can = 0;
    return device == 0 && peer == 0 ? cudaSuccess : cudaErrorInvalidDevice;
  });
}

cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) {
  return api("cudaDeviceEnablePeerAccess", [](Lock&) { return cudaErrorInvalidDevice; });  // there is no peer
}
cudaError_t cudaDeviceDisablePeerAccess(int) {
  return api("cudaDeviceDisablePeerAccess", [](Lock&) { return cudaErrorPeerAccessNotEnabled; });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  if (!version) return leave("cudaRuntimeGetVersion", cudaErrorInvalidValue);
  *version = CUDART_VERSION;
  return cudaSuccess;
}
/// No part of CUDA: by it a program knows that it runs here, and may say so to its user.
extern "C" __attribute__((visibility("default"))) int cudaEmulatorVersion() { return 1; }

cudaError_t cudaDriverGetVersion(int* version) {
  if (!version) return leave("cudaDriverGetVersion", cudaErrorInvalidValue);
  *version = CUDART_VERSION;
  return cudaSuccess;
}

namespace {

cudaError_t driver_entry_point(const char* symbol, void** function, cudaDriverEntryPointQueryResult* status) {
  return api("cudaGetDriverEntryPoint", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(symbol && function);
    *function = nullptr;
    if (status) *status = cudaDriverEntryPointSymbolNotFound;
    not_supported(std::string("the driver function ") + symbol);
    return cudaSuccess;
  });
}

}  // namespace

cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long,
                                    cudaDriverEntryPointQueryResult* status) {
  return driver_entry_point(symbol, function, status);
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long, cudaDriverEntryPointQueryResult* status) {
  return driver_entry_point(symbol, function, status);
}

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

cudaChannelFormatDesc cudaCreateChannelDesc(int x, int y, int z, int w, cudaChannelFormatKind kind) {
  return {x, y, z, w, kind};
}
