// A bf16 GEMM as our kernels write it: cp.async in two stages into swizzled shared memory, ldmatrix (A) and
// ldmatrix.trans (B, stored [k, n]), mma.sync m16n8k16. C [m, n] f32 = A [m, k] · B [k, n], against sums of
// doubles on the host.
#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

constexpr int kTileM = 64, kTileN = 64, kTileK = 32, kWarps = 4;

__device__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

__device__ void copy_async(std::uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(inside ? 16 : 0));
}

/// Eight bf16 each: chunk c of row r lies at c ^ (r & mask), so that eight rows of one chunk are in eight
/// different groups of banks.
__device__ int swizzled(int row, int chunk, int chunks) {
  return row * chunks + (chunk ^ (chunks == 8 ? row & 7 : row >> 1 & 3));
}

struct Stage {
  __nv_bfloat16 a[kTileM * kTileK], b[kTileK * kTileN];
};

__device__ void load_stage(Stage& stage, const __nv_bfloat16* a, const __nv_bfloat16* b, int m0, int n0,
                           int k0, int m, int n, int k) {
  for (int i = threadIdx.x; i < kTileM * kTileK / 8; i += blockDim.x) {
    const int row = i / (kTileK / 8), chunk = i % (kTileK / 8);
    const bool inside = m0 + row < m && k0 + chunk * 8 < k;
    copy_async(shared_address(stage.a + swizzled(row, chunk, kTileK / 8) * 8),
               inside ? a + static_cast<std::size_t>(m0 + row) * k + k0 + chunk * 8 : a, inside);
  }
  for (int i = threadIdx.x; i < kTileK * kTileN / 8; i += blockDim.x) {
    const int row = i / (kTileN / 8), chunk = i % (kTileN / 8);
    const bool inside = k0 + row < k && n0 + chunk * 8 < n;
    copy_async(shared_address(stage.b + swizzled(row, chunk, kTileN / 8) * 8),
               inside ? b + static_cast<std::size_t>(k0 + row) * n + n0 + chunk * 8 : b, inside);
  }
  asm volatile("cp.async.commit_group;\n" ::);
}

/// One warp: 16 rows, all 64 columns of the tile.
__device__ void multiply_stage(const Stage& stage, float (&sum)[kTileN / 8][4]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int k = 0; k < kTileK; k += 16) {
    std::uint32_t a[4];
    const std::uint32_t at =
        shared_address(stage.a + swizzled(warp * 16 + lane % 16, k / 8 + lane / 16, kTileK / 8) * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(at));
    for (int n = 0; n < kTileN; n += 16) {
      std::uint32_t b[4];  // k 0–7 and 8–15 of eight columns, then of the next eight
      const std::uint32_t from =
          shared_address(stage.b + swizzled(k + lane % 16, n / 8 + lane / 16, kTileN / 8) * 8);
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                   : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                   : "r"(from));
      for (int half = 0; half < 2; ++half) {
        float(&d)[4] = sum[n / 8 + half];
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, "
            "%9}, {%0, %1, %2, %3};\n"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[2 * half]), "r"(b[2 * half + 1]));
      }
    }
  }
}

__global__ void __launch_bounds__(32 * kWarps)
    gemm(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n, int k) {
  __shared__ alignas(128) Stage stages[2];
  const int m0 = blockIdx.y * kTileM, n0 = blockIdx.x * kTileN, steps = (k + kTileK - 1) / kTileK;
  float sum[kTileN / 8][4] = {};
  load_stage(stages[0], a, b, m0, n0, 0, m, n, k);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) load_stage(stages[(step + 1) % 2], a, b, m0, n0, (step + 1) * kTileK, m, n, k);
    if (step + 1 < steps)
      asm volatile("cp.async.wait_group 1;\n" ::: "memory");
    else
      asm volatile("cp.async.wait_group 0;\n" ::: "memory");
    __syncthreads();
    multiply_stage(stages[step % 2], sum);
    __syncthreads();
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int block = 0; block < kTileN / 8; ++block) {
    for (int i = 0; i < 4; ++i) {
      const int row = m0 + warp * 16 + lane / 4 + (i / 2) * 8, column = n0 + block * 8 + lane % 4 * 2 + i % 2;
      if (row < m && column < n) c[static_cast<std::size_t>(row) * n + column] = sum[block][i];
    }
  }
}

#define CHECK(call)                                                                                    \
  do {                                                                                                 \
    const cudaError_t error = (call);                                                                  \
    if (error != cudaSuccess) return std::printf("%s: %s\n", #call, cudaGetErrorString(error)), false; \
  } while (0)

bool check_gemm(int m, int n, int k) {
  std::uint32_t state = 12345;
  const auto next = [&] {
    return state = state * 1664525u + 1013904223u, static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  };
  std::vector<__nv_bfloat16> a(static_cast<std::size_t>(m) * k), b(static_cast<std::size_t>(k) * n);
  for (auto& x : a) x = __float2bfloat16(next());
  for (auto& x : b) x = __float2bfloat16(next());
  std::vector<float> c(static_cast<std::size_t>(m) * n);
  __nv_bfloat16 *a_device, *b_device;
  float* c_device;
  CHECK(cudaMalloc(&a_device, a.size() * 2));
  CHECK(cudaMalloc(&b_device, b.size() * 2));
  CHECK(cudaMalloc(&c_device, c.size() * 4));
  CHECK(cudaMemcpy(a_device, a.data(), a.size() * 2, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(b_device, b.data(), b.size() * 2, cudaMemcpyHostToDevice));
  gemm<<<dim3((n + kTileN - 1) / kTileN, (m + kTileM - 1) / kTileM), 32 * kWarps>>>(a_device, b_device,
                                                                                    c_device, m, n, k);
  CHECK(cudaGetLastError());
  CHECK(cudaMemcpy(c.data(), c_device, c.size() * 4, cudaMemcpyDeviceToHost));
  CHECK(cudaFree(a_device));
  CHECK(cudaFree(b_device));
  CHECK(cudaFree(c_device));
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double exact = 0, size = 0;
      for (int l = 0; l < k; ++l) {
        const double product = static_cast<double>(__bfloat162float(a[static_cast<std::size_t>(i) * k + l])) *
                               static_cast<double>(__bfloat162float(b[static_cast<std::size_t>(l) * n + j]));
        exact += product;
        size += std::fabs(product);
      }
      const double got = c[static_cast<std::size_t>(i) * n + j];
      if (!(std::fabs(got - exact) <= (k + 2) * 0x1p-23 * size))  // k additions, each at least to 23 bits
        return std::printf("gemm %dx%dx%d: c[%d][%d] = %.9g, expected %.9g\n", m, n, k, i, j, got, exact),
               false;
    }
  }
  return true;
}

}  // namespace

int main() {
  bool good = true;
  good = check_gemm(64, 64, 32) && good;
  good = check_gemm(128, 192, 256) && good;
  good = check_gemm(100, 72, 200) && good;  // nothing divides
  good = check_gemm(1, 8, 8) && good;
  if (good) std::puts("tensor_mma: ok");
  return good ? 0 : 1;
}
