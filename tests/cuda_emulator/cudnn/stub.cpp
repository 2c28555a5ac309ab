#include "cudnn/stub.h"

#include "cudnn/report.h"

int emulator_cudnn_stub(const char* name) {
  emulator::host::report_api(emulator::blas::text(name, " is not implemented by the emulator's cuDNN"));
  return CUDNN_STATUS_NOT_SUPPORTED;
}
