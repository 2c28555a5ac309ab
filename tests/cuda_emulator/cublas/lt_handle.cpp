#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "cublas/context.h"
#include "cublas/report.h"

using namespace emulator::blas;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return guarded(__func__, [&] {
    require_valid(handle != nullptr, "the pointer to the handle is null");
    *handle = new cublasLtContext{kHandleTag};
  });
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return guarded(__func__, [&] {
    require_handle(handle);
    handle->tag = 0;
    delete handle;
  });
}

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion() { return CUDART_VERSION; }
const char* cublasLtGetStatusName(cublasStatus_t status) { return status_name(status); }
const char* cublasLtGetStatusString(cublasStatus_t status) { return status_words(status); }

cublasStatus_t cublasLtGetProperty(libraryPropertyType type, int* value) {
  return guarded(__func__, [&] {
    require_valid(value != nullptr, "the place for the value is null");
    *value = version_part(type);
  });
}

cublasStatus_t cublasLtHeuristicsCacheGetCapacity(size_t* capacity) {
  return guarded(__func__, [&] {
    require_valid(capacity != nullptr, "the place for the capacity is null");
    *capacity = 0;
  });
}
cublasStatus_t cublasLtHeuristicsCacheSetCapacity(size_t) { return CUBLAS_STATUS_SUCCESS; }
unsigned cublasLtDisableCpuInstructionsSetMask(unsigned) { return 0; }

// Logging: the emulator has reports of its own.
cublasStatus_t cublasLtLoggerSetCallback(cublasLtLoggerCallback_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtLoggerSetFile(FILE*) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtLoggerOpenFile(const char*) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtLoggerSetLevel(int level) {
  return guarded(__func__,
                 [&] { require_valid(level >= 0 && level <= 5, "the level ", level, " is not in 0 … 5"); });
}
cublasStatus_t cublasLtLoggerSetMask(int) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtLoggerForceDisable() { return CUBLAS_STATUS_SUCCESS; }

}  // extern "C"
