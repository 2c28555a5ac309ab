// Kernels with a seeded race, each next to its correct twin. `races --list` prints "NAME race" or "NAME
// clean" per line, `races NAME` runs one of them. check_races.sh runs all of them under the emulator's race
// check. Which accesses race never depends on the schedule.
#include <cooperative_groups.h>

#include <cstdio>
#include <cstring>

namespace {

constexpr int kThreads = 128, kBlocks = 6;

__device__ int data[kBlocks * kThreads], result[kBlocks * kThreads], total;
__device__ unsigned counter, ticket, status[kBlocks], arrived;
__device__ int lock_word;
__device__ unsigned char bytes[kThreads];

__device__ __forceinline__ void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <bool Correct>
__global__ void read_of_neighbours() {
  __shared__ int tile[kThreads];
  const int t = threadIdx.x;
  tile[t] = t + 1;
  if (Correct) __syncthreads();
  result[t] = tile[kThreads - 1 - t];
}

template <bool Correct>
__global__ void overwriting_what_others_read() {
  __shared__ int tile[kThreads];
  const int t = threadIdx.x;
  int sum = 0;
  for (int step = 1; step < 4; ++step) {
    tile[t] = t * step;
    __syncthreads();
    sum += tile[(t + 64) % kThreads];
    if (Correct) __syncthreads();
  }
  result[t] = sum;
}

template <bool Correct>
__global__ void lanes_of_a_warp() {
  __shared__ int tile[32];
  const int t = threadIdx.x;
  tile[t] = t + 1;
  if (Correct) __syncwarp();
  result[t] = tile[t ^ 1];
}

// Warps 0 and 1 meet at barrier 1, warps 2 and 3 at barrier 2. The wrong one reads what the other pair wrote.
template <bool Correct>
__global__ void named_barriers() {
  __shared__ int tile[kThreads];
  const int t = threadIdx.x, pair = t / 64;
  tile[t] = t + 1;
  named_sync(1 + pair, 64);
  result[t] = tile[Correct ? t ^ 32 : t ^ 64];
}

// Warps 0 and 1 produce and arrive, warps 2 and 3 wait. The wrong one produces once more after it has
// arrived.
template <bool Correct>
__global__ void arrive_and_wait() {
  __shared__ int tile[kThreads];
  const int t = threadIdx.x;
  if (t < 64) {
    tile[t] = t + 1;
    if (Correct) tile[t + 64] = t + 2;
    named_arrive(3, kThreads);
    if (!Correct) tile[t + 64] = t + 2;
  } else {
    named_sync(3, kThreads);
    result[t] = tile[t] + tile[t - 64];
  }
}

template <bool Correct>
__global__ void all_store_to_one_place() {
  __shared__ int place;
  place = Correct ? 7 : static_cast<int>(threadIdx.x);
  __syncthreads();
  result[threadIdx.x] = place;
}

__global__ void neighbouring_bytes() {
  __shared__ unsigned char tile[kThreads];
  const int t = threadIdx.x;
  tile[t] = static_cast<unsigned char>(t + 1);
  __syncthreads();
  bytes[(t * 33) % kThreads] = tile[kThreads - 1 - t];  // neighbours come from different warps
}

template <bool Correct>
__global__ void last_block_sums() {
  __shared__ bool last;
  const int t = threadIdx.x;
  if (t == 0) {
    data[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
    if (Correct) __threadfence();
    last = atomicInc(&counter, gridDim.x) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && t < static_cast<int>(gridDim.x)) {
    result[t] = data[t];
    if (t == 0) counter = 0;
  }
}

template <bool Correct>
__global__ void histogram() {
  __shared__ int bins[8];
  const int t = threadIdx.x;
  if (t < 8) bins[t] = 0;
  __syncthreads();
  atomicAdd(&bins[t % 8], 1);
  if (Correct) __syncthreads();
  if (t < 8) atomicAdd(&data[t], bins[t]);
}

template <bool Correct>
__global__ void blocks_count() {
  if (threadIdx.x != 0) return;
  if (Correct)
    atomicAdd(&total, 1);
  else
    total = total + 1;
}

template <bool Correct>
__global__ void spin_lock() {
  if (threadIdx.x % 32 != 0) return;
  while (atomicCAS(&lock_word, 0, 1) != 0) {
  }
  if (Correct) __threadfence();
  total = total + 1;
  if (Correct) __threadfence();
  atomicExch(&lock_word, 0);
}

// Each block waits for the one before it (blocks take tickets: they start in this order) and continues its
// sum.
template <bool Correct>
__global__ void look_back() {
  __shared__ unsigned mine;
  const int t = threadIdx.x;
  if (t == 0) mine = atomicAdd(&ticket, 1);
  __syncthreads();
  const unsigned block = mine;
  if (block > 0) {
    if (t == 0) {
      while (*reinterpret_cast<volatile unsigned*>(&status[block - 1]) == 0) {
      }
      __threadfence();
    }
    __syncthreads();
  }
  const int before = block == 0 ? 0 : data[(block - 1) * kThreads + t];
  data[block * kThreads + t] = before + t;
  if (Correct) __threadfence();
  __syncthreads();
  if (t == 0) *reinterpret_cast<volatile unsigned*>(&status[block]) = 1;
}

// The same chain with release and acquire.
__global__ void release_acquire_chain() {
  __shared__ unsigned mine;
  const int t = threadIdx.x;
  if (t == 0) mine = atomicAdd(&ticket, 1);
  __syncthreads();
  const unsigned block = mine;
  unsigned seen = block == 0;
  while (t == 0 && seen == 0)
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(&status[block - 1]) : "memory");
  __syncthreads();
  data[block * kThreads + t] = block == 0 ? t : data[(block - 1) * kThreads + (t ^ 5)];
  __syncthreads();
  if (t == 0) asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(&status[block]), "r"(1) : "memory");
}

template <bool Correct>
__global__ void grid_barrier() {
  const int t = threadIdx.x, block = static_cast<int>(blockIdx.x);
  int value = t;
  for (int step = 0; step < 3; ++step) {
    data[block * kThreads + t] = value + step;
    if (Correct) {
      cooperative_groups::this_grid().sync();
    } else {
      __syncthreads();
    }
    value += data[(block + 1) % kBlocks * kThreads + t];
    cooperative_groups::this_grid().sync();
  }
  result[block * kThreads + t] = value;
}

__global__ void hand_made_grid_barrier() {
  const int t = threadIdx.x, block = static_cast<int>(blockIdx.x);
  data[block * kThreads + t] = t;
  __syncthreads();
  if (t == 0) {
    __threadfence();
    atomicAdd(&arrived, 1);
    while (*reinterpret_cast<volatile unsigned*>(&arrived) < gridDim.x) {
    }
    __threadfence();
  }
  __syncthreads();
  result[block * kThreads + t] = data[(block + 1) % kBlocks * kThreads + t];
}

// A counter of all blocks needs atomics that reach beyond the block.
template <bool Correct>
__global__ void scope_of_atomics() {
  if (Correct)
    atomicAdd(&data[0], 1);
  else
    atomicAdd_block(&data[0], 1);
}

// A fence in the innermost loop, between writes that nobody else sees.
__global__ void fences_in_a_loop() {
  for (int i = 0; i < 64; ++i) {
    data[blockIdx.x * kThreads + threadIdx.x] += i;
    __threadfence();
  }
}

struct Scenario {
  const char* name;
  bool races;
  const void* kernel;
  int blocks, threads;
  bool cooperative;
};

#define TWINS(kernel, blocks, threads, cooperative)                                                        \
  {#kernel, false, reinterpret_cast<const void*>(&kernel<true>), blocks, threads, cooperative}, {          \
#kernel "_wrong", true, reinterpret_cast < const void*>(&kernel <false>), blocks, threads, cooperative \
  }

const Scenario kScenarios[] = {
    TWINS(read_of_neighbours, 1, kThreads, false),
    TWINS(overwriting_what_others_read, 1, kThreads, false),
    TWINS(lanes_of_a_warp, 1, 32, false),
    TWINS(named_barriers, 1, kThreads, false),
    TWINS(arrive_and_wait, 1, kThreads, false),
    TWINS(all_store_to_one_place, 1, kThreads, false),
    {"neighbouring_bytes", false, reinterpret_cast<const void*>(&neighbouring_bytes), 1, kThreads, false},
    TWINS(last_block_sums, kBlocks, kThreads, false),
    TWINS(scope_of_atomics, kBlocks, kThreads, false),
    {"fences_in_a_loop", false, reinterpret_cast<const void*>(&fences_in_a_loop), kBlocks, kThreads, false},
    TWINS(histogram, kBlocks, kThreads, false),
    TWINS(blocks_count, kBlocks, kThreads, false),
    TWINS(spin_lock, kBlocks, kThreads, false),
    TWINS(look_back, kBlocks, kThreads, false),
    {"release_acquire_chain", false, reinterpret_cast<const void*>(&release_acquire_chain), kBlocks, kThreads,
     false},
    TWINS(grid_barrier, kBlocks, kThreads, true),
    {"hand_made_grid_barrier", false, reinterpret_cast<const void*>(&hand_made_grid_barrier), kBlocks,
     kThreads, true},
};

int run(const Scenario& scenario) {
  const dim3 grid(scenario.blocks), block(scenario.threads);
  const cudaError_t launched =
      scenario.cooperative ? cudaLaunchCooperativeKernel(scenario.kernel, grid, block, nullptr, 0, nullptr)
                           : cudaLaunchKernel(scenario.kernel, grid, block, nullptr, 0, nullptr);
  const cudaError_t finished = launched == cudaSuccess ? cudaDeviceSynchronize() : launched;
  if (finished == cudaSuccess) return 0;
  std::fprintf(stderr, "%s: %s\n", scenario.name, cudaGetErrorString(finished));
  return 1;
}

}  // namespace

int main(int count, char** words) {
  for (const Scenario& scenario : kScenarios) {
    if (count == 2 && std::strcmp(words[1], "--list") == 0)
      std::printf("%s %s\n", scenario.name, scenario.races ? "race" : "clean");
    if (count == 2 && std::strcmp(words[1], scenario.name) == 0) return run(scenario);
  }
  return count == 2 && std::strcmp(words[1], "--list") == 0 ? 0 : 2;
}
