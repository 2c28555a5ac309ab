#include "cublas/stub.h"

#include "abi/host_work.h"
#include "cublas/report.h"

int emulator_cublas_stub(const char* name) {
  emulator::host::report_api(emulator::blas::text(name, " is not implemented by the emulator's cuBLAS"));
  return CUBLAS_STATUS_NOT_SUPPORTED;
}
