#include "kernels/top_k.h"

#include <bit>
#include <climits>

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/matmul.cuh"

// Scores of up to 1024 queries against 8192 rows of the bank at a time, 32 MiB that stay in the L2 cache, are
// the work of the matmul library. A block per query then goes through its scores: what is better than the
// k-th best so far is gathered in shared memory, and sorted together with the k best whenever that is full
// and at the end. Few scores are: about k · (rows of the chunk / rows so far). All products have one shape,
// so that equal rows of the bank get equal scores wherever they lie. NaN is worse than everything.
namespace dino {
inline namespace top_k_cu {

using namespace cuda;

constexpr int64_t kQueries = 1024;   // per product
constexpr int64_t kBankRows = 8192;  // per product
constexpr int kThreads = 256;
constexpr int kRound = kThreads * 4;  // scores that a block looks at between two looks at how many it has gathered
constexpr int kFewestKeys = 2048;
constexpr int64_t kMostKeys = 16384;  // in shared memory; half of them hold the k best

/// Orders by score and then by the lower row: larger keys are better, and no two are equal. 0 is worse than
/// any.
using Key = unsigned long long;

__device__ Key key_of(float score, uint32_t row) {
  const uint32_t bits = __float_as_uint(score + 0.0f);  // −0 becomes 0
  const uint32_t ordered = isnan(score) ? 0 : bits ^ (bits >> 31 ? 0xFFFFFFFFu : 0x80000000u);
  return Key{ordered} << 32 | ~row;
}
__device__ float score_of(Key key) {
  const uint32_t ordered = static_cast<uint32_t>(key >> 32);
  return ordered == 0 ? NAN : __uint_as_float(ordered ^ (ordered >> 31 ? 0x80000000u : 0xFFFFFFFFu));
}
__device__ int64_t row_of(Key key) { return static_cast<uint32_t>(~key); }

/// The steps of the network below for `size`, and for all up to 32, whose partners lie among 32 keys: a warp takes these into
/// registers, one each.
__device__ void sort_in_warps(Key* keys, int count, int size) {
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int begin = static_cast<int>(threadIdx.x) - lane; begin < count; begin += kThreads) {
    const int at = begin + lane;
    Key key = at < count ? keys[at] : 0;
    for (int s = size; s <= max(size, 32); s *= 2)
      for (int distance = min(s / 2, 16); distance > 0; distance /= 2) {
        const Key partner = __shfl_xor_sync(0xFFFFFFFFu, key, distance);
        const bool keeps_larger = ((at & s) == 0) == ((at & distance) == 0);
        if ((partner > key) == keeps_larger) key = partner;
      }
    if (at < count) keys[at] = key;
  }
}

/// Sorts `count` keys, a power of two, largest first (Batcher's bitonic network). All threads of the block
/// take part.
__device__ void sort(Key* keys, int count) {
  sort_in_warps(keys, count, 2);
  for (int size = 64; size <= count; size *= 2) {
    for (int distance = size / 2; distance >= 32; distance /= 2) {
      __syncthreads();
      for (int pair = threadIdx.x; pair < count / 2; pair += kThreads) {
        const int low = 2 * pair - (pair & (distance - 1)), high = low + distance;
        const Key a = keys[low], b = keys[high];
        const bool falls = (low & size) == 0;
        if ((a < b) == falls) keys[low] = b, keys[high] = a;
      }
    }
    sort_in_warps(keys, count, size);
  }
  __syncthreads();
}

/// The best keys so far and those gathered since, of one query, in shared memory.
struct Gathered {
  Key* keys;      ///< the k best, largest first, then what was gathered
  int* gathered;  ///< how many
  int k, capacity;

  __device__ void take(Key key, Key worst) const {
    if (key > worst) keys[k + atomicAdd(gathered, 1)] = key;
  }
  /// Sorts what was gathered in. Returns the k-th best.
  __device__ Key merge() const {
    __syncthreads();
    const int used = k + *gathered;
    int count = 1;
    while (count < used) count *= 2;
    for (int i = used + static_cast<int>(threadIdx.x); i < count; i += kThreads) keys[i] = 0;
    sort(keys, count);
    if (threadIdx.x == 0) *gathered = 0;
    __syncthreads();
    return keys[k - 1];
  }
};

/// What merge_scores() works on.
struct Scores {
  const float* data;   ///< [queries, row_stride], aligned to 16 bytes
  int64_t row_stride;  ///< divisible by 4
  int count;           ///< scores of a query
  uint32_t first_row;  ///< of the bank
};

/// Makes `best` [queries, k] the k best keys so far, largest first. With `first` it holds nothing yet.
__global__ void __launch_bounds__(kThreads, 8) merge_scores(Scores scores, int k, int capacity, bool first, Key* best) {
  extern __shared__ Key keys[];
  __shared__ int gathered;
  const Gathered own{keys, &gathered, k, capacity};
  Key* own_best = best + int64_t{blockIdx.x} * k;
  const float* row = scores.data + blockIdx.x * scores.row_stride;
  for (int i = threadIdx.x; i < k; i += kThreads) keys[i] = first ? 0 : own_best[i];
  if (threadIdx.x == 0) gathered = 0;
  __syncthreads();
  Key worst = keys[k - 1];
  bool changed = first;
  for (int begin = 0; begin < scores.count; begin += kRound) {
    if (k + gathered + kRound > capacity) {  // the same for all: the last round ended with a barrier
      worst = own.merge();
      changed = true;
    }
    __syncthreads();
    const int at = begin + 4 * static_cast<int>(threadIdx.x);
    const uint32_t bank_row = scores.first_row + static_cast<uint32_t>(at);
    if (at + 4 <= scores.count) {
      float value[4];
      load(row + at, value);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) own.take(key_of(value[i], bank_row + i), worst);
    } else {
      for (int i = 0; at + i < scores.count; ++i)
        own.take(key_of(row[at + i], bank_row + static_cast<uint32_t>(i)), worst);
    }
    __syncthreads();
  }
  if (gathered == 0 && !changed) return;
  own.merge();
  for (int i = threadIdx.x; i < k; i += kThreads) own_best[i] = keys[i];
}

__global__ void __launch_bounds__(kThreads)
    write_best(const Key* best, int64_t count, float* scores, int64_t* indices) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  scores[i] = score_of(best[i]);
  indices[i] = row_of(best[i]);
}

/// Scratch memory of one call.
struct Memory {
  static constexpr size_t kAlign = 256;
  int64_t queries, bank_rows, score_stride;
  float* scores;
  Key* best;
  std::byte* last_rows = nullptr;  ///< a copy of the last rows of the bank, filled up to bank_rows

  Memory(CudaStream& stream, const View& query, const View& bank, int64_t k)
      : queries(std::min(kQueries, query.rows())),
        bank_rows(std::min(kBankRows, bank.rows())),
        score_stride((bank_rows + 3) / 4 * 4) {
    const auto padded = [](int64_t bytes) { return (static_cast<size_t>(bytes) + kAlign - 1) / kAlign * kAlign; };
    const bool rest = bank.rows() % bank_rows != 0;
    const size_t score_bytes = padded(queries * score_stride * 4), best_bytes = padded(queries * k * 8);
    const size_t copy_bytes = rest ? padded(bank_rows * bank.row_stride * 4) + kAlign : 0;
    std::byte* memory = stream.scratch(score_bytes + best_bytes + copy_bytes);
    scores = reinterpret_cast<float*>(memory);
    best = reinterpret_cast<Key*>(memory + score_bytes);
    // The copy is aligned as the bank is: the library's choice of an algorithm may depend on it.
    if (rest) last_rows = memory + score_bytes + best_bytes + reinterpret_cast<uintptr_t>(bank.data) % kAlign;
  }
};

/// Copies the rows of the bank that no whole chunk holds and makes the rest of the chunk zero.
void copy_last_rows(CudaStream& stream, const View& bank, const Memory& memory) {
  const int64_t rest = bank.rows() % memory.bank_rows, row_bytes = bank.row_stride * 4;
  check(cudaMemsetAsync(memory.last_rows, 0, static_cast<size_t>(memory.bank_rows * row_bytes), stream.handle()),
        "top_k");
  // Behind the last row there may be nothing.
  stream.copy(memory.last_rows, bank.row<float>(bank.rows() - rest),
              static_cast<size_t>((rest - 1) * row_bytes + bank.cols() * 4));
}

}  // namespace top_k_cu

void TopK::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const View &query = in[queries], &rows = in[bank];
  const int64_t count = query.rows(), bank_count = rows.rows(), dim = rows.cols();
  dino::check<UsageError>(2 * k <= kMostKeys, kName, ": on a GPU, k must be at most ", kMostKeys / 2, "; got ", k);
  dino::check<UsageError>(bank_count < UINT_MAX, kName, ": on a GPU, bank must have less than 2^32 rows; got ",
                          bank_count);
  if (count == 0) return;
  const Memory memory(stream, query, rows, k);
  if (memory.last_rows) copy_last_rows(stream, rows, memory);
  const int64_t wanted = std::max<int64_t>(kFewestKeys, k + kRound);
  const int capacity = static_cast<int>(std::bit_ceil(static_cast<uint64_t>(wanted)));
  for (int64_t begin = 0; begin < count; begin += memory.queries) {
    const int64_t n = std::min(memory.queries, count - begin);
    for (int64_t row = 0; row < bank_count; row += memory.bank_rows) {
      const int64_t used = std::min(memory.bank_rows, bank_count - row);
      const void* chunk =
          used < memory.bank_rows ? memory.last_rows : reinterpret_cast<std::byte*>(rows.row<float>(row));
      matmul(stream, n, memory.bank_rows, dim, 1, {query.row<float>(begin), Dtype::f32, query.row_stride},
             {chunk, Dtype::f32, rows.row_stride, true}, 0, {memory.scores, Dtype::f32, memory.score_stride});
      const Scores scores{memory.scores, memory.score_stride, static_cast<int>(used), static_cast<uint32_t>(row)};
      launch(stream, "top_k", merge_scores, {blocks_for(n, 1), kThreads, static_cast<size_t>(capacity) * sizeof(Key)},
             scores, k, capacity, row == 0, memory.best);
    }
    launch(stream, "top_k: result", write_best, {blocks_for(n * k, kThreads), kThreads}, memory.best, n * k,
           out[TopK::scores].as<float>() + begin * k, out[indices].as<int64_t>() + begin * k);
  }
}

}  // namespace dino
