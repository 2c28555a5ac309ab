#include "kernels/sinkhorn.h"

#include "kernels/column_strips.cuh"
#include "kernels/launch.cuh"

// The matrix is never scaled in memory: with E = exp((logits − largest of the row) / temperature), p = diag(r) · E ·
// diag(c), and an iteration is c = 1 / Eᵀr, then r = 1 / Ec. E is worked out again wherever it is needed, so there are
// two reads of the logits per iteration, one before for the largest of rows, and one after to write p. Those after the
// first come out of the L2 cache as far as it goes. Factors of columns stay in registers, since blocks take strips of columns.
namespace dino {
inline namespace sinkhorn_cu {

using namespace cuda;

constexpr int kRowThreads = 512;
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
/// temperature). One warp.
__global__ void __launch_bounds__(32)
    first_row_factors(const float* row_max, int64_t rows, const StepScalars* step, float* factors) {
  const float sharpen = static_cast<float>(1 / step->teacher_temp);
  float largest = -INFINITY;
  for (int64_t row = threadIdx.x; row < rows; row += 32) largest = fmaxf(largest, row_max[row]);
  largest = warp_max(largest);
  for (int64_t row = threadIdx.x; row < rows; row += 32) factors[row] = expf((row_max[row] - largest) * sharpen);
}

/// c = 1 / Eᵀr. The sums of the warps of a block are added in order. A prototype that nobody comes near has mass 0 in f32; it
/// stays empty.
template <int N>
__global__ void __launch_bounds__(kStripThreads, 5)
    scale_columns(const float* logits, const float* row_max, const float* row_factors, int64_t rows, int64_t dim,
                  const StepScalars* step, float* column_factors) {
  __shared__ alignas(16) float of_warps[kStripWarps][Strip<N>::kColumns];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Strip<N> strip(dim);
  const float sharpen = static_cast<float>(1 / step->teacher_temp);
  float mass[kStripPacks][N] = {};
  for_strip_rows(rows, [&](int64_t first, int count) {
    const float own_max = lane < count ? row_max[first + lane] : 0,
                own_factor = lane < count ? row_factors[first + lane] : 0;
#pragma unroll 2  // more would spill on sm_100
    for (int j = 0; j < count; ++j) {
      const float largest = __shfl_sync(0xFFFFFFFFu, own_max, j), factor = __shfl_sync(0xFFFFFFFFu, own_factor, j);
      strip.for_packs([&](int i, int64_t column) {
        float x[N];
        load(logits + (first + j) * dim + column, x);
#pragma unroll
        for (int e = 0; e < N; ++e) mass[i][e] = fmaf(expf((x[e] - largest) * sharpen), factor, mass[i][e]);
      });
    }
  });
#pragma unroll
  for (int i = 0; i < kStripPacks; ++i) store(&of_warps[warp][(i * 32 + lane) * N], mass[i]);
  __syncthreads();
  for (int column = threadIdx.x; column < Strip<N>::kColumns && strip.begin + column < dim; column += kStripThreads) {
    float total = 0;
    for (int w = 0; w < kStripWarps; ++w) total += of_warps[w][column];
    column_factors[strip.begin + column] = total > 0 ? 1 / total : 0.0f;
  }
}

/// Ec of every row, as far as it comes from the columns of a block: parts [strips, rows].
template <int N>
__global__ void __launch_bounds__(kStripThreads)
    sum_rows(const float* logits, const float* row_max, const float* column_factors, int64_t rows, int64_t dim,
             const StepScalars* step, float* parts) {
  const int lane = threadIdx.x % 32;
  const Strip<N> strip(dim);
  const float sharpen = static_cast<float>(1 / step->teacher_temp);
  float factor[kStripPacks][N];
  load_strip(strip, column_factors, factor);
  for_strip_rows(rows, [&](int64_t first, int count) {
    const float own_max = lane < count ? row_max[first + lane] : 0;
    float own_sum = 0;
#pragma unroll 4
    for (int j = 0; j < count; ++j) {
      const float largest = __shfl_sync(0xFFFFFFFFu, own_max, j);
      float sum = 0;
      strip.for_packs([&](int i, int64_t column) {
        float x[N];
        load(logits + (first + j) * dim + column, x);
#pragma unroll
        for (int e = 0; e < N; ++e) sum = fmaf(expf((x[e] - largest) * sharpen), factor[i][e], sum);
      });
      sum = warp_sum(sum);
      if (lane == j) own_sum = sum;
    }
    if (lane < count) parts[blockIdx.x * rows + first + lane] = own_sum;
  });
}

/// r = 1 / Ec for 32 rows: a warp takes every eighth strip, and the sums of the warps are added in order.
__global__ void __launch_bounds__(kStripThreads)
    scale_rows(const float* parts, int64_t strips, int64_t rows, float* row_factors) {
  __shared__ float of_warps[kStripWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t row = int64_t{blockIdx.x} * 32 + lane;
  float sum = 0;
  if (row < rows)
#pragma unroll 8
    for (int64_t strip = warp; strip < strips; strip += kStripWarps) sum += parts[strip * rows + row];
  of_warps[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || row >= rows) return;
  float total = 0;
  for (int w = 0; w < kStripWarps; ++w) total += of_warps[w][lane];
  row_factors[row] = 1 / total;
}

template <int N>
__global__ void __launch_bounds__(kStripThreads)
    write_targets(const float* logits, const float* row_max, const float* row_factors, const float* column_factors, int64_t rows,
                  int64_t dim, const StepScalars* step, float* p) {
  const int lane = threadIdx.x % 32;
  const Strip<N> strip(dim);
  const float sharpen = static_cast<float>(1 / step->teacher_temp);
  float factor[kStripPacks][N];
  load_strip(strip, column_factors, factor);
  for_strip_rows(rows, [&](int64_t first, int count) {
    const float own_max = lane < count ? row_max[first + lane] : 0,
                own_factor = lane < count ? row_factors[first + lane] : 0;
#pragma unroll 4
    for (int j = 0; j < count; ++j) {
      const float largest = __shfl_sync(0xFFFFFFFFu, own_max, j), scale = __shfl_sync(0xFFFFFFFFu, own_factor, j);
      strip.for_packs([&](int i, int64_t column) {
        float x[N];
        load(logits + (first + j) * dim + column, x);
#pragma unroll
        for (int e = 0; e < N; ++e) x[e] = expf((x[e] - largest) * sharpen) * factor[i][e] * scale;
        store_pack(p + (first + j) * dim + column, x);
      });
    }
  });
}

template <int N>
void run(CudaStream& stream, const View& x, int iterations, float* p) {
  const int64_t rows = x.rows(), dim = x.cols(), strips = strips_of<N>(dim);
  const float* logits = x.as<float>();
  float* column_factors = reinterpret_cast<float*>(stream.scratch(static_cast<size_t>(dim + (2 + strips) * rows) * sizeof(float)));
  float *row_max = column_factors + dim, *row_factors = row_max + rows, *parts = row_factors + rows;
  const Grid by_strips{blocks_for(strips, 1), kStripThreads};
  launch(stream, "sinkhorn: maxima", row_maxima<N>, {blocks_for(rows, 1), kRowThreads}, logits, dim, row_max);
  launch(stream, "sinkhorn: first factors", first_row_factors, {1, 32}, row_max, rows, stream.step(), row_factors);
  for (int i = 0; i < iterations; ++i) {
    launch(stream, "sinkhorn: columns", scale_columns<N>, by_strips, logits, row_max, row_factors, rows, dim, stream.step(),
           column_factors);
    launch(stream, "sinkhorn: parts of rows", sum_rows<N>, by_strips, logits, row_max, column_factors, rows, dim, stream.step(),
           parts);
    launch(stream, "sinkhorn: rows", scale_rows, {blocks_for(rows, 32), kStripThreads}, parts, strips, rows, row_factors);
  }
  launch(stream, "sinkhorn", write_targets<N>, by_strips, logits, row_max, row_factors, column_factors, rows, dim, stream.step(), p);
}

}  // namespace sinkhorn_cu

void Sinkhorn::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  if (fits_packs<float, 4>(in[logits]) && fits_packs<float, 4>(out[p]))
    run<4>(stream, in[logits], iterations, out[p].as<float>());
  else
    run<1>(stream, in[logits], iterations, out[p].as<float>());
}

}  // namespace dino
