// Loads, stores and copies of every width, with every hint, and cp.async in all its sizes.
#include <cuda_pipeline.h>

#include "compare.h"

namespace {

template <class T>
std::vector<T> pattern(int n) {
  std::vector<T> values(static_cast<std::size_t>(n));
  auto* bytes = reinterpret_cast<unsigned char*>(values.data());
  for (std::size_t i = 0; i < values.size() * sizeof(T); ++i)
    bytes[i] = static_cast<unsigned char>(i * 37 + i / 256 * 11 + 5);
  return values;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// ---- every width, plain, through shared and local memory, with cache hints ----

template <class T>
__global__ void copy_around(T* out, const T* in, int n) {
  __shared__ T shared[64];
  const int t = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x) * 64 + t;
  T local[4];
  for (int k = 0; k < 4; ++k) local[(k + t) & 3] = in[(i + k) % n];
  shared[63 - t] = local[t & 3];  // in[i]
  __syncthreads();
  if (i < n) out[i] = shared[63 - t];
}

template <class T>
void check_width(const char* type) {
  constexpr int kN = 150;
  Array<T> in(pattern<T>(kN)), out(kN);
  copy_around<T><<<3, 64>>>(out, in, kN);
  finish(type);
  if (same_bytes(out.fetch(), in.host)) return;
  std::printf("failed: copies of %s\n", type);
  ++failures();
}

template <class T>
__global__ void hints(T* out, const T* in) {
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  __stcs(out + t, __ldg(in + t));
  __stcg(out + n + t, __ldcg(in + t));
  __stwb(out + 2 * n + t, __ldca(in + t));
  __stwt(out + 3 * n + t, __ldcs(in + t));
  __stcs(out + 4 * n + t, __ldlu(in + t));
  __stwb(out + 5 * n + t, __ldcv(in + t));
}

template <class T>
void check_hints(const char* type) {
  Array<T> in(pattern<T>(40)), out(240);
  hints<T><<<1, 40>>>(out, in);
  finish(type);
  std::vector<T> expected;
  for (int k = 0; k < 6; ++k) expected.insert(expected.end(), in.host.begin(), in.host.end());
  if (same_bytes(out.fetch(), expected)) return;
  std::printf("failed: hinted loads and stores of %s\n", type);
  ++failures();
}

// ---- structures ----

struct Odd {
  unsigned char a;
  short b;
  int c;
  double d;
  unsigned char e[5];
};
struct __attribute__((packed)) Packed {
  unsigned char a;
  int b;
  double c;
};

__global__ void structures(Odd* out, const Odd* in, Packed* packed_out, const Packed* packed_in,
                           unsigned char* bytes, const unsigned char* from) {
  const int t = static_cast<int>(threadIdx.x);
  Odd odd = in[31 - t];
  odd.b = static_cast<short>(odd.b + 1);
  odd.e[t % 5] = static_cast<unsigned char>(t);
  out[t] = odd;
  const Packed packed = packed_in[t];
  packed_out[t] = {static_cast<unsigned char>(packed.a + 1), packed.b * 3, packed.c / 2};
  // Copies whose length and alignment are only known at run time.
  memcpy(bytes + t * 40, from + t * 3 + 1, static_cast<std::size_t>(t));
  memset(bytes + t * 40 + t, t, static_cast<std::size_t>(40 - t));
}

void check_structures() {
  std::vector<Odd> odd(32);
  std::vector<Packed> packed(32);
  for (int i = 0; i < 32; ++i) {
    odd[static_cast<std::size_t>(i)] = {
        static_cast<unsigned char>(i), static_cast<short>(-i), i * 1000, i / 3.0, {1, 2, 3, 4, 5}};
    packed[static_cast<std::size_t>(i)] = {static_cast<unsigned char>(i), i - 16, i * 2.5};
  }
  Array<Odd> in(odd), out(32);
  Array<Packed> packed_in(packed), packed_out(32);
  Array<unsigned char> bytes(32 * 40), from(pattern<unsigned char>(256));
  structures<<<1, 32>>>(out, in, packed_out, packed_in, bytes, from);
  finish("structures");
  out.fetch(), packed_out.fetch(), bytes.fetch();
  for (int t = 0; t < 32; ++t) {
    Odd expected = odd[static_cast<std::size_t>(31 - t)];
    expected.b = static_cast<short>(expected.b + 1);
    expected.e[t % 5] = static_cast<unsigned char>(t);
    const Odd& got = out.host[static_cast<std::size_t>(t)];
    EXPECT(got.a == expected.a && got.b == expected.b && got.c == expected.c && got.d == expected.d &&
           std::memcmp(got.e, expected.e, 5) == 0);
    const Packed& g = packed_out.host[static_cast<std::size_t>(t)];
    EXPECT(g.a == t + 1 && g.b == (t - 16) * 3 && g.c == t * 1.25);
    for (int i = 0; i < 40; ++i)
      EXPECT(bytes.host[static_cast<std::size_t>(t * 40 + i)] ==
             (i < t ? from.host[static_cast<std::size_t>(t * 3 + 1 + i)] : t));
  }
}

// ---- cp.async ----

__device__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

template <int Size>
__device__ void copy_async(void* to, const void* from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from),
               "n"(Size), "r"(bytes)
               : "memory");
}

// Each thread copies `bytes` of Size, for every number of bytes; the rest becomes zero. The threads exchange
// what they got.
template <int Size>
__global__ void zero_fill(unsigned char* out, const unsigned char* in) {
  __shared__ alignas(16) unsigned char tile[64 * Size];
  const int t = static_cast<int>(threadIdx.x);
  for (int i = 0; i < Size; ++i) tile[t * Size + i] = 0xee;
  for (int bytes = 0; bytes <= Size; ++bytes) {
    __syncthreads();
    copy_async<Size>(tile + t * Size, in + t * Size, bytes);
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    for (int i = 0; i < Size; ++i) out[(bytes * 64 + t) * Size + i] = tile[(63 - t) * Size + i];
  }
}

template <int Size>
void check_zero_fill() {
  Array<unsigned char> in(pattern<unsigned char>(64 * Size)),
      out(static_cast<std::size_t>(64 * Size * (Size + 1)));
  zero_fill<Size><<<1, 64>>>(out, in);
  finish("zero_fill");
  out.fetch();
  for (int bytes = 0; bytes <= Size; ++bytes)
    for (int t = 0; t < 64; ++t)
      for (int i = 0; i < Size; ++i) {
        const unsigned char expected = i < bytes ? in.host[static_cast<std::size_t>((63 - t) * Size + i)] : 0;
        EXPECT(out.host[static_cast<std::size_t>((bytes * 64 + t) * Size + i)] == expected);
      }
}

// Four stages in flight; the last rows drain with smaller waits.
template <bool Intrinsics>
__global__ void pipeline(int* out, const int* in, int rows) {
  constexpr int kStages = 4;
  __shared__ alignas(16) int stages[kStages][256];
  const int t = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int row) {
    if (row < rows) {
      int* to = &stages[row % kStages][4 * t];
      if (Intrinsics)
        __pipeline_memcpy_async(to, in + row * 256 + 4 * t, 16, row == rows - 1 ? 8 : 0);
      else
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                     "l"(in + row * 256 + 4 * t), "r"(row == rows - 1 ? 8 : 16)
                     : "memory");
    }
    if (Intrinsics)
      __pipeline_commit();
    else
      asm volatile("cp.async.commit_group;" ::: "memory");
  };
  for (int s = 0; s < kStages - 1; ++s) fetch(s);
  int sum = 0;
  for (int row = 0; row < rows; ++row) {
    if (Intrinsics)
      __pipeline_wait_prior(kStages - 2);
    else
      asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    fetch(row + kStages - 1);
    for (int i = 0; i < 4; ++i) sum = sum * 3 + stages[row % kStages][(t + 64 * i + 17) % 256];
    out[row * 64 + t] = sum;
  }
}

template <bool Intrinsics>
void check_pipeline() {
  constexpr int kRows = 9;
  std::vector<int> numbers(kRows * 256);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int>(i * 7 % 1000);
  Array<int> in(numbers), out(kRows * 64);
  pipeline<Intrinsics><<<1, 64>>>(out, in, kRows);
  finish("pipeline");
  std::vector<int> expected(kRows * 64);
  for (int t = 0; t < 64; ++t) {
    unsigned sum = 0;
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < 4; ++i) {
        const int at = (t + 64 * i + 17) % 256;
        sum = sum * 3 + static_cast<unsigned>(row == kRows - 1 && at % 4 >= 2
                                                  ? 0
                                                  : numbers[static_cast<std::size_t>(row * 256 + at)]);
      }
      expected[static_cast<std::size_t>(row * 64 + t)] = static_cast<int>(sum);
    }
  }
  expect_equal(Intrinsics ? "a pipeline of __pipeline_memcpy_async" : "a pipeline of cp.async", out.fetch(),
               expected);
}

// ---- copies by the host ----

__constant__ int table[64];
__device__ float grid_values[8][16];

__global__ void read_table(int* out) { out[threadIdx.x] = table[63 - threadIdx.x]; }
__global__ void add_to_grid() { grid_values[threadIdx.y][threadIdx.x] += static_cast<float>(threadIdx.y); }

void check_host_copies() {
  const std::vector<int> numbers = pattern<int>(64);
  OK(cudaMemcpyToSymbol(table, numbers.data(), 64 * sizeof(int)));
  OK(cudaMemcpyToSymbol(table, numbers.data() + 8, 4 * sizeof(int), 60 * sizeof(int)));
  Array<int> out(64);
  read_table<<<1, 64>>>(out);
  finish("read_table");
  std::vector<int> expected(64);
  for (int i = 0; i < 64; ++i)
    expected[static_cast<std::size_t>(i)] =
        numbers[static_cast<std::size_t>(63 - i >= 60 ? 63 - i - 52 : 63 - i)];
  expect_equal("a constant table", out.fetch(), expected);

  // A window of 5 rows of 12 numbers, through a pitched array and a variable.
  std::vector<float> image(10 * 20), back(8 * 16, -1.0f), wanted(8 * 16, -1.0f);
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<float>(i);
  float* pitched = nullptr;
  std::size_t pitch = 0;
  void* symbol = nullptr;
  OK(cudaMallocPitch(&pitched, &pitch, 20 * sizeof(float), 10));
  OK(cudaMemcpy2D(pitched, pitch, image.data(), 20 * sizeof(float), 20 * sizeof(float), 10,
                  cudaMemcpyHostToDevice));
  OK(cudaGetSymbolAddress(&symbol, grid_values));
  OK(cudaMemset2D(symbol, 16 * sizeof(float), 0, 16 * sizeof(float), 8));
  const auto* window = reinterpret_cast<const float*>(reinterpret_cast<const char*>(pitched) + 3 * pitch) + 2;
  OK(cudaMemcpy2D(symbol, 16 * sizeof(float), window, pitch, 12 * sizeof(float), 5,
                  cudaMemcpyDeviceToDevice));
  add_to_grid<<<1, dim3(16, 8)>>>();
  finish("add_to_grid");
  OK(cudaMemcpy2D(back.data(), 16 * sizeof(float), symbol, 16 * sizeof(float), 14 * sizeof(float), 8,
                  cudaMemcpyDeviceToHost));
  for (int r = 0; r < 8; ++r)
    for (int c = 0; c < 14; ++c)
      wanted[static_cast<std::size_t>(r * 16 + c)] =
          static_cast<float>(r + (r < 5 && c < 12 ? (r + 3) * 20 + c + 2 : 0));
  expect_equal("two-dimensional copies", back, wanted);
  OK(cudaFree(pitched));
}

}  // namespace

int main() {
  check_width<unsigned char>("1 byte");
  check_width<short>("2 bytes");
  check_width<uchar2>("2 of 1 byte");
  check_width<uchar4>("4 of 1 byte");
  check_width<short2>("2 of 2 bytes");
  check_width<short4>("4 of 2 bytes");
  check_width<int>("4 bytes");
  check_width<int2>("2 of 4 bytes");
  check_width<int3>("3 of 4 bytes");
  check_width<uint4>("4 of 4 bytes");
  check_width<long long>("8 bytes");
  check_width<double2>("2 of 8 bytes");
  check_width<double3>("3 of 8 bytes");
  check_hints<char>("char");
  check_hints<unsigned short>("unsigned short");
  check_hints<int>("int");
  check_hints<float2>("float2");
  check_hints<float4>("float4");
  check_hints<double>("double");
  check_hints<double2>("double2");
  check_hints<longlong2>("longlong2");
  check_hints<uchar4>("uchar4");
  check_structures();
  check_zero_fill<4>();
  check_zero_fill<8>();
  check_zero_fill<16>();
  check_pipeline<true>();
  check_pipeline<false>();
  check_host_copies();
  return status();
}
