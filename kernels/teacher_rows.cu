#include "kernels/column_strips.cuh"
#include "kernels/dino_loss.h"
#include "kernels/last_block.cuh"
#include "kernels/launch.cuh"

// TeacherSoftmax and CenteredUnit: what the teacher's logits without the center become, by a sum over each row. Blocks take strips
// of columns, with the center in registers, twice: for sums of parts of rows, which the last block adds up, and to write. So
// logits are read twice, the second time out of the L2 cache as far as it goes: 12 bytes per element. A block per row would
// read the center for each row, and a row of 65,536 logits does not fit into the registers of one.
namespace dino {
inline namespace teacher_rows_cu {

using namespace cuda;

/// A row, or a part of it: its largest value and a sum. In the end, what its values are multiplied with instead of the sum.
struct alignas(8) RowSum {
  float largest, sum;
};

/// exp(x / temperature) over its sum.
struct Softmax {
  const StepScalars* step;
  float sharpen = 0;

  __device__ void start() { sharpen = static_cast<float>(1 / step->teacher_temp); }
  __device__ float largest(float x) const { return x; }
  __device__ float term(float x, float largest) const { return expf((x - largest) * sharpen); }
  __device__ void join(RowSum& a, const RowSum& b) const {
    const float top = fmaxf(a.largest, b.largest);
    if (a.sum != 0) a.sum *= term(a.largest, top);
    if (b.sum != 0) a.sum += b.sum * term(b.largest, top);
    a.largest = top;
  }
  __device__ float factor(float sum) const { return 1 / sum; }
  __device__ float value(float x, const RowSum& row) const { return term(x, row.largest) * row.sum; }
};

/// x over the length of its row.
struct UnitLength {
  __device__ void start() {}
  __device__ float largest(float) const { return 0; }
  __device__ float term(float x, float) const { return x * x; }
  __device__ void join(RowSum& a, const RowSum& b) const { a.sum += b.sum; }
  __device__ float factor(float sum) const { return 1 / fmaxf(sqrtf(sum), 1e-12f); }
  __device__ float value(float x, const RowSum& row) const { return x * row.sum; }
};

__device__ RowSum exchanged(const RowSum& x, int lanes) {
  return {__shfl_xor_sync(0xFFFFFFFFu, x.largest, lanes), __shfl_xor_sync(0xFFFFFFFFu, x.sum, lanes)};
}

/// A strip of logits from which the center is taken.
template <int N>
struct Centered : Strip<N> {
  const float* logits;
  float center[kStripPacks][N] = {};

  __device__ Centered(const float* logits, const float* center_, int64_t dim) : Strip<N>(dim), logits(logits) {
    if (center_) load_strip(*this, center_, center);
  }
  __device__ void load_row(int64_t row, float (&x)[kStripPacks][N]) const {
    this->for_packs([&](int i, int64_t column) {
      load(logits + row * this->dim + column, x[i]);
#pragma unroll
      for (int e = 0; e < N; ++e) x[i][e] -= center[i][e];
    });
  }
};

/// Sums of the parts of all rows that lie in a strip: parts [strips, rows]. The last warp of all strips that is done with eight rows
/// makes them `sums`: it takes every fourth strip per lane, and adds four lanes up in order.
template <class F, int N>
__global__ void __launch_bounds__(kStripThreads, 4)
    sum_teacher_rows(F f, const float* logits, const float* center, int64_t rows, int64_t dim, RowSum* parts, RowSum* sums,
                     unsigned* counters) {
  const int lane = threadIdx.x % 32;
  f.start();
  const Centered<N> strip(logits, center, dim);
  for_strip_rows(rows, [&](int64_t first, int count) {
    RowSum own{};
#pragma unroll 2
    for (int j = 0; j < count; ++j) {
      float x[kStripPacks][N], largest = -INFINITY, sum = 0;
      strip.load_row(first + j, x);
      strip.for_packs([&](int i, int64_t) {
#pragma unroll
        for (const float value : x[i]) largest = fmaxf(largest, value);
      });
      largest = f.largest(warp_max(largest));
      strip.for_packs([&](int i, int64_t) {
#pragma unroll
        for (const float value : x[i]) sum += f.term(value, largest);
      });
      sum = warp_sum(sum);
      if (lane == j) own = {largest, sum};
    }
    if (lane < count) parts[blockIdx.x * rows + first + lane] = own;
    if (!is_last_warp(counters + first / kStripRows, gridDim.x)) return;
    const int row = lane % kStripRows, lanes = 32 / kStripRows;
    RowSum total = parts[(lane / kStripRows % gridDim.x) * rows + first + min(row, count - 1)];
    if (lane / kStripRows >= gridDim.x) total.sum = 0;
#pragma unroll 4
    for (int64_t part = lane / kStripRows + lanes; part < gridDim.x; part += lanes)
      f.join(total, parts[part * rows + first + min(row, count - 1)]);
    for (int distance = kStripRows; distance < 32; distance *= 2) f.join(total, exchanged(total, distance));
    if (lane < count) sums[first + lane] = {total.largest, f.factor(total.sum)};
  });
}

template <class F, int N>
__global__ void __launch_bounds__(kStripThreads)
    write_teacher_rows(F f, const float* logits, const float* center, int64_t rows, int64_t dim, const RowSum* sums, float* p) {
  const int lane = threadIdx.x % 32;
  f.start();
  const Centered<N> strip(logits, center, dim);
  for_strip_rows(rows, [&](int64_t first, int count) {
    const RowSum own = lane < count ? sums[first + lane] : RowSum{};
#pragma unroll 2
    for (int j = 0; j < count; ++j) {
      const RowSum row{__shfl_sync(0xFFFFFFFFu, own.largest, j), __shfl_sync(0xFFFFFFFFu, own.sum, j)};
      float x[kStripPacks][N];
      strip.load_row(first + j, x);
      strip.for_packs([&](int i, int64_t column) {
#pragma unroll
        for (float& value : x[i]) value = f.value(value, row);
        store_pack(p + (first + j) * dim + column, x[i]);
      });
    }
  });
}

template <int N, class F>
void run(CudaStream& stream, const char* name, const F& f, const View& logits, const View& center, const View& p) {
  const int64_t rows = logits.rows(), dim = logits.cols(), strips = strips_of<N>(dim);
  RowSum* parts = reinterpret_cast<RowSum*>(stream.scratch(static_cast<size_t>((strips + 1) * rows) * sizeof(RowSum)));
  RowSum* sums = parts + strips * rows;
  const Grid grid{blocks_for(rows > 0 ? strips : 0, 1), kStripThreads};
  unsigned* counters = tickets(stream, static_cast<size_t>((rows + kStripRows - 1) / kStripRows));
  launch(stream, name, sum_teacher_rows<F, N>, grid, f, logits.as<float>(), center.as<float>(), rows, dim, parts, sums, counters);
  launch(stream, name, write_teacher_rows<F, N>, grid, f, logits.as<float>(), center.as<float>(), rows, dim, sums, p.as<float>());
}

template <class F>
void run(CudaStream& stream, const char* name, const F& f, const View& logits, const View& center, const View& p) {
  if (fits_packs<float, 4>(logits) && fits_packs<float, 4>(center) && fits_packs<float, 4>(p))
    run<4>(stream, name, f, logits, center, p);
  else
    run<1>(stream, name, f, logits, center, p);
}

}  // namespace teacher_rows_cu

void TeacherSoftmax::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  run(stream, "teacher softmax", Softmax{stream.step()}, in[logits], in[center], out[p]);
}

void CenteredUnit::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  run(stream, "centered unit", UnitLength{}, in[logits], in[center], out[p]);
}

}  // namespace dino
