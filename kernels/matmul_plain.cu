#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/matmul.cuh"

// A product for what the library refuses, of any strides and alignments: 64 × 64 elements of D per block, 4 × 4 per
// thread, through shared memory in steps of 16 of k. Every element of A is read n / 64 times, of B m / 64 times.
namespace dino::cuda {
inline namespace matmul_plain_cu {

constexpr int kTile = 64, kStep = 16, kThreads = 256, kSide = 4;
constexpr int kPitch = kTile + 2;  // so that the columns that a warp stores start in 16 banks, two apart

/// Element (i, j) of an operand lies at data[i · row_step + j · col_step].
template <class T>
struct Strided {
  const T* data;
  int64_t row_step, col_step;
};

/// Copies the kTile × kStep part of `from` that starts at (row, step) to shared memory, with zeros beyond the edges;
/// `along`: neighbouring threads read along k, otherwise along the rows.
template <class T>
__device__ void copy_tile(const Strided<T>& from, int64_t row, int64_t rows, int64_t step, int64_t steps, bool along,
                          float (&to)[kStep][kPitch]) {
#pragma unroll
  for (int i = 0; i < kTile * kStep / kThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads;
    const int r = along ? at / kStep : at % kTile, s = along ? at % kStep : at / kTile;
    const bool inside = row + r < rows && step + s < steps;
    to[s][r] = inside ? to_float(from.data[(row + r) * from.row_step + (step + s) * from.col_step]) : 0.0f;
  }
}

template <class In, class Out>
__global__ void __launch_bounds__(kThreads)
    multiply(Strided<In> a, Strided<In> b, Out* d, int64_t d_stride, const Out* bias, int64_t m, int64_t n, int64_t k,
             float alpha, float beta) {
  __shared__ float a_tile[kStep][kPitch], b_tile[kStep][kPitch];
  const int64_t tiles = (n + kTile - 1) / kTile;
  const int64_t row = blockIdx.x / tiles * kTile, col = blockIdx.x % tiles * kTile;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float sum[kSide][kSide] = {};
  for (int64_t step = 0; step < k; step += kStep) {
    copy_tile(a, row, m, step, k, a.col_step == 1, a_tile);
    copy_tile(b, col, n, step, k, b.col_step == 1, b_tile);
    __syncthreads();
#pragma unroll
    for (int s = 0; s < kStep; ++s) {
      float left[kSide], right[kSide];
#pragma unroll
      for (int i = 0; i < kSide; ++i) {
        left[i] = a_tile[s][y + 16 * i];
        right[i] = b_tile[s][x + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < kSide; ++i)
#pragma unroll
        for (int j = 0; j < kSide; ++j) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
#pragma unroll
    for (int j = 0; j < kSide; ++j) {
      const int64_t r = row + y + 16 * i, c = col + x + 16 * j;
      if (r >= m || c >= n) continue;
      float value = alpha * sum[i][j];
      if (beta != 0) value += beta * to_float(d[r * d_stride + c]);
      if (bias) value += to_float(bias[c]);
      d[r * d_stride + c] = from_float<Out>(value);
    }
  }
}

template <class T>
Strided<T> strided(const Matrix& matrix, bool transposed) {
  const int64_t stride = matrix.row_stride;
  return {static_cast<const T*>(matrix.data), transposed ? 1 : stride, transposed ? stride : 1};
}

}  // namespace matmul_plain_cu

void matmul_without_library(CudaStream& stream, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a,
                            const Matrix& b, float beta, const Target& d, const void* bias) {
  const int64_t tiles = (m + kTile - 1) / kTile * ((n + kTile - 1) / kTile);
  with_dtype(a.dtype, [&](auto in) {
    with_dtype(d.dtype, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      launch(stream, "matmul", multiply<In, Out>, {blocks_for(tiles, 1), kThreads}, strided<In>(a, a.transposed),
             strided<In>(b, !b.transposed), static_cast<Out*>(d.data), d.row_stride, static_cast<const Out*>(bias), m,
             n, k, alpha, beta);
    });
  });
}

}  // namespace dino::cuda
