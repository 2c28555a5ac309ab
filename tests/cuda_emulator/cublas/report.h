#pragma once

#include <cublas_api.h>

#include <sstream>
#include <string>

#include "abi/host_work.h"

namespace emulator::blas {

/// A call that breaks a rule: the status that the library answers with, and the rule in a sentence. Leaves an
/// exported function only through guarded().
struct Rejected {
  cublasStatus_t status;
  std::string sentence;
};

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

/// Throws Rejected with the parts put together unless `holds`.
template <class... Parts>
void require(bool holds, cublasStatus_t status, const Parts&... parts) {
  if (!holds) throw Rejected{status, text(parts...)};
}
template <class... Parts>
void require_valid(bool holds, const Parts&... parts) {
  require(holds, CUBLAS_STATUS_INVALID_VALUE, parts...);
}
template <class... Parts>
void require_supported(bool holds, const Parts&... parts) {
  require(holds, CUBLAS_STATUS_NOT_SUPPORTED, parts...);
}

/// Reports a broken rule of `call` on whichever channel the emulator uses.
inline void report(const char* call, const std::string& sentence) {
  host::report_api(text(call, ": ", sentence));
}

/// Runs the body of an exported function; a broken rule is reported and becomes the returned status.
template <class Body>
cublasStatus_t guarded(const char* call, Body body) {
  try {
    body();
    return CUBLAS_STATUS_SUCCESS;
  } catch (const Rejected& rejected) {
    report(call, rejected.sentence);
    return rejected.status;
  }
}

/// Queues `work` on `stream`; throws Rejected where the run-time does not take it.
template <class Work>
void queue(cudaStream_t stream, const char* call, Work work) {
  const int error = host::enqueue(stream, call, std::move(work));
  require(error == 0, CUBLAS_STATUS_EXECUTION_FAILED, "the stream refused the work with cudaError ", error);
}

}  // namespace emulator::blas
