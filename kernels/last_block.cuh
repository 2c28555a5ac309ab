#pragma once

#include "kernels/cuda_memory.h"
#include "kernels/launch.cuh"

/// Sums over the blocks of a launch, by its own last blocks, in an order that does not depend on which these
/// are: a second launch for them would often take longer than they do.
namespace dino::cuda {

/// Counters in device memory by which blocks find out who comes last. They are zero between launches.
class Tickets {
 public:
  Tickets() = default;
  Tickets(const Tickets&) = delete;
  Tickets& operator=(const Tickets&) = delete;
  ~Tickets() {
    for (std::byte* memory : all_) release(memory);
  }

  unsigned* get(CudaStream& stream, size_t count) {
    if (count <= count_) return counters_;
    count_ = std::max<size_t>(count, 2048);
    const size_t bytes = count_ * sizeof(unsigned);
    all_.push_back(allocate(bytes));  // recorded graphs hold the address of the old ones
    dino::check(all_.back(), "cuda: the GPU has no memory left for ", bytes, " bytes");
    counters_ = reinterpret_cast<unsigned*>(all_.back());
    check(cudaMemsetAsync(counters_, 0, bytes, stream.handle()), "tickets");
    return counters_;
  }

 private:
  size_t count_ = 0;
  unsigned* counters_ = nullptr;
  std::vector<std::byte*> all_;
};

/// `count` counters of this stream, for one launch.
inline unsigned* tickets(CudaStream& stream, size_t count) {
  return stream.cache<Tickets>().get(stream, count);
}

/// For all threads of `blocks` blocks that come here with the same counter: whether theirs is the last, which
/// then sees what the others stored before. The counter is zero again after that.
inline __device__ bool is_last_block(unsigned* counter, unsigned blocks) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) is_last = atomicInc(counter, blocks - 1) == blocks - 1;
  __syncthreads();
  const bool last = is_last;
  if (last) __threadfence();
  return last;
}

/// The same for one warp of each of `blocks` blocks.
inline __device__ bool is_last_warp(unsigned* counter, unsigned blocks) {
  __threadfence();
  __syncwarp();
  unsigned before = 0;
  if (threadIdx.x % 32 == 0) before = atomicInc(counter, blocks - 1);
  const bool last = __shfl_sync(0xFFFFFFFFu, before, 0) == blocks - 1;
  if (last) __threadfence();
  return last;
}

/// Rows of partial sums, one for each of some blocks, and how these become sums over all. Up to 32 blocks are
/// added up by the last of them; if there are more, sums of 32 come first, so that no block reads much.
struct PartialRows {
  static constexpr unsigned kFanIn = 32;
  float* rows;
  int64_t cols, stride;  ///< of a row, and between rows
  unsigned blocks;
  unsigned* counters;  ///< counters_for(blocks) of them

  static constexpr unsigned counters_for(unsigned blocks) {
    return blocks <= kFanIn ? 1 : 1 + (blocks + kFanIn - 1) / kFanIn;
  }
  __device__ float* row(unsigned block) const { return rows + block * stride; }

  __device__ float sum(int64_t col, unsigned first, unsigned end, unsigned step) const {
    float sum = 0;
#pragma unroll 8
    for (unsigned block = first; block < end; block += step) sum += rows[block * stride + col];
    return sum;
  }

  /// Comes after block `block` of `Threads` threads stored its row. Calls take(col, sum), in one of the
  /// blocks.
  template <int Threads, class Take>
  __device__ void add_up(unsigned block, const Take& take) const {
    unsigned step = 1;
    if (blocks > kFanIn) {
      const unsigned first = block / kFanIn * kFanIn, end = min(first + kFanIn, blocks);
      if (!is_last_block(counters + 1 + block / kFanIn, end - first)) return;
      for (int64_t col = threadIdx.x; col < cols; col += Threads)
        rows[first * stride + col] = sum(col, first, end, 1);
      step = kFanIn;
    }
    if (!is_last_block(counters, (blocks + step - 1) / step)) return;
    for (int64_t col = threadIdx.x; col < cols; col += Threads) take(col, sum(col, 0, blocks, step));
  }
};

}  // namespace dino::cuda
