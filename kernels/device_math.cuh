#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/op.h"
#include "kernels/view.h"

/// What CUDA kernels share: element types, packed loads and stores, sums over warps and blocks in a fixed order.
namespace dino::cuda {

using bf16 = __nv_bfloat16;

/// Calls `f` with a value of the C++ type of `dtype`, f32 or bf16.
template <class F>
decltype(auto) with_dtype(Dtype dtype, F&& f) {
  if (dtype == Dtype::bf16) return f(bf16{});
  dino::check(dtype == Dtype::f32, "CUDA computes in f32 or bf16; got ", name_of(dtype));
  return f(float{});
}

inline __device__ float to_float(float x) { return x; }
inline __device__ float to_float(bf16 x) { return __bfloat162float(x); }

template <class T>
__device__ T from_float(float x) {
  if constexpr (sizeof(T) == 2)
    return __float2bfloat16_rn(x);
  else
    return x;
}

/// N consecutive elements in memory, moved as one access of N · sizeof(T) ≤ 16 bytes, to which they must be aligned.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16);
  T value[N];
};

/// N consecutive elements as floats.
template <int N, class T>
__device__ void load(const T* from, float (&to)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.value[i]);
}

template <int N, class T>
__device__ void store(T* to, const float (&from)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.value[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

/// Stores N elements or, with `add`, adds to what is there.
template <int N, class T>
__device__ void store(T* to, float (&from)[N], bool add) {
  if (add) {
    float before[N];
    load(to, before);
#pragma unroll
    for (int i = 0; i < N; ++i) from[i] += before[i];
  }
  store(to, from);
}

/// Whether rows of a view can be moved in packs of N elements.
template <class T, int N>
bool fits_packs(const View& view) {
  return !view.defined() || (view.cols() % N == 0 && view.row_stride % N == 0 &&
                             reinterpret_cast<uintptr_t>(view.data) % (N * sizeof(T)) == 0);
}

/// The sum over the lanes of a warp (all must take part), in every lane.
inline __device__ float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}

/// The largest over the lanes of a warp, in every lane. NaN is ignored unless all are NaN.
inline __device__ float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, offset));
  return x;
}

namespace detail {
template <int Threads, class Combine, class WarpCombine>
__device__ float block_reduce(float x, float neutral, const Combine& combine, const WarpCombine& over_warp) {
  static_assert(Threads % 32 == 0 && Threads <= 1024);
  __shared__ float partial[32];
  x = over_warp(x);
  if constexpr (Threads == 32) return x;
  __syncthreads();  // an earlier reduction may still be reading
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float total = neutral;
#pragma unroll
  for (int warp = 0; warp < Threads / 32; ++warp) total = combine(total, partial[warp]);
  return total;
}
}  // namespace detail

/// The sum over a one-dimensional block of `Threads` threads, in every thread and in a fixed order.
template <int Threads>
__device__ float block_sum(float x) {
  return detail::block_reduce<Threads>(x, 0.0f, [](float a, float b) { return a + b; }, [](float a) { return warp_sum(a); });
}

template <int Threads>
__device__ float block_max(float x) {
  return detail::block_reduce<Threads>(x, -INFINITY, [](float a, float b) { return fmaxf(a, b); }, [](float a) { return warp_max(a); });
}

}  // namespace dino::cuda
