#pragma once

#include "abi/streams.h"
#include "memory/device_memory.h"

namespace emulator::abi {

constexpr std::size_t kPitchUnit = 512;  // bytes; what current devices align rows to

/// As cudaMalloc: *pointer is null for 0 bytes.
cudaError_t allocate(void** pointer, std::size_t bytes, MemoryKind kind);
/// A cudaFreeAsync was carried out.
void end_scheduled_free(std::uint64_t address);

/// Queues a copy as the asynchronous calls do (`asynchronous`), or as the synchronous ones.
cudaError_t copy(Lock& lock, Copy what, cudaStream_t stream, bool asynchronous, const char* call);
cudaError_t fill(Lock& lock, Fill what, cudaStream_t stream, bool asynchronous, const char* call);
/// The box of a cudaMemcpy3DParms; arrays are not supported.
cudaError_t read(const cudaMemcpy3DParms& params, Copy& copy);

}  // namespace emulator::abi
