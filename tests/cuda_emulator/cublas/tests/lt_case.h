#pragma once

#include <cublasLt.h>

#include <memory>
#include <optional>
#include <vector>

#include "cublas/tests/device_array.h"

namespace test {

/// One cublasLtMatmul, described.
struct LtCase {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType scale = CUDA_R_32F, input = CUDA_R_32F, output = CUDA_R_32F;
  std::int64_t m = 24, n = 17, k = 40;
  bool transpose_a = false, transpose_b = false;
  bool rows_a = false, rows_b = false, rows_d = false;  // row-major
  std::int64_t padding = 0;                             // of the leading dimensions
  std::int64_t batch = 1;
  double alpha = 1, beta = 0;
  bool in_place = false;
  bool scalars_on_device = false;
  unsigned epilogue = CUBLASLT_EPILOGUE_DEFAULT;
};

/// Owns descriptors and arrays of a case; everything can be changed before call().
struct LtCall {
  explicit LtCall(const LtCase& wanted);
  ~LtCall();
  LtCall(const LtCall&) = delete;

  cublasStatus_t call();

  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, Value value) {
    cublasLtMatmulDescSetAttribute(matmul, attribute, &value, sizeof value);
  }
  template <class Value>
  static void set(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, Value value) {
    cublasLtMatrixLayoutSetAttribute(layout, attribute, &value, sizeof value);
  }

  LtCase c;
  std::int64_t lda, ldb, ldd, stride_a, stride_b, stride_d, aux_ld;
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t matmul = nullptr;
  cublasLtMatrixLayout_t layouts[4] = {};
  std::vector<double> a, b, c_values, aux_values, bias_values;  // as stored
  std::optional<DeviceArray> a_array, b_array, c_array, d_array, aux_array, bias_array, scalars;
  const void *a_address, *b_address, *c_address, *alpha = nullptr, *beta = nullptr;
  void* d_address;
  const cublasLtMatmulAlgo_t* algo = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  float host_f32[2];
  double host_f64[2];
  __half host_f16[2];

  double a_at(std::int64_t batch, std::int64_t i, std::int64_t l) const;  // op(A)
  double b_at(std::int64_t batch, std::int64_t l, std::int64_t j) const;  // op(B)
  std::size_t d_index(std::int64_t batch, std::int64_t i, std::int64_t j) const;
  std::size_t aux_index(std::int64_t batch, std::int64_t i, std::int64_t j) const;  // elements, or bits
  bool is_relu() const { return (c.epilogue & 2) != 0 || (c.epilogue & 8) != 0; }
  bool has_aux() const { return (c.epilogue & 128) != 0; }
};

/// Runs a case and compares D and everything else that the epilogue writes with a naive loop in f64; Catch
/// assertions inside. `terms`: how many f32 additions in a row an element of the sum goes through.
void check(const LtCase& wanted, double terms = 64);

}  // namespace test
