#include "kernels/attention_kernels.cuh"

// Attention of any head dim, f32 or bf16, without tensor cores. A block owns kBlockRows rows of one head of
// one sequence, each warp kWarpRows of them, and passes over the other side in tiles of kTile rows, which all
// its warps share: forward and ∂q own queries and pass over keys, ∂k and ∂v own keys and pass over queries.
// Inside of a tile each lane first takes one of its rows, for scores, and then columns, for weighted sums of
// its rows; the weights move between lanes by shuffles. Scores stay in registers. Tiles are f32 in shared
// memory, in rows of an odd number of 16-byte units: 16-byte reads of the same columns of 8 rows touch all
// banks once.
namespace dino::cuda {
inline namespace attention_plain_cu {

constexpr int kWarps = 4, kThreads = kWarps * 32, kWarpRows = 4, kBlockRows = kWarps * kWarpRows, kTile = 32;

__host__ __device__ constexpr int row_floats(int head_dim) { return ((head_dim + 3) / 4 | 1) * 4; }

/// Rows of shared memory, one after the other.
struct SharedRows {
  float* data;
  int stride;
  __device__ float* row(int r) const { return data + r * stride; }
};

/// Copies rows [first, first + count) of a head to shared memory, with zeros behind the last row and the last
/// column.
template <class T>
__device__ void copy_rows(const SharedRows& to, int count, const HeadRows<const T>& from, int64_t base,
                          int first, int end, int col, int head_dim) {
  for (int r = threadIdx.x / 32; r < count; r += kWarps)
    for (int c = threadIdx.x % 32; c < to.stride; c += 32)
      to.row(r)[c] = first + r < end && c < head_dim ? to_float(*from.at(base + first + r, col + c)) : 0;
}

/// dots[r] = own row r · the lane's row of the tile.
__device__ void dot_rows(float (&dots)[kWarpRows], const SharedRows& own, const SharedRows& tile,
                         int head_dim) {
  const float* theirs = tile.row(threadIdx.x % 32);
  for (float& d : dots) d = 0;
#pragma unroll 1  // a fixed number: left to the compiler, the code differs from one compilation to the next
  for (int c = 0; c < head_dim; c += 4) {
    const float4 b = *reinterpret_cast<const float4*>(theirs + c);
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const float4 a = *reinterpret_cast<const float4*>(own.row(r) + c);
      dots[r] += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
    }
  }
}

/// sums[r] += Σ_j weights[r] of lane j · row j of the tile; a lane has every 32nd column.
template <int Columns>
__device__ void add_weighted_rows(float (&sums)[kWarpRows][Columns], const float (&weights)[kWarpRows],
                                  const SharedRows& tile, int head_dim) {
  const int lane = threadIdx.x % 32;
#pragma unroll 4
  for (int j = 0; j < kTile; ++j) {
    float value[Columns];
#pragma unroll
    for (int i = 0; i < Columns; ++i) value[i] = lane + 32 * i < head_dim ? tile.row(j)[lane + 32 * i] : 0;
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const float weight = __shfl_sync(0xFFFFFFFFu, weights[r], j);
#pragma unroll
      for (int i = 0; i < Columns; ++i) sums[r][i] += weight * value[i];
    }
  }
}

__host__ __device__ constexpr int blocks_per_piece(int rows) { return (rows + kBlockRows - 1) / kBlockRows; }

/// What one block works on, where a head of a sequence has `rows` rows to own.
struct BlockPlace : HeadPlace {
  int first;  ///< first row of the block, in its sequence
  int own;    ///< first row of the warp

  __device__ BlockPlace(const EqualSequences& group, const Heads& heads, unsigned block, int rows)
      : HeadPlace(group, heads, block / static_cast<unsigned>(blocks_per_piece(rows))),
        first(static_cast<int>(block) % blocks_per_piece(rows) * kBlockRows),
        own(first + static_cast<int>(threadIdx.x) / 32 * kWarpRows) {}
};

/// Blocks that must fit on a multiprocessor: as many as the sums of a lane, `Columns` per row, leave registers for.
template <int Columns>
constexpr int kForwardBlocks = Columns > 4 ? 4 : 6;
template <int Columns>
constexpr int kBackwardBlocks = Columns > 4 ? 3 : Columns > 2 ? 5 : 6;

extern __shared__ __align__(16) float shared_floats[];

/// Cuts shared memory into two tiles and `sets` sets of own rows.
struct SharedPlan {
  int stride;
  __device__ explicit SharedPlan(int head_dim) : stride(row_floats(head_dim)) {}
  __device__ SharedRows tile(int i) const { return {shared_floats + i * kTile * stride, stride}; }
  __device__ SharedRows block(int i) const {
    return {shared_floats + (2 * kTile + i * kBlockRows) * stride, stride};
  }
  __device__ SharedRows warp(int i) const {
    return {block(i).row(static_cast<int>(threadIdx.x) / 32 * kWarpRows), stride};
  }
};

template <class T, int Columns>
__global__ void __launch_bounds__(kThreads, kForwardBlocks<Columns>) plain_forward(AttentionForward<T> task) {
  const int lane = threadIdx.x % 32, dim = task.heads.head_dim;
  const BlockGroup group(task.sequences);
  const BlockPlace place(group, task.heads, group.block, group.queries);
  const SharedPlan plan(dim);
  const SharedRows keys = plan.tile(0), values = plan.tile(1);
  copy_rows(plan.block(0), kBlockRows, task.q, place.query, place.first, place.queries, place.col, dim);
  const float factor = task.heads.factor;  // powers of 2 instead of e
  float largest[kWarpRows], total[kWarpRows], sums[kWarpRows][Columns] = {};
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    largest[r] = -INFINITY;
    total[r] = 0;
  }
  for (int first = 0; first < place.keys; first += kTile) {
    copy_rows(keys, kTile, task.k, place.key, first, place.keys, place.col, dim);
    copy_rows(values, kTile, task.v, place.key, first, place.keys, place.col, dim);
    __syncthreads();
    float p[kWarpRows];
    dot_rows(p, plan.warp(0), keys, dim);
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      p[r] = first + lane < place.keys ? p[r] * factor : -INFINITY;
      const float before = largest[r];
      largest[r] = fmaxf(before, warp_max(p[r]));
      const float shrink = exp2f(before - largest[r]);
      p[r] = exp2f(p[r] - largest[r]);
      total[r] = total[r] * shrink + p[r];
#pragma unroll
      for (float& sum : sums[r]) sum *= shrink;
    }
    add_weighted_rows(sums, p, values, dim);
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    const float sum = warp_sum(total[r]);
    if (place.own + r >= place.queries) break;
    const int64_t row = place.query + place.own + r;
#pragma unroll
    for (int i = 0; i < Columns; ++i)
      if (lane + 32 * i < dim) *task.o.at(row, place.col + lane + 32 * i) = from_float<T>(sums[r][i] / sum);
    if (lane == 0) task.lse[row * task.heads.heads + place.head] = (largest[r] + log2f(sum)) * kLn2;
  }
}

/// Stores or adds the gradients of the rows that the warp owns.
template <class T, int Columns>
__device__ void store_rows(const HeadGradient<T>& to, const float (&sums)[kWarpRows][Columns], float factor,
                           int64_t base, const BlockPlace& place, int end, int head_dim) {
  if (!to.wanted()) return;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    if (place.own + r >= end) return;
#pragma unroll
    for (int i = 0; i < Columns; ++i) {
      if (lane + 32 * i >= head_dim) continue;
      float value[1] = {sums[r][i] * factor};
      store(to.at(base + place.own + r, place.col + lane + 32 * i), value, to.add);
    }
  }
}

/// ∂q.
template <class T, int Columns>
__device__ void grad_q(const AttentionBackward<T>& task) {
  const int lane = threadIdx.x % 32, dim = task.heads.head_dim;
  const BlockGroup group(task.sequences);
  const BlockPlace place(group, task.heads, group.block, group.queries);
  const SharedPlan plan(dim);
  const SharedRows keys = plan.tile(0), values = plan.tile(1);
  copy_rows(plan.block(0), kBlockRows, task.q, place.query, place.first, place.queries, place.col, dim);
  copy_rows(plan.block(1), kBlockRows, task.grad_o, place.query, place.first, place.queries, place.col, dim);
  __syncthreads();
  float delta[kWarpRows], lse[kWarpRows], sums[kWarpRows][Columns] = {};
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    const bool valid = place.own + r < place.queries;
    const int64_t row = place.query + place.own + r;
    float sum = 0;
    for (int c = lane; valid && c < dim; c += 32)
      sum += plan.warp(1).row(r)[c] * to_float(*task.o.at(row, place.col + c));
    delta[r] = warp_sum(sum);
    lse[r] = valid ? task.lse[row * task.heads.heads + place.head] : 0;
  }
  for (int first = 0; first < place.keys; first += kTile) {
    copy_rows(keys, kTile, task.k, place.key, first, place.keys, place.col, dim);
    copy_rows(values, kTile, task.v, place.key, first, place.keys, place.col, dim);
    __syncthreads();
    float scores[kWarpRows], ds[kWarpRows];
    dot_rows(scores, plan.warp(0), keys, dim);
    dot_rows(ds, plan.warp(1), values, dim);
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r)
      ds[r] = first + lane < place.keys ? expf(scores[r] * task.heads.scale - lse[r]) * (ds[r] - delta[r]) : 0;
    add_weighted_rows(sums, ds, keys, dim);
    __syncthreads();
  }
  store_rows(task.dq, sums, task.heads.scale, place.query, place, place.queries, dim);
}

/// ∂k and ∂v. Every block sums o · ∂o of the queries anew: a fifth more to read than if the blocks of ∂q left it behind, but so
/// no block waits for another.
template <class T, int Columns>
__device__ void grad_kv(const AttentionBackward<T>& task) {
  __shared__ float deltas[kTile];
  const int lane = threadIdx.x % 32, dim = task.heads.head_dim;
  const BlockGroup group(task.sequences);
  const BlockPlace place(group, task.heads, group.block, group.keys);
  const SharedPlan plan(dim);
  const SharedRows queries = plan.tile(0), grad_o = plan.tile(1);
  copy_rows(plan.block(0), kBlockRows, task.k, place.key, place.first, place.keys, place.col, dim);
  copy_rows(plan.block(1), kBlockRows, task.v, place.key, place.first, place.keys, place.col, dim);
  float dk[kWarpRows][Columns] = {}, dv[kWarpRows][Columns] = {};
  for (int first = 0; first < place.queries; first += kTile) {
    copy_rows(queries, kTile, task.q, place.query, first, place.queries, place.col, dim);
    copy_rows(grad_o, kTile, task.grad_o, place.query, first, place.queries, place.col, dim);
    const bool valid = first + lane < place.queries;
    const float lse = valid ? task.lse[(place.query + first + lane) * task.heads.heads + place.head] : 0;
    __syncthreads();
    for (int r = threadIdx.x / 32; r < kTile; r += kWarps) {
      float sum = 0;
      for (int c = lane; first + r < place.queries && c < dim; c += 32)
        sum += grad_o.row(r)[c] * to_float(*task.o.at(place.query + first + r, place.col + c));
      sum = warp_sum(sum);
      if (lane == 0) deltas[r] = sum;
    }
    __syncthreads();
    const float delta = deltas[lane];
    float p[kWarpRows], ds[kWarpRows];
    dot_rows(p, plan.warp(0), queries, dim);
    dot_rows(ds, plan.warp(1), grad_o, dim);
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      p[r] = valid ? expf(p[r] * task.heads.scale - lse) : 0;
      ds[r] = p[r] * (ds[r] - delta);
    }
    add_weighted_rows(dv, p, grad_o, dim);
    add_weighted_rows(dk, ds, queries, dim);
    __syncthreads();
  }
  store_rows(task.dk, dk, task.heads.scale, place.key, place, place.keys, dim);
  store_rows(task.dv, dv, 1, place.key, place, place.keys, dim);
}

/// Blocks with y = 0 own queries, those with y = 1 keys.
template <class T, int Columns>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks<Columns>) plain_backward(AttentionBackward<T> task) {
  if (blockIdx.y == 0) {
    if (task.dq.wanted()) grad_q<T, Columns>(task);
  } else {
    if (task.dk.wanted() || task.dv.wanted()) grad_kv<T, Columns>(task);
  }
}

/// p of the rows of one block. Each lane writes scores where it will later, as it knows sums, write
/// probabilities.
template <class T>
__global__ void __launch_bounds__(kThreads, 3)
    probabilities(EqualSequences sequences, Heads heads, HeadRows<const T> q, HeadRows<const T> k, float* p) {
  const int lane = threadIdx.x % 32, dim = heads.head_dim;
  const BlockPlace place(sequences, heads, blockIdx.x, sequences.queries);
  const SharedPlan plan(dim);
  const SharedRows keys = plan.tile(0);
  copy_rows(plan.block(0), kBlockRows, q, place.query, place.first, place.queries, place.col, dim);
  const int64_t piece = blockIdx.x / static_cast<unsigned>(blocks_per_piece(place.queries));
  float* rows = p + (piece * place.queries + place.own) * place.keys;
  float largest[kWarpRows], total[kWarpRows] = {};
  for (float& x : largest) x = -INFINITY;
  for (int first = 0; first < place.keys; first += kTile) {
    copy_rows(keys, kTile, k, place.key, first, place.keys, place.col, dim);
    __syncthreads();
    float scores[kWarpRows];
    dot_rows(scores, plan.warp(0), keys, dim);
    const int key = first + lane;
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      if (place.own + r >= place.queries) break;
      const float score = key < place.keys ? scores[r] * heads.scale : -INFINITY, before = largest[r];
      largest[r] = fmaxf(before, warp_max(score));
      total[r] = total[r] * expf(before - largest[r]) + expf(score - largest[r]);
      if (key < place.keys) rows[int64_t{r} * place.keys + key] = score;
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    if (place.own + r >= place.queries) break;
    const float factor = 1 / warp_sum(total[r]);
    for (int key = lane; key < place.keys; key += 32) {
      float& entry = rows[int64_t{r} * place.keys + key];
      entry = expf(entry - largest[r]) * factor;
    }
  }
}

/// Calls `f` with the number of columns that a lane has, as a constant.
template <class F>
void with_columns(int head_dim, const F& f) {
  if (head_dim <= 64) return f(std::integral_constant<int, 2>());
  if (head_dim <= 128) return f(std::integral_constant<int, 4>());
  f(std::integral_constant<int, 8>());
}

/// The blocks of one group in which heads have `rows` rows to own.
int64_t plain_blocks(const EqualSequences& group, const Heads& heads, int rows) {
  return group.count * heads.heads * blocks_per_piece(rows);
}

Grid plain_grid(unsigned blocks, const Heads& heads, int own_sets) {
  return {blocks, kThreads,
          static_cast<size_t>((2 * kTile + own_sets * kBlockRows) * row_floats(heads.head_dim)) * sizeof(float)};
}

}  // namespace attention_plain_cu

template <class T>
void plain_attention_forward(CudaStream& stream, AttentionForward<T> task) {
  const unsigned blocks = task.sequences.deal_blocks(
      [&](const EqualSequences& group) { return plain_blocks(group, task.heads, group.queries); });
  with_columns(task.heads.head_dim, [&](auto columns) {
    launch(stream, "attention", plain_forward<T, columns.value>, plain_grid(blocks, task.heads, 1), task);
  });
}

template <class T>
void plain_attention_backward(CudaStream& stream, AttentionBackward<T> task) {
  const unsigned blocks = task.sequences.deal_blocks(  // there are as many keys as queries
      [&](const EqualSequences& group) { return plain_blocks(group, task.heads, group.keys); });
  with_columns(task.heads.head_dim, [&](auto columns) {
    Grid grid = plain_grid(blocks, task.heads, 2);
    grid.blocks.y = 2;
    launch(stream, "attention backward", plain_backward<T, columns.value>, grid, task);
  });
}

template void plain_attention_forward(CudaStream&, AttentionForward<float>);
template void plain_attention_forward(CudaStream&, AttentionForward<bf16>);
template void plain_attention_backward(CudaStream&, AttentionBackward<float>);
template void plain_attention_backward(CudaStream&, AttentionBackward<bf16>);

}  // namespace dino::cuda

namespace dino {

void AttentionProbabilities::forward(CudaStream& stream, std::span<const View> in,
                                     std::span<const View> out) const {
  using namespace cuda;
  const int length = static_cast<int>(sequences.group[0].length());
  const EqualSequences all{sequences.count(), 0, 0, length, length};
  const Heads shape{static_cast<int>(heads), static_cast<int>(in[q].cols() / heads), static_cast<float>(scale)};
  with_dtype(in[q].dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(stream, "attention probabilities", probabilities<T>,
           plain_grid(blocks_for(plain_blocks(all, shape, length), 1), shape, 1), all, shape,
           HeadRows<const T>(in[q]), HeadRows<const T>(in[k]), out[p].as<float>());
  });
}

}  // namespace dino
