#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

/// What stand-ins for other CUDA libraries (cuBLASLt, cuBLAS, …) need of the run-time: order on a stream, and
/// memory. Exported by libcudart.so.13, so that all stand-ins share one device.
namespace emulator::host {

/// Queues `work` on a stream (a cudaStream_t; null: the legacy default stream), behind what is already there.
/// While the stream is being captured the work becomes a graph node. Returns a cudaError_t value.
[[gnu::visibility("default")]] int enqueue(void* stream, const char* name, std::function<void()> work);

/// The host address that backs [address, address + bytes) of device (or pinned, or managed) memory; null if
/// any byte of it is outside of one live object.
[[gnu::visibility("default")]] void* device_range(const void* address, std::size_t bytes);

/// Whether all bytes of a device range have been written by somebody. Ranges outside of device memory count
/// as written.
[[gnu::visibility("default")]] bool is_initialized(const void* address, std::size_t bytes);
/// Fills the bytes of a device range that nobody wrote with 0xFF, as kernels see them. They still count as
/// unwritten.
[[gnu::visibility("default")]] void poison_unwritten(const void* address, std::size_t bytes);
/// Marks a device range as written.
[[gnu::visibility("default")]] void mark_initialized(const void* address, std::size_t bytes);

/// Reports a broken rule of a library call ("cublasLtMatmul: A: leading dimension 5 is less than rows 8").
[[gnu::visibility("default")]] void report_api(const std::string& message);

/// CUDA's answer to "is this a pointer that the host may read"; false for device memory.
[[gnu::visibility("default")]] bool is_device_pointer(const void* address);

}  // namespace emulator::host
