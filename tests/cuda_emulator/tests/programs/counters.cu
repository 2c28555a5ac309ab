// Kernels whose counters are known by hand. Prints one line per number, "KERNEL PATH VALUE", that
// check_counters.cpp looks for in the file of CUDA_EMULATOR_COUNTERS. All launches have one block of 256
// threads = 8 warps unless said otherwise.
#include <cstdio>

namespace {

constexpr int kThreads = 256, kTile = 32;

__global__ void copy_words(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x]; }
__global__ void copy_float4(const float4* in, float4* out) { out[threadIdx.x] = in[threadIdx.x]; }
__global__ void copy_strided(const float* in, float* out) { out[threadIdx.x * 8] = in[threadIdx.x * 8]; }
__global__ void copy_shifted(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }
__global__ void read_one_word(const float* in, float* out) { out[threadIdx.x] = in[0]; }

// Word `Stride` * lane of 4 KiB: `Stride`-way conflicts for powers of two.
template <int Stride>
__global__ void shared_stride(float* out) {
  __shared__ volatile float tile[1024];
  for (int i = threadIdx.x; i < 1024; i += kThreads) tile[i] = static_cast<float>(i);
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x % 32 * Stride];
}

__global__ void shared_float4(float4* out) {
  __shared__ float4 tile[kThreads];
  tile[threadIdx.x] = make_float4(1, 2, 3, static_cast<float>(threadIdx.x));
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

// 32 x 8 threads.
template <int Pad>
__global__ void transpose(const float* in, float* out) {
  __shared__ float tile[kTile][kTile + Pad];
  for (int y = threadIdx.y; y < kTile; y += 8) tile[y][threadIdx.x] = in[y * kTile + threadIdx.x];
  __syncthreads();
  for (int y = threadIdx.y; y < kTile; y += 8) out[y * kTile + threadIdx.x] = tile[threadIdx.x][y];
}

// The results are used: otherwise the compiler would add up the lanes of a warp first.
__global__ void atomics_one_address(int* out) {
  out[1 + threadIdx.x] = atomicExch(out, static_cast<int>(threadIdx.x));
}
__global__ void atomics_own_address(int* out) { out[256 + threadIdx.x] = atomicExch(out + threadIdx.x, 1); }
__global__ void atomics_eight_bins(int* out) {
  out[256 + threadIdx.x] = atomicExch(out + threadIdx.x % 8, 1);
}

__global__ void half_of_the_lanes(const float* in, float* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = in[threadIdx.x];
}

struct Expected {
  const char* kernel;
  const char* path;
  double value;
};

const Expected kExpected[] = {
    {"copy_words", "global_loads/requests", 8},
    {"copy_words", "global_loads/sectors", 32},
    {"copy_words", "global_loads/useful_bytes", 1024},
    {"copy_words", "global_stores/sectors", 32},
    {"copy_words", "compulsory/read_bytes", 1024},
    {"copy_words", "compulsory/written_bytes", 1024},
    {"copy_words", "compulsory/amplification", 1},
    {"copy_words", "global_loads/efficiency", 1},
    {"copy_words", "mean_active_lanes", 32},
    {"copy_words", "divergent_branches", 0},
    {"copy_words", "launches", 1},

    {"copy_float4", "global_loads/requests", 8},
    {"copy_float4", "global_loads/sectors", 128},
    {"copy_float4", "global_stores/sectors", 128},
    {"copy_float4", "compulsory/read_bytes", 4096},

    {"copy_strided", "global_loads/sectors", 256},
    {"copy_strided", "global_loads/efficiency", 0.125},
    {"copy_strided", "compulsory/read_bytes", 1024},
    {"copy_strided", "compulsory/amplification", 8},

    {"copy_shifted", "global_loads/sectors", 40},
    {"copy_shifted", "global_stores/sectors", 32},

    {"read_one_word", "global_loads/requests", 8},
    {"read_one_word", "global_loads/sectors", 8},
    {"read_one_word", "compulsory/read_bytes", 4},

    {"shared_stride<1>", "shared_loads/requests", 8},
    {"shared_stride<1>", "shared_loads/wavefronts", 8},
    {"shared_stride<1>", "shared_stores/requests", 32},
    {"shared_stride<1>", "shared_stores/wavefronts", 32},
    {"shared_stride<1>", "barriers", 1},
    {"shared_stride<2>", "shared_loads/wavefronts", 16},
    {"shared_stride<2>", "shared_loads/ideal_wavefronts", 8},
    {"shared_stride<31>", "shared_loads/wavefronts", 8},
    {"shared_stride<32>", "shared_loads/wavefronts", 256},

    {"shared_float4", "shared_stores/wavefronts", 32},
    {"shared_float4", "shared_loads/wavefronts", 32},

    {"transpose<0>", "shared_stores/wavefronts", 32},
    {"transpose<0>", "shared_loads/wavefronts", 1024},
    {"transpose<1>", "shared_stores/wavefronts", 32},
    {"transpose<1>", "shared_loads/wavefronts", 32},
    {"transpose<1>", "global_loads/sectors", 128},
    {"transpose<1>", "global_stores/sectors", 128},

    {"atomics_one_address", "global_atomics/requests", 8},
    {"atomics_one_address", "global_atomics/serialized", 256},
    {"atomics_one_address", "global_atomics/most_serialized", 32},
    {"atomics_one_address", "global_atomics/sectors", 8},
    {"atomics_own_address", "global_atomics/serialized", 8},
    {"atomics_own_address", "global_atomics/sectors", 32},
    {"atomics_eight_bins", "global_atomics/serialized", 32},
    {"atomics_eight_bins", "global_atomics/most_serialized", 4},

    {"half_of_the_lanes", "global_loads/requests", 8},
    {"half_of_the_lanes", "global_loads/sectors", 32},
    {"half_of_the_lanes", "global_loads/useful_bytes", 512},
};

}  // namespace

int main() {
  float *in = nullptr, *out = nullptr;
  if (cudaMalloc(&in, 1 << 16) != cudaSuccess || cudaMalloc(&out, 1 << 16) != cudaSuccess) return 1;
  cudaMemset(in, 0, 1 << 16);
  cudaMemset(out, 0, 1 << 16);
  const auto words = reinterpret_cast<int*>(out);
  copy_words<<<1, kThreads>>>(in, out);
  copy_float4<<<1, kThreads>>>(reinterpret_cast<const float4*>(in), reinterpret_cast<float4*>(out));
  copy_strided<<<1, kThreads>>>(in, out);
  copy_shifted<<<1, kThreads>>>(in, out);
  read_one_word<<<1, kThreads>>>(in, out);
  shared_stride<1><<<1, kThreads>>>(out);
  shared_stride<2><<<1, kThreads>>>(out);
  shared_stride<31><<<1, kThreads>>>(out);
  shared_stride<32><<<1, kThreads>>>(out);
  shared_float4<<<1, kThreads>>>(reinterpret_cast<float4*>(out));
  transpose<0><<<1, dim3(kTile, 8)>>>(in, out);
  transpose<1><<<1, dim3(kTile, 8)>>>(in, out);
  atomics_one_address<<<1, kThreads>>>(words);
  atomics_own_address<<<1, kThreads>>>(words);
  atomics_eight_bins<<<1, kThreads>>>(words);
  half_of_the_lanes<<<1, kThreads>>>(in, out);
  const cudaError_t error = cudaDeviceSynchronize();
  cudaFree(in);
  cudaFree(out);
  if (error != cudaSuccess) {
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    return 1;
  }
  for (const Expected& expected : kExpected)
    std::printf("%s %s %.17g\n", expected.kernel, expected.path, expected.value);
  return 0;
}
