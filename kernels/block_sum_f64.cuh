#pragma once

#include <cuda_runtime.h>

namespace dino::cuda {

/// The sum over a one-dimensional block of `Threads` threads in f64, in every thread and in a fixed order: for sums of so
/// many f32 numbers that f32 would lose some.
template <int Threads>
__device__ double block_sum_f64(double x) {
  static_assert(Threads % 32 == 0 && Threads <= 1024);
  __shared__ double partial[Threads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  double total = 0;
#pragma unroll
  for (int warp = 0; warp < Threads / 32; ++warp) total += partial[warp];
  return total;
}

}  // namespace dino::cuda
