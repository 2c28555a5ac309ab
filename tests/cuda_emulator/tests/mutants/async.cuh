// clang-format off: comments mark the lines that findings must name
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "mutant.cuh"

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer)); }

// Rows of 512 floats go through a ring of three stages; each thread reads what others have fetched. The last row is short: what is missing counts as zero.
template <Bug bug>
__global__ void reverse_rows(float* out, const float* in, int rows, int last_length) {
  constexpr int kStages = 3, kLength = 512;
  __shared__ alignas(16) float stages[kStages][kLength];
  const int t = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int row) {
    if (row < rows) {
      const int length = row == rows - 1 ? last_length : kLength;
      const int bytes = bug == Bug::zero_fill_guard ? 16 : max(0, min(16, 4 * (length - 4 * t)));
      const float* from = in + row * kLength + (bytes > 0 ? 4 * t : 0) + (bug == Bug::misaligned_async_copy && row == 1 ? 1 : 0);
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(&stages[row % kStages][4 * t])), "l"(from), "r"(bytes) : "memory");  // found: zero_fill_guard misaligned_async_copy
    }
    if (bug != Bug::no_commit) asm volatile("cp.async.commit_group;" ::: "memory");
  };
  fetch(0);
  fetch(1);
  for (int row = 0; row < rows; ++row) {
    if (bug == Bug::wait_for_too_few) asm volatile("cp.async.wait_group 2;" ::: "memory");
    else if (bug != Bug::no_wait) asm volatile("cp.async.wait_group 1;" ::: "memory");
    if (bug != Bug::no_sync_after_wait) __syncthreads();
    fetch(row + 2);
    for (int i = 0; i < 4; ++i) {
      const float value = stages[row % kStages][kLength - 1 - (4 * t + i)];  // found: no_commit wait_for_too_few no_wait no_sync_after_wait
      out[row * kLength + 4 * t + i] = value;
    }
  }
}

template <Bug bug>
bool pipeline() {
  constexpr int kRows = 6, kLast = 290, kLength = 512;
  Device<float> in(ramp<float>((kRows - 1) * kLength + kLast)), out(kRows * kLength);
  reverse_rows<bug><<<1, 128>>>(out.data(), in.data(), kRows, kLast);
  finish();
  const auto got = out.download();
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kLength; ++i) {
      const int from = kLength - 1 - i;
      const float expected = r == kRows - 1 && from >= kLast ? 0 : static_cast<float>(r * kLength + from);
      if (!(got[r * kLength + i] == expected)) return false;
    }
  return true;
}

// One stage, refilled in every step. The mutant refills it while others still read.
template <Bug bug>
__global__ void reverse_through_one_stage(float* out, const float* in, int rows) {
  __shared__ alignas(16) float stage[512];
  const int t = static_cast<int>(threadIdx.x);
  for (int row = 0; row < rows; ++row) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(shared_address(&stage[4 * t])), "l"(in + row * 512 + 4 * t) : "memory");  // found: no_sync_before_refill
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    for (int i = 0; i < 4; ++i) out[row * 512 + 4 * t + i] = stage[511 - 4 * t - i];
    if (bug != Bug::no_sync_before_refill) __syncthreads();
  }
}

template <Bug bug>
bool one_stage() {
  constexpr int kRows = 4;
  Device<float> in(ramp<float>(kRows * 512)), out(kRows * 512);
  reverse_through_one_stage<bug><<<1, 128>>>(out.data(), in.data(), kRows);
  finish();
  const auto got = out.download();
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < 512; ++i)
      if (!(got[r * 512 + i] == static_cast<float>(r * 512 + 511 - i))) return false;
  return true;
}

// c[16, 8] = a[16, 16] b[16, 8], all row by row; the product wants b column by column, which is what .trans is for.
template <Bug bug>
__global__ void multiply(float* c, const __nv_bfloat16* a, const __nv_bfloat16* b) {
  __shared__ alignas(16) __nv_bfloat16 tile_a[16 * 16], tile_b[16 * 8];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) tile_a[i] = a[i];
  for (int i = lane; i < 128; i += 32) tile_b[i] = b[i];
  __syncwarp();
  std::uint32_t ra[4], rb[2];
  const std::uint32_t row_a = shared_address(&tile_a[(lane % 16) * 16 + lane / 16 * 8]) + (bug == Bug::ldmatrix_misaligned ? 8u : 0u);
  const std::uint32_t row_b = shared_address(&tile_b[(lane % 16) * 8]);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3]) : "r"(row_a) : "memory");  // found: ldmatrix_misaligned
  if (bug == Bug::ldmatrix_without_trans)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(rb[0]), "=r"(rb[1]) : "r"(row_b) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(rb[0]), "=r"(rb[1]) : "r"(row_b) : "memory");
  float sum[4] = {0, 0, 0, 0};
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

template <Bug bug>
bool product() {
  std::vector<__nv_bfloat16> a(256), b(128);
  for (int i = 0; i < 256; ++i) a[i] = __float2bfloat16(static_cast<float>(i * 7 % 13 - 6));
  for (int i = 0; i < 128; ++i) b[i] = __float2bfloat16(static_cast<float>(i * 5 % 11 - 5));
  Device<__nv_bfloat16> device_a(a), device_b(b);
  Device<float> c(128);
  multiply<bug><<<1, 32>>>(c.data(), device_a.data(), device_b.data());
  finish();
  const auto got = c.download();
  for (int r = 0; r < 16; ++r)
    for (int n = 0; n < 8; ++n) {
      float expected = 0;
      for (int k = 0; k < 16; ++k) expected += __bfloat162float(a[r * 16 + k]) * __bfloat162float(b[k * 8 + n]);
      if (!(got[r * 8 + n] == expected)) return false;
    }
  return true;
}
