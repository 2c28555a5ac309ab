#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>

#include "cublas/blas_context.h"
#include "cublas/report.h"

namespace emulator::blas {
namespace {

/// Copies of vectors and matrices between the host and the device are the run-time's 2D copies: `lines`
/// stretches of `bytes` bytes.
struct Copy {
  const void* from;
  std::int64_t from_pitch;
  void* to;
  std::int64_t to_pitch, bytes, lines;
  cudaMemcpyKind kind;
};

void start(const Copy& copy, cudaStream_t stream) {
  const auto size = [](std::int64_t value) { return static_cast<std::size_t>(value); };
  const cudaError_t error = cudaMemcpy2DAsync(copy.to, size(copy.to_pitch), copy.from, size(copy.from_pitch),
                                              size(copy.bytes), size(copy.lines), copy.kind, stream);
  require(error == cudaSuccess, CUBLAS_STATUS_MAPPING_ERROR, "the copy of ", copy.lines, " x ", copy.bytes,
          " bytes gave cudaError ", static_cast<int>(error));
}

cublasStatus_t copy_matrix(const char* call, std::int64_t rows, std::int64_t columns, std::int64_t element,
                           const void* a, std::int64_t lda, void* b, std::int64_t ldb, cudaMemcpyKind kind,
                           cudaStream_t stream, bool waits) {
  return guarded(call, [&] {
    require_valid(rows >= 0 && columns >= 0 && element > 0, "rows ", rows, ", columns ", columns,
                  ", element size ", element);
    require_valid(lda >= std::max<std::int64_t>(1, rows), "A: leading dimension ", lda, " is less than rows ",
                  rows);
    require_valid(ldb >= std::max<std::int64_t>(1, rows), "B: leading dimension ", ldb, " is less than rows ",
                  rows);
    if (rows == 0 || columns == 0) return;
    require_valid(a != nullptr && b != nullptr, "a pointer is null");
    start({a, lda * element, b, ldb * element, rows * element, columns, kind}, stream);
    if (waits) synchronize(stream);
  });
}

cublasStatus_t copy_vector(const char* call, std::int64_t n, std::int64_t element, const void* x,
                           std::int64_t x_increment, void* y, std::int64_t y_increment, cudaMemcpyKind kind,
                           cudaStream_t stream, bool waits) {
  return guarded(call, [&] {
    require_valid(n >= 0 && element > 0, "n ", n, ", element size ", element);
    require_valid(x_increment > 0 && y_increment > 0, "the increments are ", x_increment, " and ",
                  y_increment, ", not positive");
    if (n == 0) return;
    require_valid(x != nullptr && y != nullptr, "a pointer is null");
    start({x, x_increment * element, y, y_increment * element, element, n, kind}, stream);
    if (waits) synchronize(stream);
  });
}

}  // namespace
}  // namespace emulator::blas

using namespace emulator::blas;

#define COPIES(Direction, kind, Suffix, Int)                                                                \
  cublasStatus_t cublas##Direction##Matrix##Suffix(Int rows, Int columns, Int element, const void* a,       \
                                                   Int lda, void* b, Int ldb) {                             \
    return copy_matrix(__func__, rows, columns, element, a, lda, b, ldb, kind, nullptr, true);              \
  }                                                                                                         \
  cublasStatus_t cublas##Direction##MatrixAsync##Suffix(Int rows, Int columns, Int element, const void* a,  \
                                                        Int lda, void* b, Int ldb, cudaStream_t stream) {   \
    return copy_matrix(__func__, rows, columns, element, a, lda, b, ldb, kind, stream, false);              \
  }                                                                                                         \
  cublasStatus_t cublas##Direction##Vector##Suffix(Int n, Int element, const void* x, Int x_increment,      \
                                                   void* y, Int y_increment) {                              \
    return copy_vector(__func__, n, element, x, x_increment, y, y_increment, kind, nullptr, true);          \
  }                                                                                                         \
  cublasStatus_t cublas##Direction##VectorAsync##Suffix(Int n, Int element, const void* x, Int x_increment, \
                                                        void* y, Int y_increment, cudaStream_t stream) {    \
    return copy_vector(__func__, n, element, x, x_increment, y, y_increment, kind, stream, false);          \
  }

extern "C" {

COPIES(Set, cudaMemcpyHostToDevice, , int)
COPIES(Set, cudaMemcpyHostToDevice, _64, std::int64_t)
COPIES(Get, cudaMemcpyDeviceToHost, , int)
COPIES(Get, cudaMemcpyDeviceToHost, _64, std::int64_t)

}  // extern "C"
