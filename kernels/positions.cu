#include "kernels/bicubic.h"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/tokens.h"

// One launch per group of images and one block per row of the result, which is small: a table of positions
// forward, the stored embedding backward. Backward gathers: a block finds the positions that its entry is a
// tap of.
namespace dino {
inline namespace positions_cu {

using namespace cuda;

constexpr int kThreads = 128;

/// How the stored grid becomes that of one group.
struct Resampling {
  int64_t grid, rows, cols;
  bool as_it_is;
  int64_t dim;
};

__global__ void __launch_bounds__(kThreads, 1) resample(Resampling r, const float* stored, float* table) {
  const int64_t row = blockIdx.x;
  float* target = table + row * r.dim;
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

__global__ void __launch_bounds__(kThreads)
    resample_backward(Resampling r, const float* dtable, float* dstored, bool add) {
  extern __shared__ double weights[];  // of the rows, then of the columns
  const int64_t row = blockIdx.x;
  const bool copied = row == 0 || r.as_it_is;
  if (!copied)
    for (int64_t i = threadIdx.x; i < r.rows + r.cols; i += kThreads)
      weights[i] = i < r.rows ? weight_of((row - 1) / r.grid, i, r.rows, r.grid)
                              : weight_of((row - 1) % r.grid, i - r.rows, r.cols, r.grid);
  __syncthreads();
  for (int64_t col = threadIdx.x; col < r.dim; col += kThreads) {
    float sum = 0;
    if (copied) sum = dtable[row * r.dim + col];
    for (int64_t y = 0; !copied && y < r.rows; ++y) {
      if (weights[y] == 0) continue;
      for (int64_t x = 0; x < r.cols; ++x) {
        const double across = weights[r.rows + x];
        if (across != 0)
          sum += static_cast<float>(weights[y] * across) * dtable[(1 + y * r.cols + x) * r.dim + col];
      }
    }
    float& target = dstored[row * r.dim + col];
    target = add ? target + sum : sum;
  }
}

/// Calls f(resampling, first row of the table) for every group.
template <class F>
void for_groups(const InterpolatePositions& op, int64_t grid, int64_t dim, const F& f) {
  int64_t row = 0;
  for (int g = 0; g < op.sequences.groups; ++g) {
    const Sequences::Group& group = op.sequences.group[static_cast<size_t>(g)];
    const bool as_it_is = group.patches() == grid * grid && op.square[static_cast<size_t>(g)];
    f(Resampling{grid, group.rows, group.cols, as_it_is, dim}, row);
    row += group.length();
  }
}

}  // namespace positions_cu

void InterpolatePositions::forward(CudaStream& stream, std::span<const View> in,
                                   std::span<const View> out) const {
  const View& stored = in[pos_embed];
  for_groups(
      *this, grid_of_positions(stored.spec()), stored.cols(), [&](const Resampling& r, int64_t first_row) {
        launch(stream, "interpolate_positions", resample, {blocks_for(1 + r.rows * r.cols, 1), kThreads}, r,
               stored.as<float>(), out[positions].row<float>(first_row));
      });
}

void InterpolatePositions::backward(CudaStream& stream, std::span<const View>, std::span<const View>,
                                    std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& grad = din[pos_embed];
  if (!grad.wanted()) return;
  const int64_t grid = grid_of_positions(grad.view.spec());
  for_groups(*this, grid, grad.view.cols(), [&](const Resampling& r, int64_t first_row) {
    const size_t shared_bytes = static_cast<size_t>(r.rows + r.cols) * sizeof(double);
    launch(stream, "interpolate_positions backward", resample_backward,
           {blocks_for(1 + grid * grid, 1), kThreads, shared_bytes}, r, dout[positions].row<float>(first_row),
           grad.view.as<float>(), first_row > 0 || grad.mode == GradMode::add);
  });
}

}  // namespace dino
