#include "kernels/block_sum_f64.cuh"
#include "kernels/device_math.cuh"
#include "kernels/dino_loss.h"
#include "kernels/launch.cuh"
#include "kernels/store_whole.cuh"

// Entropies of the teacher's targets, and how many prototypes are anybody's largest. The matrix is read once, and sums over 64 rows of
// it twice.
namespace dino {
inline namespace teacher_targets_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kColumns = 4;  // per thread
constexpr int kChunk = kThreads * kColumns;
constexpr int kGroupRows = 64;

/// The largest of some elements of a row, the first of them if there are several.
struct alignas(8) Largest {
  float value;
  int column;
};

__device__ void join(Largest& best, const Largest& other) {
  if (other.value > best.value || (other.value == best.value && other.column < best.column)) best = other;
}

__device__ Largest warp_largest(Largest best) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    join(best, {__shfl_xor_sync(0xFFFFFFFFu, best.value, offset), __shfl_xor_sync(0xFFFFFFFFu, best.column, offset)});
  return best;
}

__device__ float entropy_term(float x) { return x > 0 ? -x * logf(x) : 0.0f; }

/// What launches leave for each other. Groups are of `kGroupRows` rows, chunks of `kChunk` columns.
struct Parts {
  double* entropies;       ///< [groups · chunks]
  double* mean_entropies;  ///< [chunks]
  int* used_counts;        ///< [chunks]
  float* column_sums;      ///< [groups, dim]
  Largest* largest;        ///< [chunks, rows]
  int* used;               ///< [dim]: 1 for the largest of somebody
  int64_t rows, dim, groups, chunks;
};

/// Sums over a group, and nothing used so far, for the columns of a thread.
template <bool kPacked, class Column>
__device__ void write_columns(const Parts& parts, int64_t group, const Column& column, const float (&sums)[kColumns]) {
  float* group_sums = parts.column_sums + group * parts.dim;
  if constexpr (kPacked) {
    constexpr float kUnused[kColumns] = {};  // the bits of integers 0
    if (column(0) >= parts.dim) return;
    store_whole(group_sums + column(0), sums);
    if (group == 0) store_whole(reinterpret_cast<float*>(parts.used) + column(0), kUnused);
  } else {
#pragma unroll
    for (int e = 0; e < kColumns; ++e) {
      if (column(e) >= parts.dim) continue;
      group_sums[column(e)] = sums[e];
      if (group == 0) parts.used[column(e)] = 0;
    }
  }
}

/// A block takes the rows of one group and a chunk of their columns; a thread keeps its columns.
template <bool kPacked>
__global__ void __launch_bounds__(kThreads) statistics_of_parts(const float* p, Parts parts) {
  __shared__ Largest of_warps[kWarps][kGroupRows];
  const int64_t chunk = blockIdx.x % parts.chunks, group = blockIdx.x / parts.chunks;
  const int64_t first = group * kGroupRows, count = min(int64_t{kGroupRows}, parts.rows - first);
  // Without packs the columns of a thread lie apart, so that those of a warp lie together.
  const auto column = [&](int e) {
    return chunk * kChunk + (kPacked ? threadIdx.x * kColumns + e : e * kThreads + threadIdx.x);
  };
  float sums[kColumns] = {};
  double entropy = 0;
  for (int64_t row = 0; row < count; ++row) {
    const float* target = p + (first + row) * parts.dim;
    float value[kColumns] = {};
    if (kPacked && column(0) < parts.dim) load(target + column(0), value);
    Largest best{-INFINITY, 0x7FFFFFFF};
    float terms = 0;
#pragma unroll
    for (int e = 0; e < kColumns; ++e) {
      if (column(e) >= parts.dim) continue;
      if (!kPacked) value[e] = target[column(e)];
      join(best, {value[e], static_cast<int>(column(e))});
      sums[e] += value[e];
      terms += entropy_term(value[e]);
    }
    entropy += static_cast<double>(terms);
    best = warp_largest(best);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32][row] = best;
  }
  write_columns<kPacked>(parts, group, column, sums);
  entropy = block_sum_f64<kThreads>(entropy);  // and all warps are done
  if (threadIdx.x == 0) parts.entropies[blockIdx.x] = entropy;
  if (threadIdx.x >= count) return;
  Largest best = of_warps[0][threadIdx.x];
  for (int warp = 1; warp < kWarps; ++warp) join(best, of_warps[warp][threadIdx.x]);
  parts.largest[chunk * parts.rows + first + threadIdx.x] = best;
}

/// A warp per row marks its largest.
__global__ void __launch_bounds__(kThreads) mark_largest(Parts parts) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= parts.rows) return;
  Largest best{-INFINITY, 0x7FFFFFFF};
  for (int64_t chunk = threadIdx.x % 32; chunk < parts.chunks; chunk += 32)
    join(best, parts.largest[chunk * parts.rows + row]);
  best = warp_largest(best);
  if (threadIdx.x % 32 == 0) atomicExch(parts.used + (best.column < parts.dim ? best.column : 0), 1);
}

/// The entropy of the mean over a chunk of columns, and how many of them are used.
__global__ void __launch_bounds__(kThreads) statistics_of_columns(Parts parts) {
  double entropy = 0, used = 0;
  for (int64_t column = blockIdx.x * int64_t{kChunk} + threadIdx.x;
       column < min((blockIdx.x + int64_t{1}) * kChunk, parts.dim); column += kThreads) {
    float sum = 0;
    for (int64_t group = 0; group < parts.groups; ++group) sum += parts.column_sums[group * parts.dim + column];
    entropy += static_cast<double>(entropy_term(sum / static_cast<float>(parts.rows)));
    used += parts.used[column];
  }
  entropy = block_sum_f64<kThreads>(entropy);
  used = block_sum_f64<kThreads>(used);
  if (threadIdx.x != 0) return;
  parts.mean_entropies[blockIdx.x] = entropy;
  parts.used_counts[blockIdx.x] = static_cast<int>(used);
}

__global__ void __launch_bounds__(kThreads) finish_statistics(Parts parts, float* statistics) {
  double sums[3] = {};
  for (int64_t i = threadIdx.x; i < parts.groups * parts.chunks; i += kThreads) sums[0] += parts.entropies[i];
  for (int64_t i = threadIdx.x; i < parts.chunks; i += kThreads) {
    sums[1] += parts.mean_entropies[i];
    sums[2] += parts.used_counts[i];
  }
  const double over[3] = {static_cast<double>(parts.rows), 1, static_cast<double>(parts.dim)};
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const double total = block_sum_f64<kThreads>(sums[i]);
    if (threadIdx.x == 0) statistics[i] = static_cast<float>(total / over[i]);
  }
}

/// Memory for all parts, one behind the other.
Parts allocate_parts(CudaStream& stream, const View& p) {
  Parts parts{};
  parts.rows = p.rows();
  parts.dim = p.cols();
  parts.groups = (parts.rows + kGroupRows - 1) / kGroupRows;
  parts.chunks = (parts.dim + kChunk - 1) / kChunk;
  std::byte* memory = nullptr;
  size_t bytes = 0;
  const auto take = [&]<class T>(T*& part, int64_t count) {
    part = reinterpret_cast<T*>(memory + bytes);
    bytes += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
  };
  const auto take_all = [&] {
    bytes = 0;
    take(parts.entropies, parts.groups * parts.chunks);
    take(parts.mean_entropies, parts.chunks);
    take(parts.used_counts, parts.chunks);
    take(parts.column_sums, parts.groups * parts.dim);
    take(parts.largest, parts.rows * parts.chunks);
    take(parts.used, parts.dim);
  };
  take_all();
  memory = stream.scratch(bytes);
  take_all();
  return parts;
}

}  // namespace teacher_targets_cu

void TargetStatistics::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const Parts parts = allocate_parts(stream, in[p]);
  launch(stream, "target statistics",
         fits_packs<float, 4>(in[p]) ? statistics_of_parts<true> : statistics_of_parts<false>,
         {blocks_for(parts.groups * parts.chunks, 1), kThreads}, in[p].as<float>(), parts);
  launch(stream, "target statistics: largest", mark_largest, {blocks_for(parts.rows, kWarps), kThreads}, parts);
  launch(stream, "target statistics: columns", statistics_of_columns, {blocks_for(parts.chunks, 1), kThreads}, parts);
  launch(stream, "target statistics", finish_statistics, {1, kThreads}, parts, out[statistics].as<float>());
}

}  // namespace dino
