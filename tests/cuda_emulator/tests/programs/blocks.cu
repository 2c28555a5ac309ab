// Threads of a block and blocks of a grid that wait for each other: barriers of every kind, reductions,
// scans, locks, asynchronous copies.
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>

#include <cuda/barrier>
#include <cuda/pipeline>
#include <cuda/std/utility>

#include "compare.h"

namespace cg = cooperative_groups;

namespace {

std::vector<int> pattern(int n) {
  std::vector<int> values(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i)
    values[static_cast<std::size_t>(i)] =
        static_cast<int>(static_cast<unsigned>(i) * 2654435761u >> 20) - 2000;
  return values;
}

// ---- barriers that reduce ----

__global__ void barrier_votes(int* out, int threshold) {
  const int t = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(t % 3 == 0), all = __syncthreads_and(t < threshold),
            any = __syncthreads_or(t == threshold);
  out[3 * t] = count;
  out[3 * t + 1] = all != 0;
  out[3 * t + 2] = any != 0;
}

void check_barrier_votes() {
  for (const int threads : {1, 31, 32, 100, 1024})
    for (const int threshold : {0, 50, 2000}) {
      Array<int> out(static_cast<std::size_t>(3 * threads));
      barrier_votes<<<1, threads>>>(out, threshold);
      finish("barrier_votes");
      std::vector<int> expected;
      for (int t = 0; t < threads; ++t)
        for (const int value : {(threads + 2) / 3, threads <= threshold ? 1 : 0, threshold < threads ? 1 : 0})
          expected.push_back(value);
      expect_equal("barriers that vote", out.fetch(), expected);
    }
}

// ---- named barriers: two warps produce for two that consume, through two buffers ----

__device__ void named_sync(int id) { asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory"); }
__device__ void named_arrive(int id) { asm volatile("bar.arrive %0, 128;" ::"r"(id) : "memory"); }

__global__ void producers_and_consumers(int* out, const int* in, int rounds) {
  __shared__ int buffer[2][64];
  const int t = static_cast<int>(threadIdx.x), i = t % 64;
  const auto full = [](int b) { return 1 + b; };
  const auto empty = [](int b) { return 3 + b; };
  if (t < 64) {
    for (int r = 0; r < rounds; ++r) {
      const int b = r % 2;
      if (r >= 2) named_sync(empty(b));
      buffer[b][i] = in[r * 64 + i] * 3;
      named_arrive(full(b));
    }
  } else {
    int sum = 0;
    for (int r = 0; r < rounds; ++r) {
      const int b = r % 2;
      named_sync(full(b));
      sum += buffer[b][63 - i];
      out[r * 64 + i] = sum;
      if (r + 2 < rounds) named_arrive(empty(b));
    }
  }
}

void check_named_barriers() {
  constexpr int kRounds = 7;
  Array<int> in(pattern(kRounds * 64)), out(kRounds * 64);
  producers_and_consumers<<<2, 128>>>(out, in, kRounds);
  finish("producers_and_consumers");
  std::vector<int> expected(kRounds * 64);
  for (int i = 0; i < 64; ++i)
    for (int r = 0, sum = 0; r < kRounds; ++r)
      expected[static_cast<std::size_t>(r * 64 + i)] = sum +=
          3 * in.host[static_cast<std::size_t>(r * 64 + 63 - i)];
  expect_equal("producers and consumers", out.fetch(), expected);
}

// ---- reductions: of a block, by the last block, of a whole grid ----

__device__ unsigned blocks_done;

__device__ int block_sum(int value) {
  __shared__ int part[32];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  value = __reduce_add_sync(~0u, value);
  if (lane == 0) part[warp] = value;
  __syncthreads();
  value = lane < static_cast<int>(blockDim.x) / 32 ? part[lane] : 0;
  value = cg::reduce(cg::tiled_partition<32>(cg::this_thread_block()), value, cg::plus<int>());
  __syncthreads();
  return value;
}

__global__ void total(int* result, int* partial, const int* in, int n) {
  __shared__ bool last;
  int sum = 0;
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x))
    sum += in[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    last = atomicInc(&blocks_done, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  sum = block_sum(threadIdx.x < gridDim.x ? partial[threadIdx.x] : 0);
  if (threadIdx.x == 0) *result = sum;
}

__global__ void smooth_in_grid(int* numbers, int steps) {
  const auto grid = cg::this_grid();
  const int n = static_cast<int>(grid.size()), i = static_cast<int>(grid.thread_rank());
  for (int s = 0; s < steps; ++s) {
    const int value = numbers[(i + n - 1) % n] + numbers[(i + 1) % n] - numbers[i];
    grid.sync();
    numbers[i] = value;
    grid.sync();
  }
}

void check_reductions() {
  constexpr int kN = 5000;
  Array<int> in(pattern(kN)), partial(20), result(1);
  int expected = 0;
  for (const int value : in.host) expected += value;
  for (int round = 0; round < 2; ++round) {
    total<<<20, 128>>>(result, partial, in, kN);
    finish("total");
    EXPECT(result.fetch()[0] == expected);
  }
  constexpr int kThreads = 64, kBlocks = 9, kSteps = 4;
  Array<int> ring(pattern(kThreads * kBlocks));
  std::vector<int> now = ring.host;
  for (int s = 0; s < kSteps; ++s) {
    const std::vector<int> before = now;
    for (std::size_t i = 0, n = now.size(); i < n; ++i)
      now[i] = before[(i + n - 1) % n] + before[(i + 1) % n] - before[i];
  }
  int* numbers = ring;
  int steps = kSteps;
  void* arguments[] = {&numbers, &steps};
  OK(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(smooth_in_grid), dim3(kBlocks), dim3(kThreads),
                                 arguments, 0, nullptr));
  finish("smooth_in_grid");
  expect_equal("a grid that synchronises", ring.fetch(), now);
}

// ---- scan with decoupled look-back (Merrill and Garland, 2016) ----

// A tile has left nothing (0), its own sum (1), or the sum of all up to it (2), with the sum in the upper
// half.
__device__ unsigned next_tile;

__global__ void scan(int* out, const int* in, unsigned long long* states, int n) {
  __shared__ unsigned tile_index;
  __shared__ int before_tile, warp_sums[4];
  if (threadIdx.x == 0) tile_index = atomicAdd(&next_tile, 1);
  __syncthreads();
  const int tile = static_cast<int>(tile_index), t = static_cast<int>(threadIdx.x), i = tile * 128 + t;
  int sum = i < n ? in[i] : 0;
  for (int step = 1; step < 32; step *= 2) {
    const int below = __shfl_up_sync(~0u, sum, static_cast<unsigned>(step));
    if (t % 32 >= step) sum += below;
  }
  if (t % 32 == 31) warp_sums[t / 32] = sum;
  __syncthreads();
  for (int w = 0; w < t / 32; ++w) sum += warp_sums[w];
  const auto publish = [&](int status, int value) {
    atomicExch(&states[tile], static_cast<unsigned long long>(static_cast<unsigned>(value)) << 32 |
                                  static_cast<unsigned>(status));
  };
  if (t == 127) {
    publish(tile == 0 ? 2 : 1, sum);
    int before = 0;
    for (int earlier = tile - 1; earlier >= 0; --earlier) {
      unsigned long long state;
      while (((state = *reinterpret_cast<volatile unsigned long long*>(&states[earlier])) & 3) == 0) {
      }
      before += static_cast<int>(state >> 32);
      if ((state & 3) == 2) break;
    }
    if (tile > 0) publish(2, before + sum);
    before_tile = before;
  }
  __syncthreads();
  if (i < n) out[i] = before_tile + sum;
}

void check_scan() {
  constexpr int kN = 3333, kTiles = (kN + 127) / 128;
  Array<int> in(pattern(kN)), out(kN);
  Array<unsigned long long> states(kTiles);
  scan<<<kTiles, 128>>>(out, in, states, kN);
  finish("scan");
  std::vector<int> expected(kN);
  for (int i = 0, sum = 0; i < kN; ++i)
    expected[static_cast<std::size_t>(i)] = sum += in.host[static_cast<std::size_t>(i)];
  expect_equal("a scan with look-back", out.fetch(), expected);
}

// ---- a lock of all blocks ----

__device__ int lock_word, entries;
__device__ long long guarded_sum;

__global__ void locked_sum(const int* in) {
  const int sum = block_sum(in[blockIdx.x * blockDim.x + threadIdx.x]);
  if (threadIdx.x != 0) return;
  while (atomicCAS(&lock_word, 0, 1) != 0) __nanosleep(100);
  __threadfence();
  guarded_sum = guarded_sum + sum;
  entries = entries + 1;
  __threadfence();
  atomicExch(&lock_word, 0);
}

void check_lock() {
  Array<int> in(pattern(40 * 64));
  locked_sum<<<40, 64>>>(in);
  finish("locked_sum");
  long long sum = 0, expected = 0;
  int count = 0;
  OK(cudaMemcpyFromSymbol(&sum, guarded_sum, sizeof sum));
  OK(cudaMemcpyFromSymbol(&count, entries, sizeof count));
  for (const int value : in.host) expected += value;
  EXPECT(sum == expected);
  EXPECT(count == 40);
}

// ---- asynchronous copies and split barriers of libcu++ and cooperative groups ----

__global__ void group_copy(int* out, const int* in, int n) {
  __shared__ alignas(16) int tile[256];
  const auto block = cg::this_thread_block();
  int sum = 0;
  for (int first = 0; first < n; first += 256) {
    cg::memcpy_async(block, tile, in + first, sizeof(int) * static_cast<unsigned>(min(256, n - first)));
    cg::wait(block);
    for (int i = static_cast<int>(block.thread_rank()); i < min(256, n - first);
         i += static_cast<int>(block.size()))
      sum += tile[(i + 7) % min(256, n - first)];
    block.sync();
  }
  out[block.thread_rank()] = block_sum(sum);
}

__global__ void split_barrier(int* out, const int* in, int rounds) {
  using Barrier = cuda::barrier<cuda::thread_scope_block>;
  __shared__ int tile[2][128];
#pragma nv_diag_suppress static_var_with_dynamic_init
  __shared__ Barrier ready;
  const auto block = cg::this_thread_block();
  if (block.thread_rank() == 0) init(&ready, block.size());
  block.sync();
  const int t = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int r = 0; r < rounds; ++r) {
    tile[r % 2][t] = in[r * 128 + t];
    auto token = ready.arrive();
    sum += t;  // work between arriving and waiting
    ready.wait(cuda::std::move(token));
    sum += tile[r % 2][127 - t];
  }
  out[t] = sum;
  ready.arrive_and_wait();
  cuda::memcpy_async(block, &tile[0][0], in, cuda::aligned_size_t<16>(128 * sizeof(int)), ready);
  ready.arrive_and_wait();
  out[128 + t] = tile[0][t ^ 37];
}

__global__ void two_stages(int* out, const int* in, int rounds) {
  constexpr int kStages = 2;
  __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, kStages> state;
  __shared__ alignas(16) int tile[kStages][128];
  const auto block = cg::this_thread_block();
  auto pipeline = cuda::make_pipeline(block, &state);
  const int t = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int r) {
    pipeline.producer_acquire();
    if (r < rounds)
      cuda::memcpy_async(block, tile[r % kStages], in + r * 128, cuda::aligned_size_t<16>(128 * sizeof(int)),
                         pipeline);
    pipeline.producer_commit();
  };
  int sum = 0;
  fetch(0);
  for (int r = 0; r < rounds; ++r) {
    fetch(r + 1);
    pipeline.consumer_wait();
    sum += tile[r % kStages][127 - t] * (r + 1);
    pipeline.consumer_release();
  }
  out[t] = sum;
  pipeline.consumer_wait();
  pipeline.consumer_release();
}

void check_asynchronous() {
  constexpr int kRounds = 5, kN = 700;
  Array<int> in(pattern(1024)), out(256), alone(128);
  std::vector<int> expected(128, 0);
  group_copy<<<1, 128>>>(alone, in, kN);
  finish("group_copy");
  for (int i = 0; i < kN; ++i) expected[0] += in.host[static_cast<std::size_t>(i)];
  expect_equal("cg::memcpy_async", alone.fetch(), std::vector<int>(128, expected[0]));
  split_barrier<<<1, 128>>>(out, in, kRounds);
  finish("split_barrier");
  std::vector<int> halves(256), staged(128);
  for (int t = 0; t < 128; ++t) {
    for (int r = 0; r < kRounds; ++r) {
      const int value = in.host[static_cast<std::size_t>(r * 128 + 127 - t)];
      halves[static_cast<std::size_t>(t)] += t + value;
      staged[static_cast<std::size_t>(t)] += value * (r + 1);
    }
    halves[static_cast<std::size_t>(128 + t)] = in.host[static_cast<std::size_t>(t ^ 37)];
  }
  expect_equal("cuda::barrier", out.fetch(), halves);
  two_stages<<<1, 128>>>(alone, in, kRounds);
  finish("two_stages");
  expect_equal("cuda::pipeline", alone.fetch(), staged);
}

// ---- clocks ----

__global__ void clocks(long long* out) {
  const long long before = clock64();
  __nanosleep(1000);
  const long long after = clock64();
  unsigned long long nanoseconds;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds));
  out[0] = after - before;
  out[1] = static_cast<long long>(nanoseconds);
  out[2] = clock() != 0;
}

void check_clocks() {
  Array<long long> out(3);
  clocks<<<1, 1>>>(out);
  finish("clocks");
  out.fetch();
  EXPECT(out.host[0] > 0);
  EXPECT(out.host[1] > 0);
}

}  // namespace

int main() {
  check_barrier_votes();
  check_named_barriers();
  check_reductions();
  check_scan();
  check_lock();
  check_asynchronous();
  check_clocks();
  return status();
}
