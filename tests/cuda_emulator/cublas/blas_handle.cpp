#include <cuda_runtime_api.h>

#include "cublas/blas_context.h"
#include "cublas/report.h"

namespace emulator::blas {

bool is_transposed(const char* name, cublasOperation_t operation) {
  require_valid(operation >= CUBLAS_OP_N && operation <= CUBLAS_OP_C, name, ": there is no operation ",
                static_cast<int>(operation));
  return operation != CUBLAS_OP_N;
}

void synchronize(cudaStream_t stream) {
  const int error = cudaStreamSynchronize(stream);
  require(error == 0, CUBLAS_STATUS_EXECUTION_FAILED, "waiting for the stream gave cudaError ", error);
}

namespace {

template <class Value>
cublasStatus_t get(const char* call, cublasHandle_t handle, Value cublasContext::*member, Value* to) {
  return guarded(call, [&] {
    require_handle(handle);
    require_valid(to != nullptr, "the place for the value is null");
    *to = handle->*member;
  });
}

template <class Value>
cublasStatus_t set(const char* call, cublasHandle_t handle, Value cublasContext::*member, Value value,
                   bool known = true) {
  return guarded(call, [&] {
    require_handle(handle);
    require_valid(known, "there is no mode ", value);
    handle->*member = value;
  });
}

}  // namespace
}  // namespace emulator::blas

using namespace emulator::blas;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  return guarded(__func__, [&] {
    require_valid(handle != nullptr, "the pointer to the handle is null");
    *handle = new cublasContext;
    (*handle)->tag = kHandleTag;
  });
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  return guarded(__func__, [&] {
    require_handle(handle);
    handle->tag = 0;
    delete handle;
  });
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  return guarded(__func__, [&] {
    require_valid(version != nullptr, "the place for the version is null");
    *version = CUBLAS_VERSION;
  });
}

cublasStatus_t cublasGetProperty(libraryPropertyType type, int* value) {
  return guarded(__func__, [&] {
    require_valid(value != nullptr, "the place for the value is null");
    *value = version_part(type);
  });
}

size_t cublasGetCudartVersion() { return CUDART_VERSION; }
const char* cublasGetStatusName(cublasStatus_t status) { return status_name(status); }
const char* cublasGetStatusString(cublasStatus_t status) { return status_words(status); }

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  return guarded(__func__, [&] {
    require_handle(handle);
    require_valid(reinterpret_cast<std::uintptr_t>(workspace) % 256 == 0, "the workspace ", workspace,
                  " is not a multiple of 256 bytes");
    require_valid(bytes == 0 || emulator::host::device_range(workspace, bytes) != nullptr, "the workspace, ",
                  bytes, " bytes at ", workspace, ", does not lie in one live allocation of the device");
    handle->workspace = workspace;
    handle->workspace_bytes = bytes;
  });
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  return guarded(__func__, [&] {
    require_handle(handle);
    handle->stream = stream;
    handle->workspace =
        nullptr;  // "unconditionally resets the cuBLAS library workspace back to the default workspace pool"
    handle->workspace_bytes = 0;
  });
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  return get(__func__, handle, &cublasContext::stream, stream);
}

cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  return set(__func__, handle, &cublasContext::pointer_mode, mode,
             mode == CUBLAS_POINTER_MODE_HOST || mode == CUBLAS_POINTER_MODE_DEVICE);
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t* mode) {
  return get(__func__, handle, &cublasContext::pointer_mode, mode);
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t handle, cublasAtomicsMode_t mode) {
  return set(__func__, handle, &cublasContext::atomics_mode, mode,
             mode == CUBLAS_ATOMICS_NOT_ALLOWED || mode == CUBLAS_ATOMICS_ALLOWED);
}
cublasStatus_t cublasGetAtomicsMode(cublasHandle_t handle, cublasAtomicsMode_t* mode) {
  return get(__func__, handle, &cublasContext::atomics_mode, mode);
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  const unsigned kind = static_cast<unsigned>(mode) & 15u;
  return set(__func__, handle, &cublasContext::math_mode, mode,
             (kind <= 4 || kind == 8) && static_cast<unsigned>(mode) < 32);
}
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  return get(__func__, handle, &cublasContext::math_mode, mode);
}

cublasStatus_t cublasSetSmCountTarget(cublasHandle_t handle, int processors) {
  return set(__func__, handle, &cublasContext::processors, processors, processors >= 0);
}
cublasStatus_t cublasGetSmCountTarget(cublasHandle_t handle, int* processors) {
  return get(__func__, handle, &cublasContext::processors, processors);
}

cublasStatus_t cublasLoggerConfigure(int, int, int, const char*) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetLoggerCallback(cublasLogCallback) { return CUBLAS_STATUS_SUCCESS; }

}  // extern "C"
