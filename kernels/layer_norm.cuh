#pragma once

#include "kernels/last_block.cuh"
#include "kernels/row_packs.cuh"

/// Kernels of layer norm, with and without a residual connection before it. A block takes up to 128 rows, a
/// warp one row at a time: forward reads x and writes y, backward reads x and dy and writes dx, each once.
/// Blocks hold gamma and beta in shared memory. Gradients of gamma and beta: each lane sums its columns over
/// the rows of its warp in registers, the warps of a block are added one after the other, and the last blocks
/// add up all of them in order. Rows that do not fit go through kernels that read memory again instead of
/// holding rows.
namespace dino::cuda {

constexpr int kNormThreads = 256;
constexpr int kNormWarps = kNormThreads / 32;

/// How rows are cut up among blocks and warps: by their number alone, since the order of sums follows from
/// it. Enough blocks for every multiprocessor, but not so many that their sums become much to read and write.
struct NormCut {
  int64_t per_warp;
  unsigned blocks;
  explicit NormCut(int64_t rows) {
    const int64_t wanted =
        std::clamp<int64_t>(rows / 128, std::clamp<int64_t>(rows / kNormWarps, 1, 128), 1024);
    per_warp = std::max<int64_t>(1, (rows + wanted * kNormWarps - 1) / (wanted * kNormWarps));
    blocks = blocks_for(rows, per_warp * kNormWarps);
  }
};

/// Calls body(first, count) for the rows of this warp, up to 32 at a time: lane l cares for what there is one
/// of for row first + l, which makes one access of 32 small ones.
template <class F>
__device__ void for_row_batches(int64_t rows, int64_t per_warp, const F& body) {
  int64_t first = (int64_t{blockIdx.x} * kNormWarps + threadIdx.x / 32) * per_warp;
  int left = static_cast<int>(min(per_warp, rows - first));
#pragma unroll 1
  for (; left > 0; first += 32, left -= 32) body(first, min(left, 32));
}

/// What a norm is computed with.
struct NormParameters {
  const float *gamma, *beta;
  float *mean, *rstd;
  float eps;
  int64_t rows;
  int dim;
};

/// Rows that are normalised as they are in memory.
struct PlainRows {
  const float* x;

  __device__ float factor(int64_t) const { return 1; }
  template <int N>
  __device__ void first(int64_t offset, float, float (&value)[N]) const {
    load(x + offset, value);
  }
  __device__ float again(int64_t offset) const { return x[offset]; }
};

/// Blocks of a multiprocessor at a time, which bound the registers. Without bounds the compiler rather spills
/// a register than have fewer blocks, but these are enough: each warp has a whole row in flight.
constexpr int forward_blocks(int count) { return count <= 2 ? 4 : count <= 3 ? 3 : 2; }
constexpr int backward_blocks(int count) { return count <= 2 ? 3 : count <= 3 ? 2 : 1; }

/// y[row] = normalised `source`, which gives elements at offset row · dim + column: `first` once, and after
/// that `again`.
template <class Source, class Y, int Count>
__global__ void __launch_bounds__(kNormThreads, forward_blocks(Count))
    normalize_held(Source source, NormParameters p, Y* y, int64_t per_warp) {
  __shared__ alignas(16) float gamma[Count * 32 * kPack], beta[Count * 32 * kPack];
  for (int col = static_cast<int>(threadIdx.x); col < p.dim; col += kNormThreads) {
    gamma[col] = p.gamma[col];
    beta[col] = p.beta[col];
  }
  __syncthreads();
  const int packs = p.dim / kPack, lane = static_cast<int>(threadIdx.x) % 32;
  for_row_batches(p.rows, per_warp, [&](int64_t first, int count) {
    const float own_factor = lane < count ? source.factor(first + lane) : 0;
    float own_mean = 0, own_rstd = 0;
    int64_t offset = first * p.dim;
#pragma unroll 1
    for (int r = 0; r < count; ++r, offset += p.dim) {
      const float factor = __shfl_sync(0xFFFFFFFFu, own_factor, r);
      float value[Count][kPack], sum = 0, squares = 0;
      for_packs<Count>(packs, [&](int i, int col) { source.first(offset + col, factor, value[i]); });
      for_packs<Count>(packs,
                       [&](int i, int) { sum += (value[i][0] + value[i][1]) + (value[i][2] + value[i][3]); });
      const float mean = warp_sum(sum) / static_cast<float>(p.dim);
      for_packs<Count>(packs, [&](int i, int) {
#pragma unroll
        for (float& v : value[i]) {
          v -= mean;
          squares += v * v;
        }
      });
      const float rstd = 1 / sqrtf(warp_sum(squares) / static_cast<float>(p.dim) + p.eps);
      for_packs<Count>(packs, [&](int i, int col) {
        float g[kPack], b[kPack];
        load(gamma + col, g);
        load(beta + col, b);
#pragma unroll
        for (int e = 0; e < kPack; ++e) g[e] = value[i][e] * rstd * g[e] + b[e];
        store(y + offset + col, g);
      });
      if (lane == r) {
        own_mean = mean;
        own_rstd = rstd;
      }
    }
    if (lane >= count) return;
    p.mean[first + lane] = own_mean;
    p.rstd[first + lane] = own_rstd;
  });
}

/// The same for rows of any length, one warp each.
template <class Source, class Y>
__global__ void __launch_bounds__(kNormThreads) normalize_any(Source source, NormParameters p, Y* y) {
  const int64_t row = int64_t{blockIdx.x} * kNormWarps + threadIdx.x / 32;
  if (row >= p.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t offset = row * p.dim;
  const float factor = source.factor(row);
  float sum = 0, squares = 0;
  for (int col = lane; col < p.dim; col += 32) {
    float value[1];
    source.first(offset + col, factor, value);
    sum += value[0];
  }
  const float mean = warp_sum(sum) / static_cast<float>(p.dim);
  for (int col = lane; col < p.dim; col += 32) {
    const float deviation = source.again(offset + col) - mean;
    squares += deviation * deviation;
  }
  const float rstd = 1 / sqrtf(warp_sum(squares) / static_cast<float>(p.dim) + p.eps);
  for (int col = lane; col < p.dim; col += 32)
    y[offset + col] = from_float<Y>((source.again(offset + col) - mean) * rstd * p.gamma[col] + p.beta[col]);
  if (lane == 0) {
    p.mean[row] = mean;
    p.rstd[row] = rstd;
  }
}

/// Where the gradients of gamma and beta go, after the sums of blocks: strips of `width` columns, for each of
/// which a block has a row of sums for gamma and then for beta.
struct NormSums {
  PartialRows partial;    ///< of the first strip; without rows if neither is wanted
  float *dgamma, *dbeta;  ///< null: not wanted
  bool add_gamma, add_beta;
  int width, dim;

  NormSums(CudaStream& stream, const Grad& dgamma, const Grad& dbeta, unsigned blocks, int width, int dim)
      : partial{nullptr, 2 * width, 2 * width, blocks, nullptr},
        dgamma(dgamma.wanted() ? dgamma.view.as<float>() : nullptr),
        dbeta(dbeta.wanted() ? dbeta.view.as<float>() : nullptr),
        add_gamma(dgamma.mode == GradMode::add),
        add_beta(dbeta.mode == GradMode::add),
        width(width),
        dim(dim) {
    if (!this->dgamma && !this->dbeta) return;
    const size_t strips =
        (static_cast<size_t>(dim) + static_cast<size_t>(width) - 1) / static_cast<size_t>(width);
    partial.rows = reinterpret_cast<float*>(
        stream.scratch(strips * blocks * static_cast<size_t>(partial.cols) * sizeof(float)));
    partial.counters = tickets(stream, strips * PartialRows::counters_for(blocks));
  }

  __device__ bool wanted() const { return partial.rows; }

  /// Stores the sums of this block for one strip, which of(i) gives, and adds up the blocks if it is the
  /// last.
  template <class F>
  __device__ void finish(unsigned block, int strip, const F& of) const {
    PartialRows own = partial;
    own.rows += strip * own.blocks * own.cols;
    own.counters += strip * PartialRows::counters_for(own.blocks);
    float* row = own.row(block);
    for (int i = static_cast<int>(threadIdx.x); i < own.cols; i += kNormThreads) row[i] = of(i);
    own.add_up<kNormThreads>(block, [&](int64_t i, float sum) {
      const bool is_gamma = i < width;
      const int64_t col = strip * width + (is_gamma ? i : i - width);
      float* target = is_gamma ? dgamma : dbeta;
      if (target && col < dim) target[col] = (is_gamma ? add_gamma : add_beta) ? target[col] + sum : sum;
    });
  }
};

/// What backward reads.
template <class Y>
struct NormBackward {
  const float *x, *mean, *rstd, *gamma;
  const Y* dy;  ///< null: zero
  int64_t rows;
  int dim;

  template <int N>
  __device__ void load_dy(int64_t offset, float (&to)[N]) const {
    if (dy) return load(dy + offset, to);
#pragma unroll
    for (float& value : to) value = 0;
  }
};

/// Where the gradient of x goes, if x was normalised as it is.
struct PlainGradients {
  float* dx;  ///< null: not wanted
  bool add;

  __device__ bool wanted() const { return dx; }
  __device__ float factor(int64_t) const { return 1; }
  template <int N>
  __device__ void take(int64_t offset, float, float (&d)[N]) const {
    store(dx + offset, d, add);
  }
};

/// Hands `target` the gradient of what was normalised, and sums up dgamma and dbeta.
template <class Target, class Y, int Count>
__global__ void __launch_bounds__(kNormThreads, backward_blocks(Count))
    normalize_backward_held(Target target, NormBackward<Y> n, NormSums norm_sums, int64_t per_warp) {
  constexpr int kColumns = Count * 32 * kPack;
  __shared__ alignas(16) float gamma[kColumns], sums[2][kColumns];
  for (int col = static_cast<int>(threadIdx.x); col < n.dim; col += kNormThreads) gamma[col] = n.gamma[col];
  __syncthreads();
  const int packs = n.dim / kPack, warp = static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  float gamma_sum[Count][kPack] = {}, beta_sum[Count][kPack] = {};
  for_row_batches(n.rows, per_warp, [&](int64_t first, int count) {
    float own_mean = 0, own_rstd = 0, own_factor = 0;
    if (lane < count) {
      own_mean = n.mean[first + lane];
      own_rstd = n.rstd[first + lane];
      own_factor = target.factor(first + lane);
    }
#pragma unroll 1
    for (int r = 0; r < count; ++r) {
      const int64_t offset = (first + r) * n.dim;
      const float mean = __shfl_sync(0xFFFFFFFFu, own_mean, r), rstd = __shfl_sync(0xFFFFFFFFu, own_rstd, r);
      const float factor = __shfl_sync(0xFFFFFFFFu, own_factor, r);
      float x[Count][kPack], d[Count][kPack], sum = 0, sum_x = 0;
      for_packs<Count>(packs, [&](int i, int col) {
        load(n.x + offset + col, x[i]);
        n.load_dy(offset + col, d[i]);
      });
      for_packs<Count>(packs, [&](int i, int col) {
        float g[kPack];
        load(gamma + col, g);
#pragma unroll
        for (int e = 0; e < kPack; ++e) {
          x[i][e] = (x[i][e] - mean) * rstd;
          beta_sum[i][e] += d[i][e];
          gamma_sum[i][e] += d[i][e] * x[i][e];
          d[i][e] *= g[e];
          sum += d[i][e];
          sum_x += d[i][e] * x[i][e];
        }
      });
      if (!target.wanted()) continue;
      const float mean_d = warp_sum(sum) / static_cast<float>(n.dim),
                  mean_dx = warp_sum(sum_x) / static_cast<float>(n.dim);
      for_packs<Count>(packs, [&](int i, int col) {
#pragma unroll
        for (int e = 0; e < kPack; ++e) d[i][e] = rstd * (d[i][e] - mean_d - x[i][e] * mean_dx);
        target.take(offset + col, factor, d[i]);
      });
    }
  });
  if (!norm_sums.wanted()) return;
#pragma unroll 1
  for (int turn = 0; turn < kNormWarps; ++turn) {
    if (warp == turn)
      for_packs<Count>(packs, [&](int i, int col) {
        store(sums[0] + col, gamma_sum[i], turn > 0);
        store(sums[1] + col, beta_sum[i], turn > 0);
      });
    __syncthreads();
  }
  norm_sums.finish(blockIdx.x, 0, [&](int i) { return i < n.dim ? sums[0][i] : sums[1][i - n.dim]; });
}

/// The gradient of what was normalised for rows of any length, one warp each.
template <class Target, class Y>
__global__ void __launch_bounds__(kNormThreads) normalize_backward_any(Target target, NormBackward<Y> n) {
  const int64_t row = int64_t{blockIdx.x} * kNormWarps + threadIdx.x / 32;
  if (row >= n.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t offset = row * n.dim;
  const float mean = n.mean[row], rstd = n.rstd[row], factor = target.factor(row);
  float sum = 0, sum_x = 0, dy[1];
  for (int col = lane; col < n.dim; col += 32) {
    n.load_dy(offset + col, dy);
    sum += dy[0] * n.gamma[col];
    sum_x += dy[0] * n.gamma[col] * (n.x[offset + col] - mean) * rstd;
  }
  const float mean_d = warp_sum(sum) / static_cast<float>(n.dim),
              mean_dx = warp_sum(sum_x) / static_cast<float>(n.dim);
  for (int col = lane; col < n.dim; col += 32) {
    n.load_dy(offset + col, dy);
    float d[1] = {rstd * (dy[0] * n.gamma[col] - mean_d - (n.x[offset + col] - mean) * rstd * mean_dx)};
    target.take(offset + col, factor, d);
  }
}

/// Sums of dgamma and dbeta for rows of any length: one column per thread, blocks over columns and rows.
template <class Y>
__global__ void __launch_bounds__(kNormThreads)
    normalize_sums_any(NormBackward<Y> n, NormSums norm_sums, int64_t per_block) {
  const int col = static_cast<int>(blockIdx.y * kNormThreads + threadIdx.x);
  const int64_t begin = blockIdx.x * per_block, end = col < n.dim ? min(begin + per_block, n.rows) : begin;
  float gamma_sum = 0, beta_sum = 0, dy[1];
  for (int64_t row = begin; row < end; ++row) {
    n.load_dy(row * n.dim + col, dy);
    gamma_sum += dy[0] * (n.x[row * n.dim + col] - n.mean[row]) * n.rstd[row];
    beta_sum += dy[0];
  }
  norm_sums.finish(blockIdx.x, blockIdx.y, [&](int i) { return i < kNormThreads ? gamma_sum : beta_sum; });
}

/// Forward for views of which `held` says whether rows fit in registers. Without kHolds there are no kernels
/// for that.
template <bool kHolds, class Y, class Source>
void start_normalize(CudaStream& stream, const char* name, const Source& source, const NormParameters& p,
                     Y* y, bool held) {
  if constexpr (kHolds)
    if (held) {
      const NormCut cut(p.rows);
      return with_pack_count(p.dim, [&](auto count) {
        launch(stream, name, normalize_held<Source, Y, count>, {cut.blocks, kNormThreads}, source, p, y,
               cut.per_warp);
      });
    }
  launch(stream, name, normalize_any<Source, Y>, {blocks_for(p.rows, kNormWarps), kNormThreads}, source, p,
         y);
}

/// Backward.
template <bool kHolds, class Y, class Target>
void start_normalize_backward(CudaStream& stream, const char* name, const Target& target, bool target_wanted,
                              const NormBackward<Y>& n, const Grad& dgamma, const Grad& dbeta, bool held) {
  const NormCut cut(n.rows);
  const bool sums = dgamma.wanted() || dbeta.wanted();
  if (!sums && !target_wanted) return;
  if constexpr (kHolds)
    if (held) {
      const NormSums norm_sums(stream, dgamma, dbeta, cut.blocks, n.dim, n.dim);
      return with_pack_count(n.dim, [&](auto count) {
        launch(stream, name, normalize_backward_held<Target, Y, count>, {cut.blocks, kNormThreads}, target, n,
               norm_sums, cut.per_warp);
      });
    }
  if (target_wanted)
    launch(stream, name, normalize_backward_any<Target, Y>, {blocks_for(n.rows, kNormWarps), kNormThreads},
           target, n);
  if (sums)
    launch(stream, name, normalize_sums_any<Y>, {{cut.blocks, blocks_for(n.dim, kNormThreads)}, kNormThreads},
           n, NormSums(stream, dgamma, dbeta, cut.blocks, kNormThreads, n.dim), cut.per_warp * kNormWarps);
}

}  // namespace dino::cuda
