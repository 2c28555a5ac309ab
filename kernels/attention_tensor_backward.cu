#include "kernels/attention_tensor_backward.cuh"

// Attention backward on tensor cores, for sequences whose q, k, v and ∂o fit in shared memory: a block owns
// one head of one sequence, so that everything is read and written once and nothing is summed between blocks.
// Each warp owns 16 or 32 keys, and all pass together over the queries, 32 at a time. Their ∂scores meet in
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

/// How a block cuts up its shared memory. ∂scores: keys × 32 queries, twice; 4 chunks of 16 bytes a row,
/// chunk c of row r at place c ^ (r / 2 % 4).
struct Plan {
  int rows;  ///< of q, k, v, ∂o and of ∂scores: whole tiles
  int steps;

  __host__ __device__ explicit Plan(int length)
      : rows(round_up(length, kTile)), steps(round_up(length, kStepQueries) / kStepQueries) {}
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

  static __device__ int row(int i) { return warp() * Tiles * kTile + i * 4 + lane() / 8; }

  __device__ void start(const AttentionBackward<bf16>& task, const HeadPlace& place, const Plan& plan,
                        uint32_t to) {
    const int end = task.shape.queries, chunk = lane() % 8;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int r = row(i);
      const bool valid = r < end;
      o[i] = {};
      if (valid)
        o[i] = *reinterpret_cast<const Pack<bf16, 8>*>(task.o.at(place.query + r, place.col + chunk * 8));
      lse[i] = valid && chunk == 0 ? task.lse[(place.query + r) * task.shape.heads + place.head] * kLog2E
                                   : INFINITY;
      const bf16* from = valid ? task.grad_o.at(place.query + r, place.col + chunk * 8) : task.grad_o.data;
      if (r < plan.rows) copy_async(to + chunk_place(r, chunk), from, valid);
    }
  }

  /// After the lane's copies have arrived.
  __device__ void finish(const Plan& plan) const {
    float* powers = reinterpret_cast<float*>(shared_bytes + plan.statistics(0));
    float* delta = reinterpret_cast<float*>(shared_bytes + plan.statistics(1));
    const int chunk = lane() % 8;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int r = row(i);
      float sum = 0;
      if (r < plan.rows) {
        const auto grad_o =
            *reinterpret_cast<const Pack<bf16, 8>*>(shared_bytes + plan.matrix(3) + chunk_place(r, chunk));
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
    const int pad = plan.rows + static_cast<int>(threadIdx.x);
    if (pad >= plan.steps * kStepQueries) return;
    powers[pad] = INFINITY;
    delta[pad] = 0;
  }
};

/// Hands the warp's ∂scores, whose rows begin at `to`, to the block.
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

/// ∂q of the 32 queries from `first` on: the warps take pieces of 16 queries × 16 columns in turns.
__device__ void add_grad_q(const AttentionBackward<bf16>& task, const HeadPlace& place, const Plan& plan,
                           uint32_t grad_scores, uint32_t k, const LanePlaces& places, int first) {
  const int pieces = first + kTile < task.shape.queries ? 8 : 4, warps = static_cast<int>(blockDim.x) / 32;
  for (int piece = warp(); piece < pieces; piece += warps) {
    const int tile = piece / 4, c = piece % 4;
    const uint32_t left = grad_scores + score_place(lane() / 16 * 8 + lane() % 8, 2 * tile + lane() / 8 % 2);
    const uint32_t right = k + (places.by_row ^ (c << 5));
    float sums[2][4] = {};
    for (int key = 0; key < plan.rows; key += kTile) {
      uint32_t a[4], b[4];
      ldmatrix_transposed(a, left + key * kStepQueries * 2);
      ldmatrix_transposed(b, right + key * kRowBytes);
      mma(sums[0], a, b[0], b[1]);
      mma(sums[1], a, b[2], b[3]);
    }
    const float scale[2] = {task.shape.scale, task.shape.scale};
    store_columns(task.dq, place.query, first + tile * kTile, task.shape.queries, place.col + 16 * c, sums[0],
                  sums[1], scale, task.dq.add);
  }
}

template <int Tiles>
__global__ void __launch_bounds__(kMostThreads<Tiles>, Tiles == 1 ? 3 : 1)
    resident_backward(AttentionBackward<bf16> task) {
  const HeadPlace place(task.shape, blockIdx.x);
  const int length = task.shape.keys;
  const Plan plan(length);
  const uint32_t shared = shared_address(shared_bytes), k = shared + plan.matrix(0),
                 v = shared + plan.matrix(1), q = shared + plan.matrix(2), grad_o = shared + plan.matrix(3);
  copy_rows_async(k, plan.rows, task.k, place.key, 0, length, place.col);
  copy_rows_async(v, plan.rows, task.v, place.key, 0, length, place.col);
  copy_rows_async(q, plan.rows, task.q, place.query, 0, length, place.col);
  RowStatistics<Tiles> row_statistics;
  row_statistics.start(task, place, plan, grad_o);
  commit_copies();
  const float* statistics = reinterpret_cast<const float*>(shared_bytes + plan.statistics(0));
  const LanePlaces places;
  const float factor = task.shape.scale * kLog2E;
  const int key = warp() * Tiles * kTile, keys = min(Tiles * kTile, length - key);
  const int tiles = (keys + kTile - 1) / kTile;
  wait_for_copies<0>();
  row_statistics.finish(plan);
  __syncthreads();
  KeyGradients<Tiles> gradients;
  gradients.start();
  for (int step = 0; step < plan.steps; ++step) {
    const int first = step * kStepQueries;
    const uint32_t grad_scores = shared + plan.grad_scores(step % 2);
    gradients.step(k + key * kRowBytes, v + key * kRowBytes, keys, q + first * kRowBytes,
                   grad_o + first * kRowBytes, statistics + first,
                   statistics + plan.steps * kStepQueries + first, places, factor, length - first);
    if (!task.dq.wanted()) continue;
    share_grad_scores(grad_scores + key * kStepQueries * 2, gradients, tiles);
    __syncthreads();  // and the other half of the buffer may be written, as nobody reads it any more
    add_grad_q(task, place, plan, grad_scores, k, places, first);
  }
  gradients.finish(task, place, key, length);
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

template <int Tiles>
void run_resident(CudaStream& stream, const AttentionBackward<bf16>& task) {
  const unsigned warps = static_cast<unsigned>(round_up(task.shape.keys, Tiles * kTile) / (Tiles * kTile));
  launch(stream, "attention backward", resident_backward<Tiles>,
         {blocks_for(task.shape.pieces(), 1), warps * 32, static_cast<size_t>(Plan(task.shape.keys).bytes())},
         task);
}

}  // namespace attention_tensor_backward_cu

void tensor_attention_backward(CudaStream& stream, const AttentionBackward<bf16>& task) {
  const int length = task.shape.keys;
  if (length > kLargestLength || Plan(length).bytes() > stream.cache<SharedMemoryLimit>().bytes) {
    long_attention_backward(stream, task);
  } else if (length <= kShortLength) {
    run_resident<1>(stream, task);
  } else {
    run_resident<2>(stream, task);
  }
}

}  // namespace dino::cuda
