#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/dtype.h"
#include "kernels/view.h"

/// Products of row-major matrices, through cuBLASLt. Needs nothing of CUDA's headers.
namespace dino::cuda {

/// A matrix as it lies in memory, row-major: element (i, j) is data[i · row_stride + j], f32 or bf16, of any alignment.
struct Matrix {
  const void* data = nullptr;
  Dtype dtype = Dtype::f32;
  int64_t row_stride = 0;
  bool transposed = false;  ///< the product takes the transpose of what lies there

  Matrix() = default;
  Matrix(const void* data, Dtype dtype, int64_t row_stride, bool transposed = false)
      : data(data), dtype(dtype), row_stride(row_stride), transposed(transposed) {}
  explicit Matrix(const View& view, bool transposed = false)
      : Matrix(view.data, view.dtype, view.row_stride, transposed) {}
};

/// Where a product goes.
struct Target {
  void* data = nullptr;
  Dtype dtype = Dtype::f32;
  int64_t row_stride = 0;

  Target() = default;
  Target(void* data, Dtype dtype, int64_t row_stride) : data(data), dtype(dtype), row_stride(row_stride) {}
  explicit Target(const View& view) : Target(view.data, view.dtype, view.row_stride) {}
};

/// D [m, n] = alpha · A B + beta · D + bias, where A is [m, k] and B is [k, n] (after `transposed`), both f32 or both
/// bf16; D is f32, or bf16 if they are; `bias` [n], in D's dtype, or null. With beta 0, D is not read. Sums are f32,
/// f32 inputs are not rounded to TF32, and the same call gives the same bits. Uses `stream.workspace()`, no scratch;
/// may be recorded in a graph.
void matmul(CudaStream& stream, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a, const Matrix& b,
            float beta, const Target& d, const void* bias = nullptr);

/// As matmul(), and writes a_sums[i] = Σ_k A[i, k], [m], f32 (D must be f32), on the way. Returns false, having done
/// nothing, if the library cannot.
bool matmul_with_sums(CudaStream& stream, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a,
                      const Matrix& b, float beta, const Target& d, float* a_sums);

/// As matmul(), by a plain kernel of our own. matmul() uses it for what the library does not take.
void matmul_without_library(CudaStream& stream, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a,
                            const Matrix& b, float beta, const Target& d, const void* bias = nullptr);

}  // namespace dino::cuda
