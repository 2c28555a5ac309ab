#include "kernels/attention_tensor.cuh"

// Attention forward on tensor cores. A warp owns tiles of 16 queries, in registers, and passes over the keys
// with a running softmax; scores never leave registers. Products cover 16 queries × 8 keys, so that short
// sequences waste little. Up to kResidentKeys keys a block owns one head of one sequence, or several heads of short
// ones, whose k and v stay
// in shared memory: q, k, v are read once and o is written once. Beyond, a block owns 128 queries, k and v
// pass through two stages in shared memory, and each warp owns two tiles, which halves what it reads from
// there.
namespace dino::cuda {
inline namespace attention_tensor_forward_cu {

using namespace tensor;

constexpr int kResidentKeys = 256, kResidentWarps = 8;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kResidentStep = 32;  // keys per step; there 48 take more registers than two blocks leave
#else
constexpr int kResidentStep = 48;
#endif
constexpr int kStreamWarps = 4, kStreamTiles = 2, kStreamQueries = kStreamWarps * kStreamTiles * kTile,
              kStageKeys = 64;

/// The softmax of the queries of one warp over the keys seen so far.
template <int Tiles, int Keys>
struct RunningSoftmax {
  uint32_t q[Tiles][4][4];
  float o[Tiles][8][4];
  float largest[Tiles][2], total[Tiles][2];  ///< of rows g and g + 8; the total of this lane's keys only

  __device__ void start(const AttentionForward<bf16>& task, const HeadPlace& place, int first) {
#pragma unroll
    for (int m = 0; m < Tiles; ++m) {
      load_rows(q[m], task.q, place.query, first + m * kTile, place.queries, place.col);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        largest[m][half] = -INFINITY;
        total[m][half] = 0;
      }
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) o[m][n][e] = 0;
    }
  }

  /// Takes in `Keys` keys, whose rows begin at `k` and `v`, or with `Tail` the first `left` of them.
  template <bool Tail>
  __device__ void step(uint32_t k, uint32_t v, const LanePlaces& places, float factor, int left) {
    float s[Tiles][Keys / 8][4];
#pragma unroll
    for (int j = 0; j < Keys / 8; ++j) {
#pragma unroll
      for (int m = 0; m < Tiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[m][j][e] = 0;
      if (Tail && 8 * j >= left) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t b[4];
        ldmatrix(b, k + j * 8 * kRowBytes + (places.by_column ^ (half << 6)));
#pragma unroll
        for (int m = 0; m < Tiles; ++m) {
          mma(s[m][j], q[m][2 * half], b[0], b[1]);
          mma(s[m][j], q[m][2 * half + 1], b[2], b[3]);
        }
      }
    }
    if (Tail) {
#pragma unroll
      for (int j = 0; j < Keys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (8 * j + lane() % 4 * 2 + e >= left)
#pragma unroll
            for (int m = 0; m < Tiles; ++m) s[m][j][e] = s[m][j][e + 2] = -INFINITY;
    }
#pragma unroll
    for (int m = 0; m < Tiles; ++m) take_scores(m, s[m], factor);
#pragma unroll
    for (int i = 0; i < Keys / 16; ++i) {
      if (Tail && 16 * i >= left) continue;
      uint32_t p[Tiles][4];
#pragma unroll
      for (int m = 0; m < Tiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          p[m][e] = pack(s[m][2 * i + e / 2][e % 2 * 2], s[m][2 * i + e / 2][e % 2 * 2 + 1]);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        uint32_t b[4];
        ldmatrix_transposed(b, v + i * 16 * kRowBytes + (places.by_row ^ (c << 5)));
#pragma unroll
        for (int m = 0; m < Tiles; ++m) {
          if (Tail && 16 * i + 8 >= left) {
            mma_half(o[m][2 * c], p[m], b[0]);
            mma_half(o[m][2 * c + 1], p[m], b[2]);
          } else {
            mma(o[m][2 * c], p[m], b[0], b[1]);
            mma(o[m][2 * c + 1], p[m], b[2], b[3]);
          }
        }
      }
    }
  }

  /// Makes probabilities, but for their common factor, from scores, and lets what was summed shrink
  /// accordingly.
  __device__ void take_scores(int m, float (&s)[Keys / 8][4], float factor) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = largest[m][half];
#pragma unroll
      for (int j = 0; j < Keys / 8; ++j) highest = fmaxf(highest, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, 2));
      const float shrink = exp2_fast((largest[m][half] - highest) * factor), shift = highest * factor;
      largest[m][half] = highest;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < Keys / 8; ++j)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) sum += s[j][e] = exp2_fast(s[j][e] * factor - shift);
      total[m][half] = total[m][half] * shrink + sum;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) o[m][n][e] *= shrink;
    }
  }

  /// Takes in the keys whose rows begin at `k` and `v`.
  __device__ void pass(uint32_t k, uint32_t v, const LanePlaces& places, float factor, int keys) {
    const uint32_t distance = v - k;
    for (; keys >= Keys; keys -= Keys, k += Keys * kRowBytes) step<false>(k, k + distance, places, factor, Keys);
    if (keys > 0) step<true>(k, k + distance, places, factor, keys);
  }

  __device__ void finish(const AttentionForward<bf16>& task, const HeadPlace& place, int first,
                         float factor) {
    const int end = place.queries;
#pragma unroll
    for (int m = 0; m < Tiles; ++m) {
      float inverse[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = total[m][half];
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
        inverse[half] = 1 / sum;
        const int row = first + m * kTile + lane() / 4 + 8 * half;
        if (lane() % 4 == 0 && row < end)
          task.lse[(place.query + row) * task.heads.heads + place.head] =
              (largest[m][half] * factor + log2f(sum)) * kLn2;
      }
#pragma unroll
      for (int c = 0; c < 4; ++c)
        store_columns(task.o, place.query, first + m * kTile, end, place.col + 16 * c, o[m][2 * c],
                      o[m][2 * c + 1], inverse, false);
    }
  }
};

extern __shared__ __align__(128) unsigned char shared_bytes[];

__global__ void __launch_bounds__(kResidentWarps * 32, 2) resident_forward(AttentionForward<bf16> task,
                                                                           int half) {
  const BlockGroup group(task.sequences);
  const int tiles = tiles_of(group.keys), pieces = pieces_per_block(tiles, static_cast<int>(blockDim.x) / 32);
  const Team team(tiles);
  const int64_t piece = int64_t{group.block} * pieces + team.number;
  if (team.idle() || piece >= group.count * task.heads.heads) return;
  __shared__ HeadPlace place_of_warp[kResidentWarps];  // there it takes no registers
  if (lane() == 0) place_of_warp[warp()] = HeadPlace(group, task.heads, static_cast<unsigned>(piece));
  __syncwarp();
  const HeadPlace& place = place_of_warp[warp()];
  const uint32_t k = shared_address(shared_bytes) + team.number * tiles * kTile * kRowBytes;
  copy_rows_async(k, tiles * kTile, task.k, place.key, 0, place.keys, place.col, team.thread(), team.threads());
  copy_rows_async(k + half, tiles * kTile, task.v, place.key, 0, place.keys, place.col, team.thread(), team.threads());
  commit_copies();
  const LanePlaces places;
  const float factor = task.heads.factor;
  RunningSoftmax<1, kResidentStep> softmax;
  int first = team.warp * kTile;
  softmax.start(task, place, first);
  wait_for_copies<0>();
  team.sync();
  while (true) {
    softmax.pass(k, k + half, places, factor, place.keys);
    softmax.finish(task, place, first, factor);
    first += static_cast<int>(blockDim.x) / 32 * kTile;  // only a team that is the whole block comes back
    if (first >= place.queries) return;
    softmax.start(task, place, first);
  }
}

/// Blocks for one head of one sequence.
__host__ __device__ inline unsigned stream_blocks(int queries) {
  return static_cast<unsigned>((queries + kStreamQueries - 1) / kStreamQueries);
}

__global__ void __launch_bounds__(kStreamWarps * 32, 2)
    stream_forward(AttentionForward<bf16> task) {
  const BlockGroup group(task.sequences);
  const unsigned blocks = stream_blocks(group.queries);
  const HeadPlace place(group, task.heads, group.block / blocks);
  const int keys = place.keys, stages = (keys + kStageKeys - 1) / kStageKeys;
  const int first = (static_cast<int>(group.block % blocks) * kStreamWarps + warp()) * kStreamTiles * kTile;
  constexpr uint32_t kHalfStage = kStageKeys * kRowBytes;
  const uint32_t shared = shared_address(shared_bytes);
  const auto fetch = [&](int stage) {
    if (stage < stages) {
      const uint32_t to = shared + stage % 2 * 2 * kHalfStage;
      copy_rows_async(to, kStageKeys, task.k, place.key, stage * kStageKeys, keys, place.col);
      copy_rows_async(to + kHalfStage, kStageKeys, task.v, place.key, stage * kStageKeys, keys, place.col);
    }
    commit_copies();
  };
  fetch(0);
  const LanePlaces places;
  const float factor = task.heads.factor;
  RunningSoftmax<kStreamTiles, 32> softmax;
  softmax.start(task, place, first);
  for (int stage = 0; stage < stages; ++stage) {
    fetch(stage + 1);
    wait_for_copies<1>();
    __syncthreads();
    const uint32_t k = shared + stage % 2 * 2 * kHalfStage;
    if (first < place.queries)
      softmax.pass(k, k + kHalfStage, places, factor, min(kStageKeys, keys - stage * kStageKeys));
    __syncthreads();
  }
  if (first < place.queries) softmax.finish(task, place, first, factor);
}

void run_resident(CudaStream& stream, AttentionForward<bf16> task) {
  const int tiles = tiles_of(task.sequences.longest()), rounds = (tiles + kResidentWarps - 1) / kResidentWarps,
            warps = tiles == 0 ? 0 : (tiles + rounds - 1) / rounds;
  const unsigned blocks = task.sequences.deal_blocks([&](const EqualSequences& group) {
    const int pieces = pieces_per_block(tiles_of(group.keys), warps);
    return (group.count * task.heads.heads + pieces - 1) / pieces;
  });
  const int half = tiles * kTile * kRowBytes;
  launch(stream, "attention", resident_forward, {blocks, static_cast<unsigned>(warps) * 32, size_t{2} * half}, task, half);
}

void run_stream(CudaStream& stream, AttentionForward<bf16> task) {
  const unsigned blocks = task.sequences.deal_blocks(
      [&](const EqualSequences& group) { return group.count * task.heads.heads * stream_blocks(group.queries); });
  launch(stream, "attention", stream_forward, {blocks, kStreamWarps * 32, size_t{4} * kStageKeys * kRowBytes}, task);
}

}  // namespace attention_tensor_forward_cu

void tensor_attention_forward(CudaStream& stream, const AttentionForward<bf16>& task) {
  run_resident(stream, task_where(task, [](const EqualSequences& group) { return group.keys <= kResidentKeys; }));
  run_stream(stream, task_where(task, [](const EqualSequences& group) { return group.keys > kResidentKeys; }));
}

}  // namespace dino::cuda
