#include "kernels/sinkhorn.h"

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

// The matrix is never scaled in memory: with E = exp((logits − largest of the row) / temperature), p = diag(r) · E ·
// diag(c), and an iteration is c = 1 / Eᵀr, then r = 1 / Ec. E is worked out again wherever it is needed, so there are
// two reads of the logits per iteration, one before for the largest of rows, and one after to write p. Those after the
// first come out of the L2 cache as far as it goes.
namespace dino {
inline namespace sinkhorn_cu {

using namespace cuda;

constexpr int kRowThreads = 512;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

/// Calls f(column, values) for the packs of row blockIdx.x that a thread of a block per row has.
template <int N, class F>
__device__ void for_row(const float* logits, int64_t dim, const F& f) {
  const float* row = logits + blockIdx.x * dim;
  for (int64_t column = threadIdx.x * N; column < dim; column += kRowThreads * N) {
    float values[N];
    load(row + column, values);
    f(column, values);
  }
}

template <int N>
__global__ void __launch_bounds__(kRowThreads) row_maxima(const float* logits, int64_t dim, float* row_max) {
  float largest = -INFINITY;
  for_row<N>(logits, dim, [&](int64_t, const float(&x)[N]) {
#pragma unroll
    for (int e = 0; e < N; ++e) largest = fmaxf(largest, x[e]);
  });
  largest = block_max<kRowThreads>(largest);
  if (threadIdx.x == 0) row_max[blockIdx.x] = largest;
}

/// Rows start out as they are, but for the largest of all logits, which cancels: r = exp((row_max − largest) /
/// temperature).
__global__ void __launch_bounds__(kRowThreads)
    first_row_factors(const float* row_max, int64_t rows, const StepScalars* step, float* factors) {
  const float sharpen = static_cast<float>(1 / step->teacher_temp);
  float largest = -INFINITY;
  for (int64_t row = threadIdx.x; row < rows; row += kRowThreads) largest = fmaxf(largest, row_max[row]);
  largest = block_max<kRowThreads>(largest);
  for (int64_t row = threadIdx.x; row < rows; row += kRowThreads)
    factors[row] = expf((row_max[row] - largest) * sharpen);
}

/// c = 1 / Eᵀr. A block takes 32 packs of columns; each of its warps takes every eighth eight of rows, and the sums of
/// the warps are added in order. A prototype that nobody comes near has mass 0 in f32; it stays empty.
template <int N>
__global__ void __launch_bounds__(kThreads)
    scale_columns(const float* logits, const float* row_max, const float* row_factors, int64_t rows, int64_t dim,
                  const StepScalars* step, float* column_factors) {
  __shared__ float of_warps[kWarps][32 * N];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t begin = int64_t{blockIdx.x} * (32 * N), column = begin + lane * N;
  const float sharpen = static_cast<float>(1 / step->teacher_temp);
  float mass[N] = {};
  // Eight rows in a row, so that their factors come in one access.
  for (int64_t first = warp * 8; first < rows; first += kWarps * 8) {
    const int count = static_cast<int>(min(rows - first, int64_t{8}));
    const float own_max = lane < count ? row_max[first + lane] : 0,
                own_factor = lane < count ? row_factors[first + lane] : 0;
#pragma unroll 4
    for (int j = 0; j < count; ++j) {
      const float largest = __shfl_sync(0xFFFFFFFFu, own_max, j), factor = __shfl_sync(0xFFFFFFFFu, own_factor, j);
      if (column >= dim) continue;
      float x[N];
      load(logits + (first + j) * dim + column, x);
#pragma unroll
      for (int e = 0; e < N; ++e) mass[e] = fmaf(expf((x[e] - largest) * sharpen), factor, mass[e]);
    }
  }
  store(&of_warps[warp][lane * N], mass);
  __syncthreads();
  if (threadIdx.x >= 32 * N || begin + threadIdx.x >= dim) return;
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += of_warps[w][threadIdx.x];
  column_factors[begin + threadIdx.x] = total > 0 ? 1 / total : 0.0f;
}

/// r = 1 / Ec, a block per row; after the last iteration also p.
template <int N>
__global__ void __launch_bounds__(kRowThreads)
    scale_rows(const float* logits, const float* row_max, const float* column_factors, int64_t dim,
               const StepScalars* step, float* row_factors, float* p) {
  const float sharpen = static_cast<float>(1 / step->teacher_temp), largest = row_max[blockIdx.x];
  float sum = 0;
  for_row<N>(logits, dim, [&](int64_t column, const float(&x)[N]) {
    float factor[N];
    load(column_factors + column, factor);
#pragma unroll
    for (int e = 0; e < N; ++e) sum = fmaf(expf((x[e] - largest) * sharpen), factor[e], sum);
  });
  const float scale = 1 / block_sum<kRowThreads>(sum);
  if (!p) {
    if (threadIdx.x == 0) row_factors[blockIdx.x] = scale;
    return;
  }
  for_row<N>(logits, dim, [&](int64_t column, float(&x)[N]) {
    float factor[N];
    load(column_factors + column, factor);
#pragma unroll
    for (int e = 0; e < N; ++e) x[e] = expf((x[e] - largest) * sharpen) * factor[e] * scale;
    store(p + blockIdx.x * dim + column, x);
  });
}

template <int N>
void run(CudaStream& stream, const View& x, int iterations, float* p) {
  const int64_t rows = x.rows(), dim = x.cols();
  const float* logits = x.as<float>();
  float* column_factors = reinterpret_cast<float*>(stream.scratch(static_cast<size_t>(dim + 2 * rows) * sizeof(float)));
  float *row_max = column_factors + dim, *row_factors = row_max + rows;
  launch(stream, "sinkhorn: maxima", row_maxima<N>, {blocks_for(rows, 1), kRowThreads}, logits, dim, row_max);
  launch(stream, "sinkhorn: first factors", first_row_factors, {1, kRowThreads}, row_max, rows, stream.step(),
         row_factors);
  for (int i = 0; i < iterations; ++i) {
    launch(stream, "sinkhorn: columns", scale_columns<N>, {blocks_for(dim, 32 * N), kThreads}, logits, row_max,
           row_factors, rows, dim, stream.step(), column_factors);
    launch(stream, "sinkhorn: rows", scale_rows<N>, {blocks_for(rows, 1), kRowThreads}, logits, row_max, column_factors,
           dim, stream.step(), row_factors, i + 1 == iterations ? p : nullptr);
  }
}

}  // namespace sinkhorn_cu

void Sinkhorn::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  if (fits_packs<float, 4>(in[logits]) && fits_packs<float, 4>(out[p]))
    run<4>(stream, in[logits], iterations, out[p].as<float>());
  else
    run<1>(stream, in[logits], iterations, out[p].as<float>());
}

}  // namespace dino
