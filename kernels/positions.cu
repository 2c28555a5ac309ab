#include "kernels/bicubic.h"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/token_rows.cuh"
#include "kernels/tokens.h"

// One block per row of the result, which is small: the tables of positions of all groups forward, the stored
// embedding backward. Backward gathers: a block finds the positions of each group that its entry is a tap of.
namespace dino {
inline namespace positions_cu {

using namespace cuda;

constexpr int kThreads = 128;

/// How the stored grid becomes that of one group, whose rows of the table begin at `first_block`.
struct Resampling {
  int64_t grid, rows, cols;
  bool as_it_is;
  int64_t dim;
  unsigned first_block;
};
using Resamplings = GroupBlocks<Resampling>;

__global__ void __launch_bounds__(kThreads, 1)
    resample(Resamplings groups, const float* stored, float* tables) {
  const Resampling r = groups.of(blockIdx.x);
  const int64_t row = blockIdx.x - r.first_block;
  float* target = tables + blockIdx.x * r.dim;
  if (row == 0 || r.as_it_is) {
    for (int64_t col = threadIdx.x; col < r.dim; col += kThreads) target[col] = stored[row * r.dim + col];
    return;
  }
  const BicubicTaps down = position_taps((row - 1) / r.cols, r.rows, r.grid),
                    across = position_taps((row - 1) % r.cols, r.cols, r.grid);
  for (int64_t col = threadIdx.x; col < r.dim; col += kThreads) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        sum += static_cast<float>(down.weight[i] * across.weight[j]) *
               stored[(1 + down.index[i] * r.grid + across.index[j]) * r.dim + col];
    target[col] = sum;
  }
}

/// What entry `source` of a line of the grid adds to coordinate `out`; several taps are one entry at the
/// edges.
__device__ double weight_of(int64_t source, int64_t out, int64_t out_size, int64_t grid) {
  const BicubicTaps taps = position_taps(out, out_size, grid);
  double sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) sum += taps.index[i] == source ? taps.weight[i] : 0;
  return sum;
}

/// The sum that column `col` of stored entry `row` gets from one group's table.
__device__ float sum_of_taps(const Resampling& r, const double* weights, const float* dtable, int64_t row,
                             int64_t col) {
  if (row == 0 || r.as_it_is) return dtable[row * r.dim + col];
  float sum = 0;
  for (int64_t y = 0; y < r.rows; ++y) {
    if (weights[y] == 0) continue;
    for (int64_t x = 0; x < r.cols; ++x) {
      const double across = weights[r.rows + x];
      if (across != 0)
        sum += static_cast<float>(weights[y] * across) * dtable[(1 + y * r.cols + x) * r.dim + col];
    }
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    resample_backward(Resamplings groups, const float* dtables, int64_t dim, float* dstored, bool add) {
  extern __shared__ double weights[];  // of each group: of the rows, then of the columns
  const int64_t row = blockIdx.x;
  double* own = weights;
#pragma unroll
  for (int g = 0; g < Resamplings::kGroups; ++g) {
    const Resampling& r = groups.group[g];
    if (r.first_block == ~0u) break;
    if (row > 0 && !r.as_it_is)
      for (int64_t i = threadIdx.x; i < r.rows + r.cols; i += kThreads)
        own[i] = i < r.rows ? weight_of((row - 1) / r.grid, i, r.rows, r.grid)
                            : weight_of((row - 1) % r.grid, i - r.rows, r.cols, r.grid);
    own += r.rows + r.cols;
  }
  __syncthreads();
  for (int64_t col = threadIdx.x; col < dim; col += kThreads) {
    float sum = 0;
    own = weights;
#pragma unroll
    for (int g = 0; g < Resamplings::kGroups; ++g) {
      const Resampling& r = groups.group[g];
      if (r.first_block == ~0u) break;
      sum += sum_of_taps(r, own, dtables + r.first_block * dim, row, col);
      own += r.rows + r.cols;
    }
    float& target = dstored[row * dim + col];
    target = add ? target + sum : sum;
  }
}

Resamplings resamplings(const InterpolatePositions& op, int64_t grid, int64_t dim) {
  Resamplings groups;
  for (int g = 0; g < op.sequences.groups; ++g) {
    const Sequences::Group& group = op.sequences.group[static_cast<size_t>(g)];
    const bool as_it_is = group.patches() == grid * grid && op.square[static_cast<size_t>(g)];
    groups.add(g, {grid, group.rows, group.cols, as_it_is, dim, 0}, group.length());
  }
  return groups;
}

}  // namespace positions_cu

void InterpolatePositions::forward(CudaStream& stream, std::span<const View> in,
                                   std::span<const View> out) const {
  const View& stored = in[pos_embed];
  const Resamplings groups = resamplings(*this, grid_of_positions(stored.spec()), stored.cols());
  launch(stream, "interpolate_positions", resample, {groups.blocks, kThreads}, groups, stored.as<float>(),
         out[positions].as<float>());
}

void InterpolatePositions::backward(CudaStream& stream, std::span<const View>, std::span<const View>,
                                    std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& grad = din[pos_embed];
  if (!grad.wanted()) return;
  const int64_t grid = grid_of_positions(grad.view.spec());
  int64_t lines = 0;
  for (int g = 0; g < sequences.groups; ++g)
    lines += sequences.group[static_cast<size_t>(g)].rows + sequences.group[static_cast<size_t>(g)].cols;
  launch(stream, "interpolate_positions backward", resample_backward,
         {blocks_for(1 + grid * grid, 1), kThreads, static_cast<size_t>(lines) * sizeof(double)},
         resamplings(*this, grid, grad.view.cols()), dout[positions].as<float>(), grad.view.cols(),
         grad.view.as<float>(), grad.mode == GradMode::add);
}

}  // namespace dino
