#include "kernels/attention_tensor_backward.cuh"

// Attention backward on tensor cores, for sequences whose q, k, v and ∂o fit in shared memory: a block owns
// one head of one sequence, or several heads of short ones with a team of warps each, so that everything is
// read and written once and nothing is summed between blocks. Each warp owns 16 or 32 keys, and its team
// passes together over the queries, 32 at a time. Their ∂scores meet in
// shared memory, from where the warps form ∂q of these queries: five products per pair of query and key, the
// least there are.
namespace dino::cuda {
inline namespace attention_tensor_backward_cu {

using namespace tensor;

constexpr int kLargestLength = 256;

/// Up to here the warps of one sequence, 16 keys each, are few and leave room for other blocks.
constexpr int kShortLength = 64;

template <int Tiles>
constexpr int kMostThreads = (Tiles == 1 ? kShortLength : kLargestLength) / (Tiles * kTile) * 32;

extern __shared__ __align__(128) unsigned char shared_bytes[];

/// How a team cuts up its shared memory: k, v, q and ∂o, then what follows. ∂scores: keys × 32 queries, twice; 4 chunks of 16 bytes a row,
/// chunk c of row r at place c ^ (r / 2 % 4).
struct Plan {
  int rows;  ///< of q, k, v, ∂o and of ∂scores: whole tiles
  int steps;

  __host__ __device__ explicit Plan(int length)
      : rows(tiles_of(length) * kTile), steps((length + kStepQueries - 1) / kStepQueries) {}
  __host__ __device__ int matrix(int i) const { return i * rows * kRowBytes; }
  __host__ __device__ int grad_scores(int i) const { return matrix(4) + i * rows * kStepQueries * 2; }
  __host__ __device__ int statistics(int i) const { return grad_scores(2) + i * steps * kStepQueries * 4; }
  __host__ __device__ int bytes() const { return statistics(2); }
};

inline __device__ uint32_t score_place(int key, int chunk) {
  return static_cast<uint32_t>(key * kStepQueries * 2 + ((chunk ^ (key / 2 % 4)) << 4));
}

/// A lane's part of what backward needs of o and ∂o: of every fourth of the warp's rows a chunk of 16 bytes.
/// It loads o and copies the same chunks of ∂o to shared memory, all at once, and later makes o · ∂o of each
/// row of them.
template <int Tiles>
struct RowStatistics {
  static constexpr int kRows = Tiles * 4;
  Pack<bf16, 8> o[kRows];
  float lse[kRows];

  static __device__ int row(const Team& team, int i) { return team.warp * Tiles * kTile + i * 4 + lane() / 8; }

  __device__ void start(const AttentionBackward<bf16>& task, const HeadPlace& place, const Team& team,
                        const Plan& plan, uint32_t to) {
    const int end = place.queries, chunk = lane() % 8;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int r = row(team, i);
      const bool valid = r < end;
      o[i] = {};
      if (valid)
        o[i] = *reinterpret_cast<const Pack<bf16, 8>*>(task.o.at(place.query + r, place.col + chunk * 8));
      lse[i] = valid && chunk == 0 ? task.lse[(place.query + r) * task.heads.heads + place.head] * kLog2E
                                   : INFINITY;
      const bf16* from = valid ? task.grad_o.at(place.query + r, place.col + chunk * 8) : task.grad_o.data;
      if (r < plan.rows) copy_async(to + chunk_place(r, chunk), from, valid);
    }
  }

  /// After the lane's copies have arrived. `memory`: the team's.
  __device__ void finish(const Team& team, const Plan& plan, unsigned char* memory) const {
    float* powers = reinterpret_cast<float*>(memory + plan.statistics(0));
    float* delta = reinterpret_cast<float*>(memory + plan.statistics(1));
    const int chunk = lane() % 8;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int r = row(team, i);
      float sum = 0;
      if (r < plan.rows) {
        const auto grad_o =
            *reinterpret_cast<const Pack<bf16, 8>*>(memory + plan.matrix(3) + chunk_place(r, chunk));
#pragma unroll
        for (int e = 0; e < 8; ++e) sum += to_float(o[i].value[e]) * to_float(grad_o.value[e]);
      }
#pragma unroll
      for (int offset = 4; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
      if (chunk == 0 && r < plan.rows) {
        powers[r] = lse[i];
        delta[r] = sum;
      }
    }
    const int pad = plan.rows + team.thread();
    if (pad >= plan.steps * kStepQueries) return;
    powers[pad] = INFINITY;
    delta[pad] = 0;
  }
};

/// Hands the warp's ∂scores, whose rows begin at `to`, to its team.
template <int Tiles>
__device__ void share_grad_scores(uint32_t to, const KeyGradients<Tiles>& gradients, int tiles) {
#pragma unroll
  for (int m = 0; m < Tiles; ++m) {
    if (m >= tiles) continue;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const uint32_t address =
            to + score_place(m * kTile + lane() / 4 + e % 2 * 8, 2 * i + e / 2) + lane() % 4 * 4;
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(gradients.ds[m][i][e]) : "memory");
      }
  }
}

/// ∂q of the 32 queries from `first` on: the warps take squares of 16 queries × 16 columns in turns.
__device__ void add_grad_q(const AttentionBackward<bf16>& task, const HeadPlace& place, const Team& team,
                           uint32_t grad_scores, uint32_t k, const LanePlaces& places, int first) {
  const int squares = first + kTile < place.queries ? 8 : 4;
  for (int square = team.warp; square < squares; square += team.warps) {
    const int tile = square / 4, c = square % 4;
    const uint32_t left = grad_scores + score_place(lane() / 16 * 8 + lane() % 8, 2 * tile + lane() / 8 % 2);
    const uint32_t right = k + (places.by_row ^ (c << 5));
    float sums[2][4] = {};
    for (int key = 0; key < place.keys; key += kTile) {
      uint32_t a[4], b[4];
      ldmatrix_transposed(a, left + key * kStepQueries * 2);
      ldmatrix_transposed(b, right + key * kRowBytes);
      if (key + 8 >= place.keys) {
        mma_half(sums[0], a, b[0]);
        mma_half(sums[1], a, b[2]);
      } else {
        mma(sums[0], a, b[0], b[1]);
        mma(sums[1], a, b[2], b[3]);
      }
    }
    const float scale[2] = {task.heads.scale, task.heads.scale};
    store_columns(task.dq, place.query, first + tile * kTile, place.queries, place.col + 16 * c, sums[0],
                  sums[1], scale, task.dq.add);
  }
}

/// Warps of a team.
template <int Tiles>
__host__ __device__ constexpr int team_warps(int keys) {
  return (tiles_of(keys) + Tiles - 1) / Tiles;
}

template <int Tiles>
__global__ void __launch_bounds__(kMostThreads<Tiles>, Tiles == 1 ? 3 : 1)
    resident_backward(AttentionBackward<bf16> task) {
  const BlockGroup group(task.sequences);
  const Team team(team_warps<Tiles>(group.keys));
  const int64_t piece = int64_t{group.block} * pieces_per_block(team.warps, static_cast<int>(blockDim.x) / 32) + team.number;
  if (team.idle() || piece >= group.count * task.heads.heads) return;
  __shared__ HeadPlace place_of_warp[kMostThreads<Tiles> / 32];  // there it takes no registers
  if (lane() == 0) place_of_warp[warp()] = HeadPlace(group, task.heads, static_cast<unsigned>(piece));
  __syncwarp();
  const HeadPlace& place = place_of_warp[warp()];
  const Plan plan(place.keys);
  unsigned char* memory = shared_bytes + team.number * plan.bytes();
  const uint32_t shared = shared_address(memory);
  const auto copy = [&](int matrix, const HeadRows<const bf16>& from, int64_t base) {
    copy_rows_async(shared + plan.matrix(matrix), plan.rows, from, base, 0, place.keys, place.col, team.thread(),
                    team.threads());
  };
  copy(0, task.k, place.key);
  copy(1, task.v, place.key);
  copy(2, task.q, place.query);
  RowStatistics<Tiles> row_statistics;
  row_statistics.start(task, place, team, plan, shared + plan.matrix(3));
  commit_copies();
  const LanePlaces places;
  const float factor = task.heads.factor;
  const int key = team.warp * Tiles * kTile, keys = min(Tiles * kTile, place.keys - key);
  wait_for_copies<0>();
  row_statistics.finish(team, plan, memory);
  team.sync();
  KeyGradients<Tiles> gradients;
  gradients.start();
  for (int step = 0; step < plan.steps; ++step) {
    const Plan now(place.keys);  // made anew in each step: kept, the places in it take more registers than there are
    const int first = step * kStepQueries;
    const float* statistics = reinterpret_cast<const float*>(memory + now.statistics(0)) + first;
    gradients.step(shared + now.matrix(0) + key * kRowBytes, shared + now.matrix(1) + key * kRowBytes, keys,
                   shared + now.matrix(2) + first * kRowBytes, shared + now.matrix(3) + first * kRowBytes, statistics,
                   statistics + now.steps * kStepQueries, places, factor, place.keys - first);
    if (!task.dq.wanted()) continue;
    const uint32_t grad_scores = shared + now.grad_scores(step % 2);
    share_grad_scores(grad_scores + key * kStepQueries * 2, gradients, tiles_of(keys));
    team.sync();  // and the other half of the buffer may be written, as nobody reads it any more
    add_grad_q(task, place, team, grad_scores, shared + now.matrix(0), places, first);
  }
  gradients.finish(task, place, key, place.keys);
}

/// Bytes of shared memory that a block may ask for on the stream's device.
struct SharedMemoryLimit {
  int bytes = 0;
  SharedMemoryLimit() {
    int device = 0;
    check(cudaGetDevice(&device), "attention backward");
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "attention backward");
  }
};

/// All sequences in one launch, with blocks that fit the longest.
template <int Tiles>
void run_resident(CudaStream& stream, AttentionBackward<bf16> task) {
  const int warps = team_warps<Tiles>(task.sequences.longest());
  int shared = 0;
  const unsigned blocks = task.sequences.deal_blocks([&](const EqualSequences& group) {
    const int pieces = pieces_per_block(team_warps<Tiles>(group.keys), warps);
    shared = std::max(shared, pieces * Plan(group.keys).bytes());
    return (group.count * task.heads.heads + pieces - 1) / pieces;
  });
  launch(stream, "attention backward", resident_backward<Tiles>,
         {blocks, static_cast<unsigned>(warps) * 32, static_cast<size_t>(shared)}, task);
}

}  // namespace attention_tensor_backward_cu

void tensor_attention_backward(CudaStream& stream, const AttentionBackward<bf16>& task) {
  const int limit = stream.cache<SharedMemoryLimit>().bytes;
  const auto fits = [&](const EqualSequences& group) {
    return group.keys <= kLargestLength && Plan(group.keys).bytes() <= limit;
  };
  const AttentionBackward<bf16> resident = task_where(task, fits);
  if (resident.sequences.longest() <= kShortLength)
    run_resident<1>(stream, resident);
  else
    run_resident<2>(stream, resident);
  long_attention_backward(stream, task_where(task, [&](const EqualSequences& group) { return !fits(group); }));
}

}  // namespace dino::cuda
