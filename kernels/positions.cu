#include "kernels/bicubic.h"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/token_rows.cuh"
#include "kernels/tokens.h"

// One block per 32 columns of the embedding, whose rows it reads once, into shared memory: forward those of the stored embedding, to
// make the tables of positions of all groups, backward those of the gradients of the tables. Backward gathers: a thread finds the
// positions of each group that its entry is a tap of. All of it is small.
namespace dino {
inline namespace positions_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr size_t kMostShared = 96 << 10;  // what a block may have on every GPU since 8.0

/// How the stored grid becomes that of one group, whose rows of the table begin at `first_block`.
struct Resampling {
  int64_t grid, rows, cols;
  bool as_it_is;
  unsigned first_block;
};
using Resamplings = GroupBlocks<Resampling>;

/// Calls f(group, first of its taps) for the groups that there are.
template <class F>
__device__ void for_groups(const Resamplings& groups, const BicubicTaps* taps, const F& f) {
#pragma unroll
  for (int g = 0; g < Resamplings::kGroups; ++g) {
    const Resampling& r = groups.group[g];
    if (r.first_block == ~0u) break;
    f(r, taps);
    taps += r.rows + r.cols;
  }
}

/// Some columns of a matrix for a block of threads (columns, …), and the taps of all groups: of each its rows, then its columns.
struct Work {
  BicubicTaps* taps;
  const float* data;
  int64_t pitch, column;
  bool exists;

  /// With `lines` > 0 columns are copied to shared memory behind the taps of so many lines.
  __device__ Work(const Resamplings& groups, const float* matrix, int64_t rows, int64_t dim, int64_t lines) {
    extern __shared__ double shared[];
    taps = reinterpret_cast<BicubicTaps*>(shared);
    column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    exists = column < dim;
    data = matrix + (exists ? column : 0);
    pitch = dim;
    for_groups(groups, taps, [&](const Resampling& r, const BicubicTaps* own) {
      for (int64_t i = threadIdx.y * blockDim.x + threadIdx.x; !r.as_it_is && i < r.rows + r.cols; i += kThreads)
        taps[own - taps + i] = i < r.rows ? position_taps(i, r.rows, r.grid) : position_taps(i - r.rows, r.cols, r.grid);
    });
    if (lines > 0) {
      float* copy = reinterpret_cast<float*>(taps + lines) + threadIdx.x;
      for (int64_t row = threadIdx.y; exists && row < rows; row += blockDim.y) copy[row * blockDim.x] = data[row * pitch];
      data = copy;
      pitch = blockDim.x;
    }
    __syncthreads();
  }
  __device__ float at(int64_t row) const { return data[row * pitch]; }
};

__device__ float resampled(const Work& work, const Resampling& r, const BicubicTaps* taps, int64_t row) {
  if (row == 0 || r.as_it_is) return work.at(row);
  const BicubicTaps &down = taps[(row - 1) / r.cols], &across = taps[r.rows + (row - 1) % r.cols];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      sum += static_cast<float>(down.weight[i] * across.weight[j]) * work.at(1 + down.index[i] * r.grid + across.index[j]);
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    resample(Resamplings groups, const float* stored, int64_t entries, int64_t dim, int64_t lines, float* tables) {
  const Work work(groups, stored, entries, dim, lines);
  if (!work.exists) return;
  for_groups(groups, work.taps, [&](const Resampling& r, const BicubicTaps* taps) {
    for (int64_t row = threadIdx.y; row < 1 + r.rows * r.cols; row += blockDim.y)
      tables[(r.first_block + row) * dim + work.column] = resampled(work, r, taps, row);
  });
}

/// What entry `source` of a line of the grid adds to the coordinate of these taps; several of them are one entry at the edges.
__device__ double weight_of(int64_t source, const BicubicTaps& taps) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) sum += taps.index[i] == source ? taps.weight[i] : 0;
  return sum;
}

/// What stored entry `row` gets from one group's table.
__device__ float sum_of_taps(const Work& work, const Resampling& r, const BicubicTaps* taps, int64_t row) {
  if (row == 0 || r.as_it_is) return work.at(r.first_block + row);
  float sum = 0;
  for (int64_t y = 0; y < r.rows; ++y) {
    const double down = weight_of((row - 1) / r.grid, taps[y]);
    if (down == 0) continue;
    for (int64_t x = 0; x < r.cols; ++x)
      if (const double across = weight_of((row - 1) % r.grid, taps[r.rows + x]); across != 0)
        sum += static_cast<float>(down * across) * work.at(r.first_block + 1 + y * r.cols + x);
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    resample_backward(Resamplings groups, const float* dtables, int64_t entries, int64_t dim, int64_t lines, float* dstored,
                      bool add) {
  const Work work(groups, dtables, groups.blocks, dim, lines);
  if (!work.exists) return;
  for (int64_t row = threadIdx.y; row < entries; row += blockDim.y) {
    float sum = 0;
    for_groups(groups, work.taps,
               [&](const Resampling& r, const BicubicTaps* taps) { sum += sum_of_taps(work, r, taps, row); });
    float& target = dstored[row * dim + work.column];
    target = add ? target + sum : sum;
  }
}

Resamplings resamplings(const InterpolatePositions& op, int64_t grid) {
  Resamplings groups;
  for (int g = 0; g < op.sequences.groups; ++g) {
    const Sequences::Group& group = op.sequences.group[static_cast<size_t>(g)];
    const bool as_it_is = group.patches() == grid * grid && op.square[static_cast<size_t>(g)];
    groups.add(g, {grid, group.rows, group.cols, as_it_is, 0}, group.length());
  }
  return groups;
}

/// Calls start(grid, lines), where lines are 0 if `rows` do not fit into shared memory: with 32 columns, or with 8, which still are
/// whole sectors.
template <class F>
void for_columns(const InterpolatePositions& op, int64_t rows, int64_t dim, const F& start) {
  int64_t lines = 0;
  for (int g = 0; g < op.sequences.groups; ++g)
    lines += op.sequences.group[static_cast<size_t>(g)].rows + op.sequences.group[static_cast<size_t>(g)].cols;
  const size_t taps = static_cast<size_t>(lines) * sizeof(BicubicTaps);
  dino::check(taps <= kMostShared, "interpolate_positions: on a GPU, images must have at most ", kMostShared / sizeof(BicubicTaps),
              " rows and columns of patches; got ", lines);
  for (const unsigned columns : {32u, 8u}) {
    const size_t bytes = taps + static_cast<size_t>(rows) * columns * sizeof(float);
    if (bytes <= kMostShared) return start(Grid{blocks_for(dim, columns), {columns, kThreads / columns}, bytes}, lines);
  }
  start(Grid{blocks_for(dim, 32), {32, kThreads / 32}, taps}, int64_t{0});
}

}  // namespace positions_cu

void InterpolatePositions::forward(CudaStream& stream, std::span<const View> in,
                                   std::span<const View> out) const {
  const View& stored = in[pos_embed];
  const int64_t grid = grid_of_positions(stored.spec()), entries = 1 + grid * grid;
  for_columns(*this, entries, stored.cols(), [&](const Grid& launched, int64_t lines) {
    launch(stream, "interpolate_positions", resample, launched, resamplings(*this, grid), stored.as<float>(), entries, stored.cols(),
           lines, out[positions].as<float>());
  });
}

void InterpolatePositions::backward(CudaStream& stream, std::span<const View>, std::span<const View>,
                                    std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& grad = din[pos_embed];
  if (!grad.wanted()) return;
  const int64_t grid = grid_of_positions(grad.view.spec()), dim = grad.view.cols();
  const Resamplings groups = resamplings(*this, grid);
  for_columns(*this, groups.blocks, dim, [&](const Grid& launched, int64_t lines) {
    launch(stream, "interpolate_positions backward", resample_backward, launched, groups, dout[positions].as<float>(), 1 + grid * grid,
           dim, lines, grad.view.as<float>(), grad.mode == GradMode::add);
  });
}

}  // namespace dino
