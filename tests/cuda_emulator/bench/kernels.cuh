#pragma once

#include <cstdint>

// Kernels whose speed on the emulator is measured: what arithmetic, streaming, shared memory, scattered reads and tensor cores cost.
namespace bench {

__global__ void fma_chain(float* out, int steps) {
  float x = static_cast<float>(threadIdx.x), y = 0.5f;
  for (int i = 0; i < steps; ++i) {
#pragma unroll
    for (int j = 0; j < 32; ++j) x = fmaf(x, y, 0.25f);
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = x;
}

__global__ void integer_mix(std::uint32_t* out, int steps) {
  std::uint32_t x = threadIdx.x + 1;
  for (int i = 0; i < steps; ++i) {
#pragma unroll
    for (int j = 0; j < 16; ++j) x = (x * 1664525u + 1013904223u) ^ (x >> 7);
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = x;
}

__global__ void exponentials(float* out, int steps) {
  float x = static_cast<float>(threadIdx.x) * 1e-3f;
  for (int i = 0; i < steps; ++i) {
#pragma unroll
    for (int j = 0; j < 16; ++j) x = exp2f(-x);
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = x;
}

__global__ void vector_add(const float* a, const float* b, float* c, int n) {
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += static_cast<int>(gridDim.x * blockDim.x)) c[i] = a[i] + b[i];
}

__global__ void vector_add4(const float4* a, const float4* b, float4* c, int n) {
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += static_cast<int>(gridDim.x * blockDim.x)) {
    const float4 x = a[i], y = b[i];
    c[i] = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
  }
}

__global__ void gather(const float* a, const int* index, float* c, int n) {
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += static_cast<int>(gridDim.x * blockDim.x)) c[i] = a[index[i]];
}

__global__ void block_reduce(const float* a, float* out, int n) {
  __shared__ float partial[32];
  float sum = 0;
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += static_cast<int>(gridDim.x * blockDim.x)) sum += a[i];
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
  }
}

// C = A·B, n a multiple of 32; blocks of 32×32 threads.
__global__ void tiled_matmul(const float* a, const float* b, float* c, int n) {
  __shared__ float tile_a[32][32], tile_b[32][32];
  const int row = static_cast<int>(blockIdx.y * 32 + threadIdx.y), column = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
  float sum = 0;
  for (int k = 0; k < n; k += 32) {
    tile_a[threadIdx.y][threadIdx.x] = a[row * n + k + static_cast<int>(threadIdx.x)];
    tile_b[threadIdx.y][threadIdx.x] = b[(k + static_cast<int>(threadIdx.y)) * n + column];
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 32; ++j) sum = fmaf(tile_a[threadIdx.y][j], tile_b[j][threadIdx.x], sum);
    __syncthreads();
  }
  c[row * n + column] = sum;
}

// Tensor cores: per warp `steps` × 8 products of 16×8×16 in bf16.
__global__ void tensor_products(float* out, int steps) {
  std::uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = 0x3f803f80u + threadIdx.x;
  for (int i = 0; i < 2; ++i) b[i] = 0x3c003c00u + threadIdx.x;
  float d[8][4] = {};
  for (int s = 0; s < steps; ++s) {
#pragma unroll
    for (int j = 0; j < 8; ++j)
      asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                   : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  float sum = 0;
  for (int j = 0; j < 8; ++j)
    for (int i = 0; i < 4; ++i) sum += d[j][i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

}  // namespace bench
