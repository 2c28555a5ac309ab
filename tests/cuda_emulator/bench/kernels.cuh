#pragma once

#include <cuda_bf16.h>

#include <cstdint>

// Kernels whose speed on the emulator is measured: what arithmetic, streaming, shared memory, scattered reads
// and tensor cores cost.
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
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x))
    c[i] = a[i] + b[i];
}

__global__ void vector_add4(const float4* a, const float4* b, float4* c, int n) {
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x)) {
    const float4 x = a[i], y = b[i];
    c[i] = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
  }
}

__global__ void gather(const float* a, const int* index, float* c, int n) {
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x))
    c[i] = a[index[i]];
}

__global__ void block_reduce(const float* a, float* out, int n) {
  __shared__ float partial[32];
  float sum = 0;
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x))
    sum += a[i];
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
  const int row = static_cast<int>(blockIdx.y * 32 + threadIdx.y),
            column = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
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
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
          "{%0,%1,%2,%3};"
          : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  float sum = 0;
  for (int j = 0; j < 8; ++j)
    for (int i = 0; i < 4; ++i) sum += d[j][i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

__device__ inline void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global));
}

__device__ inline void load_matrices(std::uint32_t (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row)));
}

// C = A·Bᵀ in bf16 as attention and matmul kernels do it: two stages of cp.async, ldmatrix, mma. n a multiple
// of 64; blocks of 128 threads, 64×64 of C each.
__global__ void tensor_matmul(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n) {
  constexpr int kTile = 64, kDepth = 32, kRow = kDepth + 8;  // padded rows: no bank conflicts
  __shared__ __align__(16) __nv_bfloat16 tile_a[2][kTile][kRow], tile_b[2][kTile][kRow];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int first_row = static_cast<int>(blockIdx.y) * kTile,
            first_column = static_cast<int>(blockIdx.x) * kTile;
  const auto load_stage = [&](int stage, int k) {
    for (int i = thread; i < kTile * kDepth / 8; i += 128) {
      const int row = i / (kDepth / 8), column = i % (kDepth / 8) * 8;
      copy_async(&tile_a[stage][row][column], a + (first_row + row) * n + k + column);
      copy_async(&tile_b[stage][row][column], b + (first_column + row) * n + k + column);
    }
    asm volatile("cp.async.commit_group;");
  };
  float sum[8][4] = {};
  load_stage(0, 0);
  for (int k = 0, stage = 0; k < n; k += kDepth, stage ^= 1) {
    if (k + kDepth < n) {
      load_stage(stage ^ 1, k + kDepth);
      asm volatile("cp.async.wait_group 1;");
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
    for (int step = 0; step < kDepth; step += 16) {
      std::uint32_t fa[4], fb[4];
      load_matrices(fa, &tile_a[stage][warp * 16 + lane % 16][step + lane / 16 * 8]);
      for (int j = 0; j < 8; j += 2) {
        load_matrices(fb, &tile_b[stage][j * 8 + lane % 8 + lane / 16 * 8][step + lane / 8 % 2 * 8]);
        for (int h = 0; h < 2; ++h)
          asm volatile(
              "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
              "{%0,%1,%2,%3};"
              : "+f"(sum[j + h][0]), "+f"(sum[j + h][1]), "+f"(sum[j + h][2]), "+f"(sum[j + h][3])
              : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[2 * h]), "r"(fb[2 * h + 1]));
      }
    }
    __syncthreads();
  }
  for (int j = 0; j < 8; ++j) {
    const int row = first_row + warp * 16 + lane / 4, column = first_column + j * 8 + lane % 4 * 2;
    *reinterpret_cast<float2*>(&c[row * n + column]) = make_float2(sum[j][0], sum[j][1]);
    *reinterpret_cast<float2*>(&c[(row + 8) * n + column]) = make_float2(sum[j][2], sum[j][3]);
  }
}

}  // namespace bench
