// clang-format off: comments mark the lines that findings must name
#pragma once

#include <cstdint>

#include "mutant.cuh"

// Sums of rows, one after the other through the same shared array.
template <Bug bug>
__global__ void sum_in_block(float* out, const float* in, int rows) {
  __shared__ float part[128];
  const int t = static_cast<int>(threadIdx.x);
  for (int row = 0; row < rows; ++row) {
    part[t] = in[row * 128 + t];  // found: no_sync_before_reuse
    if (bug != Bug::no_sync_after_load) __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
      if (t < half) part[t] += part[t + half];  // found: no_sync_after_load no_sync_in_reduction
      if (bug != Bug::no_sync_in_reduction) __syncthreads();
    }
    if (t == 127) out[row] = part[0];  // found: no_sync_in_reduction
    if (bug != Bug::no_sync_before_reuse) __syncthreads();
  }
}

template <Bug bug>
bool block_sums() {
  constexpr int kRows = 3;
  Device<float> in(ramp<float>(kRows * 128)), out(kRows);
  sum_in_block<bug><<<1, 128>>>(out.data(), in.data(), kRows);
  finish();
  const auto got = out.download();
  for (int r = 0; r < kRows; ++r)
    if (got[r] != static_cast<float>(r * 128 * 128 + 128 * 127 / 2)) return false;
  return true;
}

// Sums of pairs of lanes, of those rows that are wanted.
template <Bug bug>
__global__ void sum_pairs(int* out, const int* in, int wanted) {
  const int t = static_cast<int>(threadIdx.x);
  int value = in[t];
  if (bug == Bug::shuffle_in_branch) {
    if (t < wanted) value += __shfl_xor_sync(~0u, value, 1);  // found: shuffle_in_branch
  } else if (bug == Bug::wrong_member_mask) {
    value += __shfl_xor_sync(0x0000ffffu, value, 1);  // found: wrong_member_mask
  } else {
    value += __shfl_xor_sync(~0u, value, 1);
  }
  __syncwarp();  // lanes that exit are not waited for: here all are alive
  out[t] = t < wanted ? value : 0;
}

template <Bug bug>
bool pair_sums() {
  Device<int> in(ramp<int>(32)), out(32);
  sum_pairs<bug><<<1, 32>>>(out.data(), in.data(), 20);
  finish();
  const auto got = out.download();
  for (int t = 0; t < 32; ++t)
    if (got[t] != (t < 20 ? t + (t ^ 1) : 0)) return false;
  return true;
}

// Only some threads have work, and those meet; good kernels have all of them meet.
template <Bug bug>
__global__ void shift_some(int* out, const int* in, int n) {
  __shared__ int tile[96];
  const int t = static_cast<int>(threadIdx.x);
  if (bug == Bug::sync_in_branch) {
    if (t < n) {
      tile[t] = in[t];
      __syncthreads();  // found: sync_in_branch
      out[t] = tile[(t + 1) % n];
    } else {
      __syncthreads();  // found: sync_in_branch
    }
    return;
  }
  if (bug == Bug::early_exit_at_barrier && t >= 64) {
    // The third warp waits at another barrier, for warps that never come.
    asm volatile("bar.sync 1;" ::: "memory");  // found: early_exit_at_barrier
  }
  if (t < n) tile[t] = in[t];
  __syncthreads();  // found: early_exit_at_barrier
  if (t < n) out[t] = tile[(t + 1) % n];
}

template <Bug bug>
bool shifting() {
  constexpr int kN = 48;
  Device<int> in(ramp<int>(kN)), out(kN);
  shift_some<bug><<<1, 96>>>(out.data(), in.data(), kN);
  finish();
  const auto got = out.download();
  for (int t = 0; t < kN; ++t)
    if (got[t] != (t + 1) % kN) return false;
  return true;
}

// Warps 0 and 1 exchange numbers and leave the others alone.
template <Bug bug>
__global__ void exchange_pair(int* out, const int* in) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  if (t >= 64) return;
  tile[t] = in[t];
  asm volatile("bar.sync 2, %0;" ::"r"(bug == Bug::large_barrier_count ? 128 : 64) : "memory");  // found: large_barrier_count
  out[t] = tile[t ^ 32];
}

template <Bug bug>
bool pair_exchange() {
  Device<int> in(ramp<int>(64)), out(64);
  exchange_pair<bug><<<1, 96>>>(out.data(), in.data());
  finish();
  const auto got = out.download();
  for (int t = 0; t < 64; ++t)
    if (got[t] != (t ^ 32)) return false;
  return true;
}

// The block that comes last adds up what all have left.
template <Bug bug>
__global__ void sum_of_blocks(int* total, int* partial, unsigned* done, const int* in) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    int sum = 0;
    for (int i = 0; i < 16; ++i) sum += in[blockIdx.x * 16 + i];
    partial[blockIdx.x] = sum;
    if (bug != Bug::no_threadfence) __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
    if (last && bug != Bug::no_threadfence) __threadfence();
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  int sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];  // found: no_threadfence
  *total = sum;
}

template <Bug bug>
bool last_block() {
  constexpr int kBlocks = 7;
  Device<int> in(ramp<int>(kBlocks * 16)), partial(kBlocks), total(1);
  Device<unsigned> done(std::vector<unsigned>{0});
  sum_of_blocks<bug><<<kBlocks, 32>>>(total.data(), partial.data(), done.data(), in.data());
  finish();
  return total.download()[0] == kBlocks * 16 * (kBlocks * 16 - 1) / 2;
}

// Each lane hands a number to its neighbour through shared memory.
template <Bug bug>
__global__ void rotate_lanes(int* out, const int* in) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x), lane = t & 31, first = t - lane;
  tile[t] = in[t];
  if (bug != Bug::no_syncwarp) __syncwarp();
  out[t] = tile[first + (lane + 1) % 32];  // found: no_syncwarp
}

template <Bug bug>
bool lane_rotation() {
  Device<int> in(ramp<int>(64)), out(64);
  rotate_lanes<bug><<<1, 64>>>(out.data(), in.data());
  finish();
  const auto got = out.download();
  for (int t = 0; t < 64; ++t)
    if (got[t] != t / 32 * 32 + (t + 1) % 32) return false;
  return true;
}

// All write, and read once the mbarrier's phase is complete. In the mutant some count twice, and the phase ends without the last warp.
template <Bug bug>
__global__ void through_mbarrier(int* out, const int* in) {
  __shared__ int tile[128];
  __shared__ std::uint64_t barrier;
  const int t = static_cast<int>(threadIdx.x);
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(&barrier));
  if (t == 0) asm volatile("mbarrier.init.shared.b64 [%0], 128;" ::"r"(address) : "memory");
  __syncthreads();
  if (bug == Bug::double_arrival && t % 32 < 16) asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(address) : "memory");
  tile[t] = in[t];
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(address) : "memory");
  std::uint32_t complete = 0;
  while (complete == 0)
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }" : "=r"(complete) : "r"(address) : "memory");
  int sum = 0;
  for (int w = 0; w < 4; ++w) sum += tile[32 * w + t % 32];  // found: double_arrival
  out[t] = sum;
}

template <Bug bug>
bool mbarrier_phase() {
  Device<int> in(ramp<int>(128)), out(128);
  through_mbarrier<bug><<<1, 128>>>(out.data(), in.data());
  finish();
  const auto got = out.download();
  for (int t = 0; t < 128; ++t)
    if (got[t] != 192 + 4 * (t % 32)) return false;
  return true;
}
