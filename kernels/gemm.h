#pragma once

#include <cstdint>

#include "kernels/op.h"

namespace dino {

/// A row-major matrix in borrowed memory, read transposed if `transposed`.
template <class T>
struct Matrix {
  T* data;
  int64_t stride;
  bool transposed = false;
};

/// C [m, n] = alpha · op(A) [m, k] · op(B) [k, n] + beta · C on the calling thread. f32 goes to oneDNN; f64 is the plain
/// loop that defines the result.
void gemm_serial(int64_t m, int64_t n, int64_t k, float alpha, Matrix<const float> a, Matrix<const float> b, float beta,
                 Matrix<float> c);
void gemm_serial(int64_t m, int64_t n, int64_t k, double alpha, Matrix<const double> a, Matrix<const double> b,
                 double beta, Matrix<double> c);

/// The same on all threads of `stream`. The work is cut into pieces that depend on m, n, k only, so the bits of the
/// result do not depend on the number of threads.
template <class T>
void gemm(CpuStream& stream, int64_t m, int64_t n, int64_t k, T alpha, Matrix<const T> a, Matrix<const T> b, T beta,
          Matrix<T> c);

/// target [cols] = or += the sums of the columns of x [rows, cols], added up in a fixed order.
template <class T>
void column_sums(CpuStream& stream, const View& x, T* target, GradMode mode);
/// The same for x of any floating-point type; target [cols] is f64 for f64 and f32 else.
void column_sums(CpuStream& stream, const View& x, const View& target, GradMode mode);

}  // namespace dino
