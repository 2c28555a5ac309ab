// clang-format off: comments mark the lines that findings must name
#pragma once

#include "mutant.cuh"

// ---- guards ----

template <Bug bug>
__global__ void fill_rows(float* out, int rows, int dim) {
  const int row = static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);
  if (bug == Bug::row_guard_write ? row > rows : row >= rows) return;
  for (int c = static_cast<int>(threadIdx.x); c < dim; c += 32)
    out[row * dim + c] = static_cast<float>(row + c);  // found: row_guard_write
}

template <Bug bug>
bool row_fill() {
  constexpr int kRows = 10, kDim = 40;
  Device<float> out(kRows * kDim);
  fill_rows<bug><<<3, dim3(32, 4)>>>(out.data(), kRows, kDim);
  finish();
  const auto got = out.download();
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kDim; ++c)
      if (got[r * kDim + c] != static_cast<float>(r + c)) return false;
  return true;
}

template <Bug bug>
__global__ void sum_rows(float* out, const float* in, int rows, int dim) {
  const int row = static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);
  float sum = 0;
  if (bug == Bug::row_guard_read ? row <= rows : row < rows)
    for (int c = static_cast<int>(threadIdx.x); c < dim; c += 32)
      sum += in[row * dim + c];  // found: row_guard_read
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x == 0 && row < rows) out[row] = sum;
}

template <Bug bug>
bool row_sums() {
  constexpr int kRows = 10, kDim = 40;
  Device<float> in(ramp<float>(kRows * kDim)), out(kRows);
  sum_rows<bug><<<3, dim3(32, 4)>>>(out.data(), in.data(), kRows, kDim);
  finish();
  const auto got = out.download();
  for (int r = 0; r < kRows; ++r)
    if (got[r] != static_cast<float>(r * kDim * kDim + kDim * (kDim - 1) / 2)) return false;
  return true;
}

template <Bug bug>
__global__ void double_vectors(float* out, const float* in, int n) {
  const int i = 4 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i + (bug == Bug::vector_guard ? 0 : 3) < n) {
    float4 v = *reinterpret_cast<const float4*>(in + i);  // found: vector_guard
    v = {2 * v.x, 2 * v.y, 2 * v.z, 2 * v.w};
    *reinterpret_cast<float4*>(out + i) = v;
  } else {
    for (int j = i; j < n; ++j) out[j] = 2 * in[j];
  }
}

template <Bug bug>
bool vectors() {
  constexpr int kN = 1022;
  Device<float> in(ramp<float>(kN)), out(kN);
  double_vectors<bug><<<4, 64>>>(out.data(), in.data(), kN);
  finish();
  const auto got = out.download();
  for (int i = 0; i < kN; ++i)
    if (got[i] != static_cast<float>(2 * i)) return false;
  return true;
}

// Sums four neighbours that begin at any place.
template <Bug bug>
__global__ void sum_quads(float* out, const float* in, int first) {
  const int i = static_cast<int>(threadIdx.x);
  const float* from = in + first + 4 * i;
  if (bug == Bug::misaligned_vector) {
    const float4 v = *reinterpret_cast<const float4*>(from);  // found: misaligned_vector
    out[i] = v.x + v.y + v.z + v.w;
  } else {
    out[i] = from[0] + from[1] + from[2] + from[3];
  }
}

template <Bug bug>
bool quads() {
  Device<float> in(ramp<float>(260)), out(64);
  sum_quads<bug><<<1, 64>>>(out.data(), in.data(), 1);
  finish();
  const auto got = out.download();
  for (int i = 0; i < 64; ++i)
    if (got[i] != static_cast<float>(16 * i + 10)) return false;
  return true;
}

// ---- memory that nobody has written ----

template <Bug bug>
__global__ void add_partials(float* out, const float* partials, int n) {
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += 32) {
    sum += partials[i];  // found: uninitialized_global
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x == 0) *out = sum;
}

template <Bug bug>
bool partials() {
  constexpr int kN = 100;
  Device<float> in(kN), out(1);
  in.upload(ramp<float>(bug == Bug::uninitialized_global ? kN - 3 : kN));
  add_partials<bug><<<1, 32>>>(out.data(), in.data(), kN);
  finish();
  return out.download()[0] == kN * (kN - 1) / 2;
}

template <Bug bug>
__global__ void accumulate(float* total, const float* in, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  if (bug == Bug::plain_add) *total = *total + in[i];  // found: plain_add
  else atomicAdd(total, in[i]);  // found: uninitialized_accumulator
}

template <Bug bug>
bool accumulation() {
  constexpr int kN = 200;
  Device<float> in(ramp<float>(kN, 16)), total(1);
  if (bug != Bug::uninitialized_accumulator) ok(cudaMemset(total.data(), 0, sizeof(float)));
  accumulate<bug><<<4, 64>>>(total.data(), in.data(), kN);
  finish();
  float expected = 0;
  for (int i = 0; i < kN; ++i) expected += static_cast<float>(i % 16);
  return total.download()[0] == expected;
}

template <Bug bug>
__global__ void smooth(float* out, const float* in, int n) {
  __shared__ float tile[66];
  const int t = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x * 64) + t;
  tile[t + 1] = i < n ? in[i] : 0;
  if (t == 0) tile[0] = i > 0 ? in[i - 1] : 0;
  if (bug != Bug::uninitialized_shared && t == 63) tile[65] = i + 1 < n ? in[i + 1] : 0;
  __syncthreads();
  const float left = tile[t], middle = tile[t + 1];
  const float right = tile[t + 2];  // found: uninitialized_shared
  if (i < n) out[i] = left + middle + right;
}

template <Bug bug>
bool smoothing() {
  constexpr int kN = 150;
  Device<float> in(ramp<float>(kN)), out(kN);
  smooth<bug><<<3, 64>>>(out.data(), in.data(), kN);
  finish();
  const auto got = out.download();
  for (int i = 0; i < kN; ++i)
    if (got[i] != static_cast<float>((i > 0 ? i - 1 : 0) + i + (i + 1 < kN ? i + 1 : 0))) return false;
  return true;
}

// The largest of the last `window` numbers, kept in a ring of registers that the compiler has to put into local memory.
template <Bug bug>
__global__ void ring_maximum(int* out, const int* in, int n, int window) {
  int ring[8];
  const int slots = bug == Bug::uninitialized_local ? window - 1 : window;
  const int reach = bug == Bug::local_out_of_bounds ? 4096 : 0;
  for (int i = 0; i < slots; ++i) ring[(i * 3) & 7] = -1;
  int best = 0;
  for (int i = 0; i < n; ++i) {
    ring[(i % slots * 3) & 7] = in[i] + static_cast<int>(threadIdx.x);
    for (int j = 0; j < window; ++j) {
      const int kept = ring[((j * 3) & 7) + reach * (i == n - 1)];  // found: uninitialized_local local_out_of_bounds
      best = max(best, kept);
    }
  }
  out[threadIdx.x] = best;
}

template <Bug bug>
bool ring() {
  Device<int> in(std::vector<int>{3, 1, 4, 1, 5, 9, 2, 6, 5, 3}), out(32);
  ring_maximum<bug><<<1, 32>>>(out.data(), in.data(), 10, 5);
  finish();
  const auto got = out.download();
  for (int t = 0; t < 32; ++t)
    if (got[t] != 9 + t) return false;
  return true;
}

// ---- sizes ----

template <Bug bug>
__global__ void reverse_block(int* out, const int* in) {
  extern __shared__ int numbers[];
  numbers[threadIdx.x] = in[threadIdx.x];  // found: small_dynamic_shared
  __syncthreads();
  out[threadIdx.x] = numbers[blockDim.x - 1 - threadIdx.x];
}

template <Bug bug>
bool reversal() {
  constexpr int kN = 256;
  Device<int> in(ramp<int>(kN)), out(kN);
  reverse_block<bug><<<1, kN, kN * (bug == Bug::small_dynamic_shared ? 2 : 4)>>>(out.data(), in.data());
  finish();
  const auto got = out.download();
  for (int i = 0; i < kN; ++i)
    if (got[i] != kN - 1 - i) return false;
  return true;
}

template <Bug bug>
__device__ __noinline__ int depth_of(const int* parent, int node) {
  volatile int trail[4] = {node, node + 1, node + 2, node + 3};
  if (bug != Bug::endless_recursion && parent[node] < 0) return trail[node & 3] >= 0 ? 0 : -1;
  return depth_of<bug>(parent, max(parent[node], 0)) + (trail[node & 3] >= 0 ? 1 : 0);  // found: endless_recursion
}

template <Bug bug>
__global__ void depths(int* out, const int* parent) {
  out[threadIdx.x] = depth_of<bug>(parent, static_cast<int>(threadIdx.x));
}

template <Bug bug>
bool tree() {
  const std::vector<int> parent{-1, 0, 1, 0, 2, 4, 5, 1};
  Device<int> device_parent(parent), out(parent.size());
  depths<bug><<<1, 8>>>(out.data(), device_parent.data());
  finish();
  return out.download() == std::vector<int>{0, 1, 2, 1, 3, 4, 5, 2};
}

__constant__ int kTable[4] = {1, 2, 3, 4};

template <Bug bug>
__global__ void read_table(int* out) {
  if (bug == Bug::constant_write) {
    int* writable = const_cast<int*>(kTable);
    asm volatile("st.u32 [%0], %1;" ::"l"(writable + threadIdx.x), "r"(7) : "memory");  // found: constant_write
  }
  out[threadIdx.x] = kTable[threadIdx.x];
}

template <Bug bug>
bool table() {
  Device<int> out(4);
  read_table<bug><<<1, 4>>>(out.data());
  finish();
  return out.download() == std::vector<int>{1, 2, 3, 4};
}
