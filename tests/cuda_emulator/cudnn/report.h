#pragma once

#include <cudnn.h>

#include <string>
#include <utility>

#include "abi/host_work.h"
#include "cublas/report.h"

namespace emulator::dnn {

using blas::text;

/// A call that breaks a rule: the status that the library answers with, and the rule in a sentence. Leaves an
/// exported function only through guarded().
struct Rejected {
  cudnnStatus_t status;
  std::string sentence;
};

/// Throws Rejected with the parts put together unless `holds`.
template <class... Parts>
void require(bool holds, cudnnStatus_t status, const Parts&... parts) {
  if (!holds) throw Rejected{status, text(parts...)};
}
template <class... Parts>
void require_valid(bool holds, const Parts&... parts) {
  require(holds, CUDNN_STATUS_BAD_PARAM, parts...);
}
template <class... Parts>
void require_supported(bool holds, const Parts&... parts) {
  require(holds, CUDNN_STATUS_NOT_SUPPORTED, parts...);
}

/// Reports a broken rule of `call` on whichever channel the emulator uses.
inline void report(const char* call, const std::string& sentence) { host::report_api(text(call, ": ", sentence)); }

/// Runs the body of an exported function; a broken rule is reported and becomes the returned status.
template <class Body>
cudnnStatus_t guarded(const char* call, Body body) {
  try {
    body();
    return CUDNN_STATUS_SUCCESS;
  } catch (const Rejected& rejected) {
    report(call, rejected.sentence);
    return rejected.status;
  }
}

}  // namespace emulator::dnn
