#include <algorithm>

#include "cublas/blas_context.h"
#include "cublas/gemm.h"
#include "cublas/lt_problem.h"

namespace emulator::blas {
namespace {

/// One matrix argument as it was passed: an address, or the address of an array of addresses in device
/// memory.
struct Argument {
  const void* address;
  int type;  // cudaDataType
  std::int64_t ld, stride = 0;
};

struct Call {
  const char* name;
  cublasHandle_t handle;
  cublasOperation_t transpose_a, transpose_b;
  std::int64_t m, n, k;
  const void* alpha;
  Argument a, b;
  const void* beta;
  Argument c;
  std::int64_t batch = 1;
  int compute = CUBLAS_COMPUTE_32F;
  bool arrays = false;  // the addresses are those of arrays
};

int scale_of(int compute) {
  if (compute == CUBLAS_COMPUTE_16F || compute == CUBLAS_COMPUTE_16F_PEDANTIC) return CUDA_R_16F;
  return compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC ? CUDA_R_64F : CUDA_R_32F;
}

Matrix matrix_of(const char* name, const Argument& argument, std::int64_t rows, std::int64_t columns,
                 const Call& call) {
  require_valid(argument.ld >= std::max<std::int64_t>(1, rows), name, ": leading dimension ", argument.ld,
                " is less than rows ", rows);
  require_valid(argument.stride >= 0, name, ": the batch stride ", argument.stride, " is negative");
  return {.name = name,
          .address = call.arrays ? nullptr : const_cast<void*>(argument.address),
          .type = type_of(argument.type),
          .rows = rows,
          .columns = columns,
          .ld = argument.ld,
          .batch_stride = argument.stride,
          .batch = call.arrays ? 1 : call.batch};
}

Gemm gemm_of(const Call& call) {
  require_valid(call.m >= 0 && call.n >= 0 && call.k >= 0, "m ", call.m, ", n ", call.n, ", k ", call.k,
                ": none may be negative");
  require_valid(call.batch >= 0, "batch count ", call.batch, " is negative");
  require_types(call.compute, scale_of(call.compute), call.a.type, call.b.type, call.c.type, call.c.type);
  Gemm gemm;
  gemm.call = call.name;
  gemm.in_f64 = scale_of(call.compute) == CUDA_R_64F;
  gemm.rounding = rounding_of(call.compute);
  const bool tf32 = (static_cast<unsigned>(call.handle->math_mode) & 15u) == CUBLAS_TF32_TENSOR_OP_MATH;
  if (tf32 && call.compute == CUBLAS_COMPUTE_32F && call.a.type == CUDA_R_32F)
    gemm.rounding = InputRounding::tf32;
  gemm.transpose_a = is_transposed("op(A)", call.transpose_a);
  gemm.transpose_b = is_transposed("op(B)", call.transpose_b);
  gemm.a =
      matrix_of("A", call.a, gemm.transpose_a ? call.k : call.m, gemm.transpose_a ? call.m : call.k, call);
  gemm.b =
      matrix_of("B", call.b, gemm.transpose_b ? call.n : call.k, gemm.transpose_b ? call.k : call.n, call);
  gemm.d = matrix_of("C", call.c, call.m, call.n, call);
  const std::int64_t one = (call.n - 1) * call.c.ld + call.m;
  require_valid(call.arrays || call.batch <= 1 || call.m * call.n == 0 || call.c.stride >= one,
                "C: the matrices of the batch overlap, the stride is ", call.c.stride,
                " elements, one matrix takes ", one);
  gemm.c = gemm.d;
  const Type scale = type_of(scale_of(call.compute));
  gemm.alpha = scalar_argument(call.handle, "alpha", call.alpha, scale);
  gemm.beta = scalar_argument(call.handle, "beta", call.beta, scale);
  gemm.workspace = call.handle->workspace;
  gemm.workspace_bytes = static_cast<std::int64_t>(call.handle->workspace_bytes);
  return gemm;
}

/// An array of `batch` addresses in device memory; f64 stands for "8 bytes".
Matrix array_of(const char* name, const Argument& argument, std::int64_t batch) {
  return {.name = name,
          .address = const_cast<void*>(argument.address),
          .type = Type::f64,
          .rows = batch,
          .columns = 1,
          .ld = batch};
}

void run_arrays(Gemm gemm, const Matrix& a, const Matrix& b, const Matrix& c) {
  const Matrix* arrays[3] = {&a, &b, &c};
  void** addresses[3];
  for (int i = 0; i < 3; ++i) {
    check_initialized(gemm.call, *arrays[i]);
    addresses[i] = static_cast<void**>(backing(gemm.call, *arrays[i]));
    if (addresses[i] == nullptr) return;
  }
  for (std::int64_t i = 0; i < a.rows; ++i) {
    gemm.a.address = addresses[0][i];
    gemm.b.address = addresses[1][i];
    gemm.c.address = gemm.d.address = addresses[2][i];
    try {
      require_memory(gemm);
      run(gemm);
    } catch (const Rejected& rejected) {
      report(gemm.call, text("matrix ", i, " of the batch: ", rejected.sentence));
    }
  }
}

cublasStatus_t multiply(const Call& call) {
  return guarded(call.name, [&] {
    require_handle(call.handle);
    const Gemm gemm = gemm_of(call);
    if (call.m == 0 || call.n == 0 || call.batch == 0) return;
    if (!call.arrays) {
      require_memory(gemm);
      return queue(call.handle->stream, call.name, [gemm] { run(gemm); });
    }
    const Matrix a = array_of("the array of A", call.a, call.batch),
                 b = array_of("the array of B", call.b, call.batch),
                 c = array_of("the array of C", call.c, call.batch);
    for (const Matrix* array : {&a, &b, &c}) require_memory(*array);
    queue(call.handle->stream, call.name, [gemm, a, b, c] { run_arrays(gemm, a, b, c); });
  });
}

}  // namespace
}  // namespace emulator::blas

using namespace emulator::blas;

#define OPERATIONS cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b
#define HEAD __func__, handle, transpose_a, transpose_b, m, n, k, alpha

/// The typed products: plain, with strides, and with arrays of pointers.
#define TYPED(Letter, Suffix, Int, Real, type, compute)                                           \
  cublasStatus_t cublas##Letter##gemm##Suffix(OPERATIONS, Int m, Int n, Int k, const Real* alpha, \
                                              const Real* a, Int lda, const Real* b, Int ldb,     \
                                              const Real* beta, Real* c, Int ldc) {               \
    return multiply({HEAD, {a, type, lda}, {b, type, ldb}, beta, {c, type, ldc}, 1, compute});    \
  }
#define TYPED_BATCHED(Letter, Suffix, Int, Real, type, compute)                                           \
  cublasStatus_t cublas##Letter##gemmStridedBatched##Suffix(                                              \
      OPERATIONS, Int m, Int n, Int k, const Real* alpha, const Real* a, Int lda, long long stride_a,     \
      const Real* b, Int ldb, long long stride_b, const Real* beta, Real* c, Int ldc, long long stride_c, \
      Int batch) {                                                                                        \
    return multiply({HEAD,                                                                                \
                     {a, type, lda, stride_a},                                                            \
                     {b, type, ldb, stride_b},                                                            \
                     beta,                                                                                \
                     {c, type, ldc, stride_c},                                                            \
                     batch,                                                                               \
                     compute});                                                                           \
  }                                                                                                       \
  cublasStatus_t cublas##Letter##gemmBatched##Suffix(                                                     \
      OPERATIONS, Int m, Int n, Int k, const Real* alpha, const Real* const a[], Int lda,                 \
      const Real* const b[], Int ldb, const Real* beta, Real* const c[], Int ldc, Int batch) {            \
    return multiply({HEAD, {a, type, lda}, {b, type, ldb}, beta, {c, type, ldc}, batch, compute, true});  \
  }
#define MIXED(Suffix, Int)                                                                                   \
  cublasStatus_t cublasGemmEx##Suffix(OPERATIONS, Int m, Int n, Int k, const void* alpha, const void* a,     \
                                      cudaDataType a_type, Int lda, const void* b, cudaDataType b_type,      \
                                      Int ldb, const void* beta, void* c, cudaDataType c_type, Int ldc,      \
                                      cublasComputeType_t compute, cublasGemmAlgo_t) {                       \
    return multiply({HEAD, {a, a_type, lda}, {b, b_type, ldb}, beta, {c, c_type, ldc}, 1, compute});         \
  }                                                                                                          \
  cublasStatus_t cublasSgemmEx##Suffix(OPERATIONS, Int m, Int n, Int k, const float* alpha, const void* a,   \
                                       cudaDataType a_type, Int lda, const void* b, cudaDataType b_type,     \
                                       Int ldb, const float* beta, void* c, cudaDataType c_type, Int ldc) {  \
    return multiply(                                                                                         \
        {HEAD, {a, a_type, lda}, {b, b_type, ldb}, beta, {c, c_type, ldc}, 1, CUBLAS_COMPUTE_32F});          \
  }                                                                                                          \
  cublasStatus_t cublasGemmStridedBatchedEx##Suffix(                                                         \
      OPERATIONS, Int m, Int n, Int k, const void* alpha, const void* a, cudaDataType a_type, Int lda,       \
      long long stride_a, const void* b, cudaDataType b_type, Int ldb, long long stride_b, const void* beta, \
      void* c, cudaDataType c_type, Int ldc, long long stride_c, Int batch, cublasComputeType_t compute,     \
      cublasGemmAlgo_t) {                                                                                    \
    return multiply({HEAD,                                                                                   \
                     {a, a_type, lda, stride_a},                                                             \
                     {b, b_type, ldb, stride_b},                                                             \
                     beta,                                                                                   \
                     {c, c_type, ldc, stride_c},                                                             \
                     batch,                                                                                  \
                     compute});                                                                              \
  }                                                                                                          \
  cublasStatus_t cublasGemmBatchedEx##Suffix(                                                                \
      OPERATIONS, Int m, Int n, Int k, const void* alpha, const void* const a[], cudaDataType a_type,        \
      Int lda, const void* const b[], cudaDataType b_type, Int ldb, const void* beta, void* const c[],       \
      cudaDataType c_type, Int ldc, Int batch, cublasComputeType_t compute, cublasGemmAlgo_t) {              \
    return multiply(                                                                                         \
        {HEAD, {a, a_type, lda}, {b, b_type, ldb}, beta, {c, c_type, ldc}, batch, compute, true});           \
  }

extern "C" {

TYPED(S, _v2, int, float, CUDA_R_32F, CUBLAS_COMPUTE_32F)
TYPED(S, _v2_64, std::int64_t, float, CUDA_R_32F, CUBLAS_COMPUTE_32F)
TYPED(D, _v2, int, double, CUDA_R_64F, CUBLAS_COMPUTE_64F)
TYPED(D, _v2_64, std::int64_t, double, CUDA_R_64F, CUBLAS_COMPUTE_64F)
TYPED(H, , int, __half, CUDA_R_16F, CUBLAS_COMPUTE_16F)
TYPED(H, _64, std::int64_t, __half, CUDA_R_16F, CUBLAS_COMPUTE_16F)
TYPED_BATCHED(S, , int, float, CUDA_R_32F, CUBLAS_COMPUTE_32F)
TYPED_BATCHED(S, _64, std::int64_t, float, CUDA_R_32F, CUBLAS_COMPUTE_32F)
TYPED_BATCHED(D, , int, double, CUDA_R_64F, CUBLAS_COMPUTE_64F)
TYPED_BATCHED(D, _64, std::int64_t, double, CUDA_R_64F, CUBLAS_COMPUTE_64F)
TYPED_BATCHED(H, , int, __half, CUDA_R_16F, CUBLAS_COMPUTE_16F)
TYPED_BATCHED(H, _64, std::int64_t, __half, CUDA_R_16F, CUBLAS_COMPUTE_16F)
MIXED(, int)
MIXED(_64, std::int64_t)

}  // extern "C"
