#include <algorithm>
#include <unordered_set>

#include "abi/capture.h"
#include "abi/memory_calls.h"
#include "memory/device_memory.h"

// Stream-ordered allocation. Memory of a pool is ordinary device memory here: pools only keep their settings.

namespace {

using namespace emulator::abi;
using emulator::DeviceMemory;
using emulator::MemoryKind;

struct Pool {
  bool is_default = false;
  std::uint64_t release_threshold = 0;
  int reuse[3] = {1, 1, 1};
};

struct Pools {
  Pool standard{true, 0, {1, 1, 1}};
  std::unordered_set<Pool*> created;
  Pool* current = &standard;
};

Pools& pools() {
  static auto* all = new Pools;
  return *all;
}

Pool* find_pool(cudaMemPool_t handle) {
  auto* pool = reinterpret_cast<Pool*>(handle);
  return pool == &pools().standard || pools().created.count(pool) ? pool : nullptr;
}

cudaMemPool_t handle_of(Pool* pool) { return reinterpret_cast<cudaMemPool_t>(pool); }

cudaError_t allocate_in_order(void** pointer, std::size_t bytes, cudaStream_t handle, const char* call) {
  Stream* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    invalidate(*stream->capture);
    return not_supported(std::string(call) + " in a stream that is being captured");
  }
  return allocate(pointer, bytes, MemoryKind::device);
}

}  // namespace

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return api("cudaMallocAsync",
             [&](Lock&) { return allocate_in_order(pointer, bytes, stream, "cudaMallocAsync"); });
}

cudaError_t cudaMallocFromPoolAsync(void** pointer, size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  return api("cudaMallocFromPoolAsync", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(find_pool(pool));
    return allocate_in_order(pointer, bytes, stream, "cudaMallocFromPoolAsync");
  });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return api("cudaDeviceGetDefaultMemPool", [&](Lock&) -> cudaError_t {
    if (device != 0) return cudaErrorInvalidDevice;
    EMULATOR_REQUIRE(pool);
    *pool = handle_of(&pools().standard);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
  return api("cudaDeviceGetMemPool", [&](Lock&) -> cudaError_t {
    if (device != 0) return cudaErrorInvalidDevice;
    EMULATOR_REQUIRE(pool);
    *pool = handle_of(pools().current);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSetMemPool(int device, cudaMemPool_t handle) {
  return api("cudaDeviceSetMemPool", [&](Lock&) -> cudaError_t {
    if (device != 0) return cudaErrorInvalidDevice;
    EMULATOR_REQUIRE(find_pool(handle));
    pools().current = find_pool(handle);
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* handle, const cudaMemPoolProps* properties) {
  return api("cudaMemPoolCreate", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(handle && properties);
    if (properties->location.type != cudaMemLocationTypeDevice)
      return not_supported("a memory pool on the host");
    if (properties->location.id != 0) return cudaErrorInvalidDevice;
    Pool* pool = *pools().created.insert(new Pool).first;
    *handle = handle_of(pool);
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t handle) {
  return api("cudaMemPoolDestroy", [&](Lock&) -> cudaError_t {
    Pool* pool = find_pool(handle);
    EMULATOR_REQUIRE(pool && !pool->is_default);
    pools().created.erase(pool);
    if (pools().current == pool) pools().current = &pools().standard;
    delete pool;
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t handle, size_t) {
  return api("cudaMemPoolTrimTo", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(find_pool(handle));
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  return api("cudaMemPoolSetAttribute", [&](Lock&) -> cudaError_t {
    Pool* pool = find_pool(handle);
    EMULATOR_REQUIRE(pool && value);
    if (attribute >= cudaMemPoolReuseFollowEventDependencies &&
        attribute <= cudaMemPoolReuseAllowInternalDependencies) {
      pool->reuse[attribute - cudaMemPoolReuseFollowEventDependencies] = *static_cast<int*>(value);
      return cudaSuccess;
    }
    if (attribute == cudaMemPoolAttrReleaseThreshold) {
      pool->release_threshold = *static_cast<std::uint64_t*>(value);
      return cudaSuccess;
    }
    const bool resets_mark =
        attribute == cudaMemPoolAttrReservedMemHigh || attribute == cudaMemPoolAttrUsedMemHigh;
    return resets_mark && *static_cast<std::uint64_t*>(value) == 0 ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  return api("cudaMemPoolGetAttribute", [&](Lock&) -> cudaError_t {
    Pool* pool = find_pool(handle);
    EMULATOR_REQUIRE(pool && value && attribute >= cudaMemPoolReuseFollowEventDependencies &&
                     attribute <= cudaMemPoolAttrUsedMemHigh);
    if (attribute <= cudaMemPoolReuseAllowInternalDependencies) {
      *static_cast<int*>(value) = pool->reuse[attribute - cudaMemPoolReuseFollowEventDependencies];
    } else {
      const std::uint64_t used = DeviceMemory::instance().in_use();
      *static_cast<std::uint64_t*>(value) =
          attribute == cudaMemPoolAttrReleaseThreshold ? pool->release_threshold : used;
    }
    return cudaSuccess;
  });
}
