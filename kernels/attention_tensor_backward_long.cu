#include "kernels/attention_tensor_backward.cuh"

// Attention backward on tensor cores for sequences that do not fit in shared memory. One kernel owns queries,
// passes over the keys and writes ∂q and Σ o · ∂o, another owns keys, passes over the queries and writes ∂k
// and ∂v. Both recompute the probabilities, seven products in all instead of five; in turn no sum crosses
// blocks. A block owns 128 rows, each warp two tiles, and what it passes over moves through two stages in
// shared memory.
namespace dino::cuda {
inline namespace attention_tensor_backward_long_cu {

using namespace tensor;

constexpr int kWarps = 4, kThreads = kWarps * 32, kTiles = 2, kWarpRows = kTiles * kTile,
              kBlockRows = kWarps * kWarpRows;
constexpr int kStageRows = 64, kStageBytes = kStageRows * kRowBytes, kStepKeys = 32;

extern __shared__ __align__(128) unsigned char shared_bytes[];

__host__ __device__ constexpr unsigned blocks_per_piece(int rows) {
  return static_cast<unsigned>((rows + kBlockRows - 1) / kBlockRows);
}

/// ∂q of the queries of one warp, summed over the keys seen so far.
struct QueryGradients {
  uint32_t q[kTiles][4][4], grad_o[kTiles][4][4];
  float dq[kTiles][8][4];
  float lse[kTiles][2], delta[kTiles][2];  ///< of rows g and g + 8; lse in powers of 2

  __device__ void start(const AttentionBackward<bf16>& task, const HeadPlace& place, int first) {
    const int end = place.queries;
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      uint32_t o[4][4];
      load_rows(o, task.o, place.query, first + m * kTile, end, place.col);
      load_rows(grad_o[m], task.grad_o, place.query, first + m * kTile, end, place.col);
      load_rows(q[m], task.q, place.query, first + m * kTile, end, place.col);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first + m * kTile + lane() / 4 + 8 * half;
        float sum = 0;
#pragma unroll
        for (int c = 0; c < 4; ++c)
          sum += dot(o[c][half], grad_o[m][c][half]) + dot(o[c][half + 2], grad_o[m][c][half + 2]);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
        delta[m][half] = sum;
        lse[m][half] = row < end ? task.lse[(place.query + row) * task.heads.heads + place.head] * kLog2E : 0;
        if (row < end && lane() % 4 == 0) task.delta_of(place)[row] = sum;
      }
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) dq[m][n][e] = 0;
    }
  }

  static __device__ float dot(uint32_t a, uint32_t b) {
    const float2 x = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(a));
    const float2 y = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(b));
    return x.x * y.x + x.y * y.y;
  }

  /// s[tile][keys 8j …] = own rows times the 32 rows from `rows` on.
  static __device__ void multiply(float (&s)[kTiles][4][4], const uint32_t (&own)[kTiles][4][4],
                                  uint32_t rows, const LanePlaces& places, int left) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int m = 0; m < kTiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[m][j][e] = 0;
      if (8 * j >= left) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t b[4];
        ldmatrix(b, rows + j * 8 * kRowBytes + (places.by_column ^ (half << 6)));
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          mma(s[m][j], own[m][2 * half], b[0], b[1]);
          mma(s[m][j], own[m][2 * half + 1], b[2], b[3]);
        }
      }
    }
  }

  /// Takes in 32 keys, whose rows begin at `k` and `v`, or the first `left` of them.
  __device__ void step(uint32_t k, uint32_t v, const LanePlaces& places, float factor, int left) {
    float s[kTiles][4][4], ds[kTiles][4][4];
    multiply(s, q, k, places, left);
    multiply(ds, grad_o, v, places, left);
#pragma unroll
    for (int m = 0; m < kTiles; ++m)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float p = exp2_fast(s[m][j][e] * factor - lse[m][e / 2]);
          ds[m][j][e] = 8 * j + lane() % 4 * 2 + e % 2 < left ? p * (ds[m][j][e] - delta[m][e / 2]) : 0;
        }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (16 * i >= left) continue;
      uint32_t a[kTiles][4];
#pragma unroll
      for (int m = 0; m < kTiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          a[m][e] = pack(ds[m][2 * i + e / 2][e % 2 * 2], ds[m][2 * i + e / 2][e % 2 * 2 + 1]);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        uint32_t b[4];
        ldmatrix_transposed(b, k + i * 16 * kRowBytes + (places.by_row ^ (c << 5)));
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          mma(dq[m][2 * c], a[m], b[0], b[1]);
          mma(dq[m][2 * c + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ void finish(const AttentionBackward<bf16>& task, const HeadPlace& place, int first) const {
    const float scale[2] = {task.heads.scale, task.heads.scale};
#pragma unroll
    for (int m = 0; m < kTiles; ++m)
#pragma unroll
      for (int c = 0; c < 4; ++c)
        store_columns(task.dq, place.query, first + m * kTile, place.queries, place.col + 16 * c,
                      dq[m][2 * c], dq[m][2 * c + 1], scale, task.dq.add);
  }
};

/// Calls work(stage) for every stage, when what fetch(stage) has started to copy is there, while the next one
/// is copied.
template <class Fetch, class Work>
__device__ void for_stages(int stages, const Fetch& fetch, const Work& work) {
  for (int stage = 0; stage < stages; ++stage) {
    if (stage + 1 < stages) fetch(stage + 1);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    work(stage);
    __syncthreads();  // before the stage after the next takes its place
  }
}

__global__ void __launch_bounds__(kThreads, 2)
    long_grad_q(AttentionBackward<bf16> task) {
  const BlockGroup group(task.sequences);
  const unsigned blocks = blocks_per_piece(group.queries);
  const HeadPlace place(group, task.heads, group.block / blocks);
  const int keys = place.keys;
  const int first = static_cast<int>(group.block % blocks) * kBlockRows + warp() * kWarpRows;
  const uint32_t shared = shared_address(shared_bytes);
  const auto fetch = [&](int stage) {
    const uint32_t k = shared + stage % 2 * 2 * kStageBytes;
    copy_rows_async(k, kStageRows, task.k, place.key, stage * kStageRows, keys, place.col);
    copy_rows_async(k + kStageBytes, kStageRows, task.v, place.key, stage * kStageRows, keys, place.col);
  };
  if (task.dq.wanted()) fetch(0);
  commit_copies();
  const LanePlaces places;
  const float factor = task.heads.factor;
  QueryGradients gradients;
  gradients.start(task, place, first);
  if (!task.dq.wanted()) return;
  for_stages((keys + kStageRows - 1) / kStageRows, fetch, [&](int stage) {
    if (first >= place.queries) return;
    const uint32_t k = shared + stage % 2 * 2 * kStageBytes;
    const int left = min(kStageRows, keys - stage * kStageRows);
#pragma unroll 1  // two steps at once take too many registers on 10.0
    for (int key = 0; key < left; key += kStepKeys)
      gradients.step(k + key * kRowBytes, k + kStageBytes + key * kRowBytes, places, factor, left - key);
  });
  if (first < place.queries) gradients.finish(task, place, first);
}

__global__ void __launch_bounds__(kThreads, 2)
    long_grad_kv(AttentionBackward<bf16> task) {
  const BlockGroup group(task.sequences);
  const unsigned blocks = blocks_per_piece(group.keys);
  const HeadPlace place(group, task.heads, group.block / blocks);
  const int queries = place.queries, block = static_cast<int>(group.block % blocks) * kBlockRows;
  const int keys = min(kWarpRows, place.keys - block - warp() * kWarpRows);
  __shared__ float statistics[2][2][kStageRows];  // of a stage: lse in powers of 2, and delta
  const uint32_t k = shared_address(shared_bytes), v = k + kBlockRows * kRowBytes,
                 stages = v + kBlockRows * kRowBytes;
  const auto fetch = [&](int stage) {
    const uint32_t q = stages + stage % 2 * 2 * kStageBytes;
    const int begin = stage * kStageRows;
    copy_rows_async(q, kStageRows, task.q, place.query, begin, queries, place.col);
    copy_rows_async(q + kStageBytes, kStageRows, task.grad_o, place.query, begin, queries, place.col);
    if (threadIdx.x >= kStageRows) return;
    const int row = begin + static_cast<int>(threadIdx.x);
    const bool valid = row < queries;
    statistics[stage % 2][0][threadIdx.x] =
        valid ? task.lse[(place.query + row) * task.heads.heads + place.head] * kLog2E : INFINITY;
    statistics[stage % 2][1][threadIdx.x] = valid ? task.delta_of(place)[row] : 0;
  };
  copy_rows_async(k, kBlockRows, task.k, place.key, block, place.keys, place.col);
  copy_rows_async(v, kBlockRows, task.v, place.key, block, place.keys, place.col);
  fetch(0);
  commit_copies();
  const LanePlaces places;
  const float factor = task.heads.factor;
  const uint32_t own = warp() * kWarpRows * kRowBytes;
  KeyGradients<kTiles> gradients;
  gradients.start();
  for_stages((queries + kStageRows - 1) / kStageRows, fetch, [&](int stage) {
    if (keys <= 0) return;
    const uint32_t q = stages + stage % 2 * 2 * kStageBytes;
    const int left = min(kStageRows, queries - stage * kStageRows);
    for (int query = 0; query < left; query += kStepQueries)
      gradients.step(k + own, v + own, keys, q + query * kRowBytes, q + kStageBytes + query * kRowBytes,
                     statistics[stage % 2][0] + query, statistics[stage % 2][1] + query, places, factor,
                     left - query);
  });
  if (keys > 0) gradients.finish(task, place, block + warp() * kWarpRows, place.keys);
}

}  // namespace attention_tensor_backward_long_cu

void long_attention_backward(CudaStream& stream, AttentionBackward<bf16> task) {
  const unsigned blocks = task.sequences.deal_blocks(  // there are as many keys as queries
      [&](const EqualSequences& group) { return group.count * task.heads.heads * blocks_per_piece(group.keys); });
  launch(stream, "attention backward", long_grad_q, {blocks, kThreads, size_t{4} * kStageBytes}, task);
  if (!task.dk.wanted() && !task.dv.wanted()) return;
  launch(stream, "attention backward", long_grad_kv,
         {blocks, kThreads, size_t{2} * kBlockRows * kRowBytes + 4 * kStageBytes}, task);
}

}  // namespace dino::cuda
