#pragma once

#pragma GCC visibility push(default)
#include <cuda_runtime_api.h>
#pragma GCC visibility pop

#include <cstdint>
#include <mutex>
#include <string>

/// The frame around every function of the run-time: sticky errors, the last error of the thread, tracing,
/// exceptions.
namespace emulator::abi {

/// Held while the state of the run-time changes and while a kernel runs; released around host functions of
/// the user.
using Lock = std::unique_lock<std::mutex>;
std::mutex& device_mutex();

/// Prints an api finding; returns `error`, so that a check is one statement.
cudaError_t broken_rule(cudaError_t error, const std::string& message);
/// As broken_rule, for what the emulator cannot do.
cudaError_t not_supported(const std::string& what);

/// Errors after which a context is lost until cudaDeviceReset.
bool is_sticky(cudaError_t error);
void set_sticky(cudaError_t error);
void clear_sticky();
cudaError_t sticky();

/// The last error of this thread.
cudaError_t last_error();
void set_last_error(cudaError_t error);

/// True while this thread runs a host function of a stream, which may not call CUDA.
bool& inside_host_function();

/// True while this thread is in a call of the per-thread default stream flavour (…_ptsz, …_ptds): there,
/// stream 0 is cudaStreamPerThread.
bool& null_stream_is_per_thread();

/// One line on stderr when CUDA_EMULATOR_TRACE is set. Texts that must be put together belong behind
/// is_tracing(): calls are many.
bool is_tracing();
void trace(const std::string& text);

cudaError_t enter(const char* name);
cudaError_t leave(const char* name, cudaError_t result);
/// What the exception in flight means to the caller; reports it.
cudaError_t error_of_exception(const char* name);

/// Runs the body of a function of the run-time, body(Lock&) -> cudaError_t, with the lock held.
template <class Body>
cudaError_t api(const char* name, Body&& body) {
  if (const cudaError_t error = enter(name); error != cudaSuccess) return leave(name, error);
  cudaError_t result;
  try {
    Lock lock(device_mutex());
    result = body(lock);
  } catch (...) {
    result = error_of_exception(name);
  }
  return leave(name, result);
}

inline std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }
inline void* pointer_to(std::uint64_t address) { return reinterpret_cast<void*>(address); }
std::string hex(std::uint64_t value);

}  // namespace emulator::abi

/// Parameters that every implementation of an exported function checks alike.
#define EMULATOR_REQUIRE(condition)                 \
  do {                                              \
    if (!(condition)) return cudaErrorInvalidValue; \
  } while (false)
