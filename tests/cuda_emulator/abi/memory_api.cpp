#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "abi/capture.h"
#include "abi/memory_calls.h"
#include "count/activity.h"
#include "memory/device_memory.h"

namespace emulator::abi {
namespace {

DeviceMemory& memory() { return DeviceMemory::instance(); }

std::unordered_set<std::uint64_t>& scheduled_frees() {
  static auto* frees = new std::unordered_set<std::uint64_t>;
  return *frees;
}

/// Flags of pinned and registered memory, for cudaHostGetFlags.
std::unordered_map<std::uint64_t, unsigned>& host_flags() {
  static auto* flags = new std::unordered_map<std::uint64_t, unsigned>;
  return *flags;
}

bool is_device_kind(MemoryKind kind) { return kind == MemoryKind::device || kind == MemoryKind::managed; }

/// The object that starts at `pointer` and may be freed by `call`.
cudaError_t check_free(const void* pointer, const char* call, bool (*fits)(MemoryKind)) {
  const std::uint64_t address = address_of(pointer);
  const Extent* object = memory().find(address);
  if (object && object->begin == address && fits(object->kind) && !scheduled_frees().count(address))
    return cudaSuccess;
  std::string why = memory().describe(address);
  if (object && scheduled_frees().count(object->begin))
    why = "freed already, with cudaFreeAsync";
  else if (object && !fits(object->kind))
    why += ", which another function allocated";
  return broken_rule(cudaErrorInvalidValue, std::string(call) + ": " + hex(address) +
                                                " is not what an allocation returned, or was freed: " + why);
}

}  // namespace

cudaError_t allocate(void** pointer, std::size_t bytes, MemoryKind kind) {
  EMULATOR_REQUIRE(pointer);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  const std::uint64_t address = memory().allocate(bytes, kind);
  if (address == 0) return cudaErrorMemoryAllocation;
  ++activity().allocations;
  *pointer = pointer_to(address);
  if (is_tracing()) trace("  " + std::to_string(bytes) + " bytes at " + hex(address));
  return cudaSuccess;
}

void end_scheduled_free(std::uint64_t address) { scheduled_frees().erase(address); }

}  // namespace emulator::abi

using namespace emulator::abi;
using emulator::Extent;
using emulator::MemoryKind;

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return api("cudaMalloc", [&](Lock&) -> cudaError_t {
    if (const cudaError_t error = check_unsafe_call("cudaMalloc")) return error;
    return allocate(pointer, bytes, MemoryKind::device);
  });
}

cudaError_t cudaMallocManaged(void** pointer, size_t bytes, unsigned flags) {
  return api("cudaMallocManaged", [&](Lock&) -> cudaError_t {
    if (const cudaError_t error = check_unsafe_call("cudaMallocManaged")) return error;
    EMULATOR_REQUIRE(bytes > 0 && (flags == cudaMemAttachGlobal || flags == cudaMemAttachHost));
    return allocate(pointer, bytes, MemoryKind::managed);
  });
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  return api("cudaHostAlloc", [&](Lock&) -> cudaError_t {
    if (const cudaError_t error = check_unsafe_call("cudaHostAlloc")) return error;
    EMULATOR_REQUIRE((flags & ~(cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined)) ==
                     0);
    if (const cudaError_t error = allocate(pointer, bytes, MemoryKind::pinned)) return error;
    if (*pointer) host_flags()[address_of(*pointer)] = flags | cudaHostAllocMapped;
    return cudaSuccess;
  });
}

cudaError_t cudaMallocPitch(void** pointer, size_t* pitch, size_t width, size_t height) {
  return api("cudaMallocPitch", [&](Lock&) -> cudaError_t {
    if (const cudaError_t error = check_unsafe_call("cudaMallocPitch")) return error;
    EMULATOR_REQUIRE(pitch);
    *pitch = (width + kPitchUnit - 1) / kPitchUnit * kPitchUnit;
    return allocate(pointer, *pitch * height, MemoryKind::device);
  });
}

cudaError_t cudaMalloc3D(cudaPitchedPtr* pointer, cudaExtent extent) {
  return api("cudaMalloc3D", [&](Lock&) -> cudaError_t {
    if (const cudaError_t error = check_unsafe_call("cudaMalloc3D")) return error;
    EMULATOR_REQUIRE(pointer);
    pointer->pitch = (extent.width + kPitchUnit - 1) / kPitchUnit * kPitchUnit;
    pointer->xsize = extent.width;
    pointer->ysize = extent.height;
    return allocate(&pointer->ptr, pointer->pitch * extent.height * extent.depth, MemoryKind::device);
  });
}

cudaError_t cudaFree(void* pointer) {
  return api("cudaFree", [&](Lock& lock) -> cudaError_t {
    if (!pointer) return cudaSuccess;
    if (const cudaError_t error = check_unsafe_call("cudaFree")) return error;
    if (const cudaError_t error = check_free(pointer, "cudaFree", is_device_kind)) return error;
    wait_for_all(lock);  // freeing waits for the device
    if (sticky() != cudaSuccess) return sticky();
    memory().release(address_of(pointer));
    return cudaSuccess;
  });
}

cudaError_t cudaFreeHost(void* pointer) {
  return api("cudaFreeHost", [&](Lock& lock) -> cudaError_t {
    if (!pointer) return cudaSuccess;
    if (const cudaError_t error = check_unsafe_call("cudaFreeHost")) return error;
    if (const cudaError_t error =
            check_free(pointer, "cudaFreeHost", [](MemoryKind kind) { return kind == MemoryKind::pinned; }))
      return error;
    wait_for_all(lock);
    host_flags().erase(address_of(pointer));
    memory().release(address_of(pointer));
    return cudaSuccess;
  });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t handle) {
  return api("cudaFreeAsync", [&](Lock& lock) -> cudaError_t {
    Stream* stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!pointer) return cudaSuccess;
    if (stream->capture) {
      invalidate(*stream->capture);
      return not_supported("cudaFreeAsync in a stream that is being captured");
    }
    if (const cudaError_t error = check_free(pointer, "cudaFreeAsync", is_device_kind)) return error;
    scheduled_frees().insert(address_of(pointer));
    return submit(lock, *stream, Release{address_of(pointer)});
  });
}

cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned flags) {
  return api("cudaHostRegister", [&](Lock&) -> cudaError_t {
    if (const cudaError_t error = check_unsafe_call("cudaHostRegister")) return error;
    EMULATOR_REQUIRE(pointer && bytes > 0 && (flags & ~0x0Fu) == 0);
    if (place_of(address_of(pointer)) == Place::device) return cudaErrorInvalidValue;
    if (!memory().add_registered(pointer, bytes)) return cudaErrorHostMemoryAlreadyRegistered;
    host_flags()[address_of(pointer)] = flags | cudaHostRegisterMapped;
    return cudaSuccess;
  });
}

cudaError_t cudaHostUnregister(void* pointer) {
  return api("cudaHostUnregister", [&](Lock& lock) -> cudaError_t {
    const Extent* object = memory().find(address_of(pointer));
    if (!object || object->begin != address_of(pointer) || object->kind != MemoryKind::registered)
      return cudaErrorHostMemoryNotRegistered;
    wait_for_all(lock);
    host_flags().erase(address_of(pointer));
    memory().release(address_of(pointer));
    return cudaSuccess;
  });
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned flags) {
  return api("cudaHostGetDevicePointer", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(device && flags == 0 && place_of(address_of(host)) == Place::pinned);
    *device = host;
    return cudaSuccess;
  });
}

cudaError_t cudaHostGetFlags(unsigned* flags, void* pointer) {
  return api("cudaHostGetFlags", [&](Lock&) -> cudaError_t {
    const Extent* object = memory().find(address_of(pointer));
    EMULATOR_REQUIRE(flags && object && host_flags().count(object->begin));
    *flags = host_flags()[object->begin];
    return cudaSuccess;
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return api("cudaMemGetInfo", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(free && total);
    *total = memory().capacity();
    *free = *total - std::min<size_t>(*total, memory().in_use());
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return api("cudaPointerGetAttributes", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(attributes);
    *attributes = {};
    const bool known = memory().find(address_of(pointer)) != nullptr;
    const Place place = known ? place_of(address_of(pointer)) : Place::pageable;
    attributes->type = place == Place::device    ? cudaMemoryTypeDevice
                       : place == Place::managed ? cudaMemoryTypeManaged
                       : place == Place::pinned  ? cudaMemoryTypeHost
                                                 : cudaMemoryTypeUnregistered;
    attributes->device = place == Place::pageable ? cudaInvalidDeviceId : 0;
    attributes->devicePointer = place == Place::pageable ? nullptr : const_cast<void*>(pointer);
    attributes->hostPointer = place == Place::device ? nullptr : const_cast<void*>(pointer);
    return cudaSuccess;
  });
}

cudaError_t cudaMemAdvise(const void* pointer, size_t bytes, cudaMemoryAdvise, cudaMemLocation) {
  return api("cudaMemAdvise", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(bytes > 0 && place_of(address_of(pointer)) == Place::managed &&
                     memory().host(address_of(pointer), bytes));
    return cudaSuccess;
  });
}

cudaError_t cudaMemPrefetchAsync(const void* pointer, size_t bytes, cudaMemLocation, unsigned flags,
                                 cudaStream_t handle) {
  return api("cudaMemPrefetchAsync", [&](Lock&) -> cudaError_t {
    if (!find_stream(handle)) return cudaErrorInvalidResourceHandle;
    EMULATOR_REQUIRE(flags == 0 && bytes > 0 && place_of(address_of(pointer)) == Place::managed &&
                     memory().host(address_of(pointer), bytes));
    return cudaSuccess;
  });
}
