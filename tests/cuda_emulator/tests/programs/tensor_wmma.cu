// nvcuda::wmma: GEMMs of f16, bf16, tf32, f64 and 8-bit integers, all layouts of A and B, fragments from
// global and from shared memory, an epilogue on the elements of accumulators; against sums of doubles on the
// host.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <type_traits>
#include <vector>

namespace {

using namespace nvcuda;

/// What a matrix of an element type consists of in memory: tf32 matrices are arrays of float.
template <class T>
struct Stored {
  using type = T;
};
template <>
struct Stored<wmma::precision::tf32> {
  using type = float;
};

template <class Fragment>
__device__ void round_to_tf32(Fragment& fragment) {
  for (int i = 0; i < fragment.num_elements; ++i) fragment.x[i] = wmma::__float_to_tf32(fragment.x[i]);
}

/// One warp per tile: D = 2 (A · B) + C. A and B by rows or by columns as their layouts say, C and D by rows.
/// A comes through shared memory.
template <class T, class Sum, class LayoutA, class LayoutB, int M, int N, int K>
__global__ void gemm(const typename Stored<T>::type* a, const typename Stored<T>::type* b, const Sum* c,
                     Sum* d, int m, int n, int k) {
  using Element = typename Stored<T>::type;
  constexpr bool rows_a = std::is_same<LayoutA, wmma::row_major>::value,
                 rows_b = std::is_same<LayoutB, wmma::row_major>::value;
  constexpr int pitch = (rows_a ? K : M) + 16;  // keeps tiles aligned to 32 bytes: only the first one is used
  __shared__ alignas(32) Element tile[(rows_a ? M : K) * pitch];
  const int m0 = blockIdx.y * M, n0 = blockIdx.x * N;
  wmma::fragment<wmma::matrix_a, M, N, K, T, LayoutA> fa;
  wmma::fragment<wmma::matrix_b, M, N, K, T, LayoutB> fb;
  wmma::fragment<wmma::accumulator, M, N, K, Sum> sum, start;
  wmma::fill_fragment(sum, Sum(0));
  for (int k0 = 0; k0 < k; k0 += K) {
    for (int i = threadIdx.x; i < M * K; i += 32) {
      const int row = i / K, column = i % K;
      tile[rows_a ? row * pitch + column : column * pitch + row] =
          rows_a ? a[(m0 + row) * k + k0 + column] : a[(k0 + column) * m + m0 + row];
    }
    __syncwarp();
    wmma::load_matrix_sync(fa, tile, pitch);
    wmma::load_matrix_sync(fb, rows_b ? b + k0 * n + n0 : b + n0 * k + k0, rows_b ? n : k);
    if constexpr (std::is_same<T, wmma::precision::tf32>::value) round_to_tf32(fa), round_to_tf32(fb);
    wmma::mma_sync(sum, fa, fb, sum);
    __syncwarp();
  }
  wmma::load_matrix_sync(start, c + m0 * n + n0, n, wmma::mem_row_major);
  for (int i = 0; i < sum.num_elements; ++i) sum.x[i] = Sum(2) * sum.x[i] + start.x[i];
  wmma::store_matrix_sync(d + m0 * n + n0, sum, n, wmma::mem_row_major);
}

#define CHECK(call)                                                                                    \
  do {                                                                                                 \
    const cudaError_t error = (call);                                                                  \
    if (error != cudaSuccess) return std::printf("%s: %s\n", #call, cudaGetErrorString(error)), false; \
  } while (0)

template <class T>
double number(T x) {
  return static_cast<double>(x);
}
template <>
double number(__half x) {
  return static_cast<double>(__half2float(x));
}
template <>
double number(__nv_bfloat16 x) {
  return static_cast<double>(__bfloat162float(x));
}

std::uint32_t state = 1;
std::uint32_t next() { return (state = state * 1664525u + 1013904223u) >> 8; }

/// Floats have 8 fraction bits or less, so that they are tf32 and f16 numbers.
template <class T>
T random_value() {
  const float real = static_cast<float>(static_cast<int>(next() % 255) - 127) / 64.0f;
  if constexpr (std::is_same<T, __half>::value)
    return __float2half(real);
  else if constexpr (std::is_same<T, __nv_bfloat16>::value)
    return __float2bfloat16(real);
  else if constexpr (std::is_integral<T>::value)
    return static_cast<T>(next());
  else
    return static_cast<T>(real);
}

/// Relative error of one addition of the accumulator type.
template <class Sum>
constexpr double kUnit = std::is_same<Sum, __half>::value   ? 0x1p-10
                         : std::is_same<Sum, float>::value  ? 0x1p-23
                         : std::is_same<Sum, double>::value ? 0x1p-52
                                                            : 0.0;

template <class T, class Sum, class LayoutA, class LayoutB, int M, int N, int K>
bool check_gemm(const char* name) {
  using Element = typename Stored<T>::type;
  // Tiles of B by rows must begin at multiples of 32 bytes: only one of 8 columns of 2 bytes fits.
  const int m = 2 * M, n = (N == 8 && sizeof(Element) == 2 ? 1 : 3) * N, k = 4 * K;
  constexpr bool rows_a = std::is_same<LayoutA, wmma::row_major>::value,
                 rows_b = std::is_same<LayoutB, wmma::row_major>::value;
  std::vector<Element> a(m * k), b(k * n);
  std::vector<Sum> c(m * n), d(m * n);
  for (auto& x : a) x = random_value<Element>();
  for (auto& x : b) x = random_value<Element>();
  for (auto& x : c) x = random_value<Sum>();
  if (std::is_integral<Sum>::value)
    for (auto& x : c) x = random_value<signed char>();
  Element *a_device, *b_device;
  Sum *c_device, *d_device;
  CHECK(cudaMalloc(&a_device, a.size() * sizeof(Element)));
  CHECK(cudaMalloc(&b_device, b.size() * sizeof(Element)));
  CHECK(cudaMalloc(&c_device, c.size() * sizeof(Sum)));
  CHECK(cudaMalloc(&d_device, d.size() * sizeof(Sum)));
  CHECK(cudaMemcpy(a_device, a.data(), a.size() * sizeof(Element), cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(b_device, b.data(), b.size() * sizeof(Element), cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(c_device, c.data(), c.size() * sizeof(Sum), cudaMemcpyHostToDevice));
  gemm<T, Sum, LayoutA, LayoutB, M, N, K>
      <<<dim3(n / N, m / M), 32>>>(a_device, b_device, c_device, d_device, m, n, k);
  CHECK(cudaGetLastError());
  CHECK(cudaMemcpy(d.data(), d_device, d.size() * sizeof(Sum), cudaMemcpyDeviceToHost));
  CHECK(cudaFree(a_device));
  CHECK(cudaFree(b_device));
  CHECK(cudaFree(c_device));
  CHECK(cudaFree(d_device));
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double exact = number(c[i * n + j]), size = std::fabs(exact);
      for (int l = 0; l < k; ++l) {
        const double product =
            2 * number(a[rows_a ? i * k + l : l * m + i]) * number(b[rows_b ? l * n + j : j * k + l]);
        exact += product;
        size += std::fabs(product);
      }
      const double got = number(d[i * n + j]);
      if (!(std::fabs(got - exact) <= (k + 2) * kUnit<Sum> * size))
        return std::printf("%s, A by %s, B by %s: d[%d][%d] = %.9g, expected %.9g\n", name,
                           rows_a ? "rows" : "columns", rows_b ? "rows" : "columns", i, j, got, exact),
               false;
    }
  }
  return true;
}

template <class T, class Sum, int M, int N, int K>
bool check_layouts(const char* name) {
  bool good = check_gemm<T, Sum, wmma::row_major, wmma::row_major, M, N, K>(name);
  good = check_gemm<T, Sum, wmma::row_major, wmma::col_major, M, N, K>(name) && good;
  good = check_gemm<T, Sum, wmma::col_major, wmma::row_major, M, N, K>(name) && good;
  return check_gemm<T, Sum, wmma::col_major, wmma::col_major, M, N, K>(name) && good;
}

}  // namespace

int main() {
  bool good = true;
  good = check_layouts<__half, float, 16, 16, 16>("f16 m16n16k16") && good;
  good = check_layouts<__half, float, 32, 8, 16>("f16 m32n8k16") && good;
  good = check_layouts<__half, float, 8, 32, 16>("f16 m8n32k16") && good;
  good = check_layouts<__half, __half, 16, 16, 16>("f16 sums m16n16k16") && good;
  good = check_layouts<__nv_bfloat16, float, 16, 16, 16>("bf16 m16n16k16") && good;
  good = check_layouts<__nv_bfloat16, float, 32, 8, 16>("bf16 m32n8k16") && good;
  good = check_layouts<wmma::precision::tf32, float, 16, 16, 8>("tf32 m16n16k8") && good;
  good = check_layouts<double, double, 8, 8, 4>("f64 m8n8k4") && good;
  good = check_layouts<signed char, int, 16, 16, 16>("s8 m16n16k16") && good;
  good = check_layouts<unsigned char, int, 8, 32, 16>("u8 m8n32k16") && good;
  if (good) std::puts("tensor_wmma: ok");
  return good ? 0 : 1;
}
