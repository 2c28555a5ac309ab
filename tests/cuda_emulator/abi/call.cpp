#include "abi/call.h"

#include <atomic>
#include <cstdio>
#include <exception>
#include <new>

#include "check/finding.h"
#include "count/activity.h"
#include "exec/launch.h"

namespace emulator {

namespace abi {
namespace {

std::atomic<int> sticky_error{0};
thread_local cudaError_t thread_error = cudaSuccess;

}  // namespace

std::mutex& device_mutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}

std::string hex(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

cudaError_t broken_rule(cudaError_t error, const std::string& message) {
  Finding finding;
  finding.kind = FindingKind::api;
  finding.message = message;
  report(finding);
  return error;
}

cudaError_t not_supported(const std::string& what) {
  return broken_rule(cudaErrorNotSupported, what + " is not implemented by the emulator");
}

bool is_sticky(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
      return true;
    default:
      return false;
  }
}

void set_sticky(cudaError_t error) {
  int none = 0;
  sticky_error.compare_exchange_strong(none, error);  // the first one stays
}
void clear_sticky() { sticky_error = 0; }
cudaError_t sticky() { return static_cast<cudaError_t>(sticky_error.load()); }

cudaError_t last_error() { return thread_error; }
void set_last_error(cudaError_t error) { thread_error = error; }

bool& inside_host_function() {
  thread_local bool inside = false;
  return inside;
}

bool& null_stream_is_per_thread() {
  thread_local bool per_thread = false;
  return per_thread;
}

bool is_tracing() { return options().trace; }

void trace(const std::string& text) {
  if (is_tracing()) std::fputs(("cuda_emulator: " + text + "\n").c_str(), stderr);
}

cudaError_t enter(const char* name) {
  if (is_tracing()) trace(name);
  if (inside_host_function()) {
    return broken_rule(cudaErrorNotPermitted,
                       std::string(name) + ": a host function of a stream may not call CUDA");
  }
  return sticky();
}

cudaError_t leave(const char* name, cudaError_t result) {
  if (result == cudaSuccess) return result;
  set_last_error(result);
  if (is_tracing()) trace(std::string(name) + " -> " + cudaGetErrorName(result));
  return result;
}

cudaError_t error_of_exception(const char* name) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return cudaErrorMemoryAllocation;
  } catch (const std::exception& error) {
    return broken_rule(cudaErrorUnknown, std::string(name) + ": " + error.what());
  }
}

}  // namespace abi
}  // namespace emulator

using namespace emulator::abi;

cudaError_t cudaGetLastError() {
  if (sticky() != cudaSuccess) return sticky();
  const cudaError_t error = last_error();
  set_last_error(cudaSuccess);
  return error;
}

cudaError_t cudaPeekAtLastError() { return sticky() != cudaSuccess ? sticky() : last_error(); }
