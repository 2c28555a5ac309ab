#include "abi/host_work.h"

#include "abi/streams.h"
#include "memory/device_memory.h"

namespace emulator::host {

int enqueue(void* handle, const char* name, std::function<void()> work) {
  return abi::api(name, [&](abi::Lock& lock) -> cudaError_t {
    abi::Stream* stream = abi::find_stream(static_cast<cudaStream_t>(handle));
    if (!stream) return cudaErrorInvalidResourceHandle;
    return abi::submit(lock, *stream, abi::LibraryCall{name, std::move(work)});
  });
}

void* device_range(const void* address, std::size_t bytes) {
  return DeviceMemory::instance().host(abi::address_of(address), bytes);
}

bool is_initialized(const void* address, std::size_t bytes) {
  return DeviceMemory::instance().is_initialized(abi::address_of(address), bytes);
}

void poison_unwritten(const void* address, std::size_t bytes) {
  DeviceMemory& memory = DeviceMemory::instance();
  const std::uint64_t at = abi::address_of(address);
  if (std::uint8_t* const host = memory.host(at, bytes)) memory.poison_uninitialized(host, at, bytes);
}

void mark_initialized(const void* address, std::size_t bytes) {
  DeviceMemory::instance().mark_initialized(abi::address_of(address), bytes);
}

void report_api(const std::string& message) { abi::broken_rule(cudaErrorInvalidValue, message); }

bool is_device_pointer(const void* address) {
  return abi::place_of(abi::address_of(address)) == abi::Place::device;
}

}  // namespace emulator::host
