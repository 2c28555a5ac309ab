// clang-format off: comments mark the lines that findings must name
#pragma once

#include <cassert>
#include <cstring>

#include "mutant.cuh"

// Mistakes of the code that calls kernels.

__global__ void add_one(int* out, const int* in, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = in[i] + 1;  // found: use_after_free host_pointer
}

inline bool counts_up(const int* numbers, int n, int first) {
  for (int i = 0; i < n; ++i)
    if (numbers[i] != first + i) return false;
  return true;
}

template <Bug bug>
bool plain_launch() {
  constexpr int kN = 300;
  const std::vector<int> numbers = ramp<int>(kN);
  Device<int> out(kN);
  int* in = nullptr;
  ok(cudaMalloc(&in, kN * sizeof(int)));
  ok(cudaMemcpy(in, numbers.data(), kN * sizeof(int) + (bug == Bug::long_copy ? 4 : 0), cudaMemcpyHostToDevice));
  if (bug == Bug::use_after_free) ok(cudaFree(in));
  const int threads = bug == Bug::too_many_threads ? 2048 : 128;
  add_one<<<3, threads>>>(out.data(), bug == Bug::host_pointer ? numbers.data() : in, kN);
  finish();
  const auto got = out.download();
  if (bug != Bug::use_after_free) ok(cudaFree(in));
  return counts_up(got.data(), kN, 1);
}

__global__ void reverse_much(int* out, const int* in, int n) {
  extern __shared__ int numbers[];
  for (int i = static_cast<int>(threadIdx.x); i < n; i += 128) numbers[i] = in[i];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += 128) out[i] = numbers[n - 1 - i];
}

template <Bug bug>
bool large_shared() {
  constexpr int kN = 16384;
  Device<int> in(ramp<int>(kN)), out(kN);
  if (bug != Bug::no_shared_attribute) ok(cudaFuncSetAttribute(reverse_much, cudaFuncAttributeMaxDynamicSharedMemorySize, kN * 4));
  reverse_much<<<1, 128, kN * 4>>>(out.data(), in.data(), kN);
  finish();
  const auto got = out.download();
  for (int i = 0; i < kN; ++i)
    if (got[i] != kN - 1 - i) return false;
  return true;
}

// A producer stream, a consumer stream, and the host at the end.
template <Bug bug>
bool two_streams() {
  constexpr int kN = 300;
  Device<int> in(ramp<int>(kN)), middle(std::vector<int>(kN, 0)), out(std::vector<int>(kN, 0));
  cudaStream_t first, second;
  cudaEvent_t produced;
  int* host = nullptr;
  ok(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
  ok(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
  ok(cudaEventCreateWithFlags(&produced, cudaEventDisableTiming));
  ok(cudaMallocHost(&host, kN * sizeof(int)));
  std::memset(host, 0, kN * sizeof(int));
  add_one<<<3, 128, 0, first>>>(middle.data(), in.data(), kN);
  ok(cudaEventRecord(produced, first));
  if (bug != Bug::no_event) ok(cudaStreamWaitEvent(second, produced, 0));
  add_one<<<3, 128, 0, second>>>(out.data(), middle.data(), kN);
  ok(cudaMemcpyAsync(host, out.data(), kN * sizeof(int), cudaMemcpyDeviceToHost, second));
  if (bug != Bug::no_stream_sync) ok(cudaStreamSynchronize(second));
  const bool right = counts_up(host, kN, 2);
  finish();
  ok(cudaFreeHost(host));
  ok(cudaEventDestroy(produced));
  ok(cudaStreamDestroy(first));
  ok(cudaStreamDestroy(second));
  return right;
}

// A pinned buffer that is filled again before the copy out of it is done.
template <Bug bug>
bool refill() {
  constexpr int kN = 256;
  Device<int> a(kN), b(kN);
  int* host = nullptr;
  cudaStream_t stream;
  ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  ok(cudaMallocHost(&host, kN * sizeof(int)));
  for (int i = 0; i < kN; ++i) host[i] = i;
  ok(cudaMemcpyAsync(a.data(), host, kN * sizeof(int), cudaMemcpyHostToDevice, stream));
  if (bug != Bug::pinned_reuse) ok(cudaStreamSynchronize(stream));
  for (int i = 0; i < kN; ++i) host[i] = 1000 + i;
  ok(cudaMemcpyAsync(b.data(), host, kN * sizeof(int), cudaMemcpyHostToDevice, stream));
  finish();
  const auto first = a.download(), second = b.download();
  ok(cudaFreeHost(host));
  ok(cudaStreamDestroy(stream));
  return counts_up(first.data(), kN, 0) && counts_up(second.data(), kN, 1000);
}

template <Bug bug>
__global__ void checked_copy(int* out, const int* in, int most) {
  assert(in[threadIdx.x] < most);  // found: failed_assert
  out[threadIdx.x] = in[threadIdx.x];
}

template <Bug bug>
bool assertion() {
  Device<int> in(ramp<int>(64)), out(64);
  checked_copy<bug><<<1, 64>>>(out.data(), in.data(), bug == Bug::failed_assert ? 50 : 64);
  finish();
  return counts_up(out.download().data(), 64, 0);
}
