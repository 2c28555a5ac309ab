#pragma once

#include <cublas_api.h>

#include "cublas/context.h"
#include "cublas/memory.h"

/// What a cublasHandle_t points to. It can be passed where a cublasLtHandle_t is wanted.
struct cublasContext : cublasLtContext {
  cudaStream_t stream = nullptr;
  cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
  cublasMath_t math_mode = CUBLAS_DEFAULT_MATH;
  cublasAtomicsMode_t atomics_mode = CUBLAS_ATOMICS_NOT_ALLOWED;
  int processors = 0;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

namespace emulator::blas {

/// Throws Rejected (NOT_INITIALIZED) unless the handle is live.
inline void require_handle(const cublasContext* handle) {
  require_handle(static_cast<const cublasLtContext*>(handle));
}

/// A scalar argument by the handle's pointer mode.
inline Scalar scalar_argument(const cublasContext* handle, const char* name, const void* pointer, Type type) {
  return scalar_argument(name, pointer, type, handle->pointer_mode == CUBLAS_POINTER_MODE_DEVICE);
}

/// Whether an operation transposes; throws Rejected for values that are none. C is T for real types.
bool is_transposed(const char* name, cublasOperation_t operation);

/// Waits for a stream; throws Rejected (EXECUTION_FAILED).
void synchronize(cudaStream_t stream);

}  // namespace emulator::blas
