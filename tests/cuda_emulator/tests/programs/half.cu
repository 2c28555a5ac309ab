// half, bfloat16 and 8-bit floating point: conversions, arithmetic and comparisons, against arithmetic in
// float and double that is rounded once.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <algorithm>

#include "compare.h"

namespace {

// ---- formats by hand ----

struct Format {
  int mantissa, bias;
  double largest;
};
constexpr Format kHalf{10, 15, 65504.0}, kBfloat{7, 127, 3.3895313892515355e38}, kE4m3{3, 7, 448.0},
    kE5m2{2, 15, 57344.0};

/// To nearest, ties to even; beyond the largest by half a step or more: infinity.
double rounded(const Format& format, double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const int exponent = std::max(std::ilogb(value), 1 - format.bias);
  const double unit = std::ldexp(1.0, exponent - format.mantissa),
               result = std::nearbyint(value / unit) * unit;
  return std::fabs(result) > format.largest ? std::copysign(INFINITY, value) : result;
}

template <class T>
struct Type;
template <>
struct Type<__half> {
  static constexpr const char* name = "half";
  static constexpr Format format = kHalf;
  using Pair = __half2;
  static __host__ __device__ __half from(float f) { return __float2half_rn(f); }
  static __host__ __device__ float to(__half h) { return __half2float(h); }
  static __device__ __half2 pair(float a, float b) { return __floats2half2_rn(a, b); }
};
template <>
struct Type<__nv_bfloat16> {
  static constexpr const char* name = "bfloat16";
  static constexpr Format format = kBfloat;
  using Pair = __nv_bfloat162;
  static __host__ __device__ __nv_bfloat16 from(float f) { return __float2bfloat16_rn(f); }
  static __host__ __device__ float to(__nv_bfloat16 h) { return __bfloat162float(h); }
  static __device__ __nv_bfloat162 pair(float a, float b) { return __floats2bfloat162_rn(a, b); }
};

// ---- all 65536 values to float and integers, and back from floats between them ----

template <class T>
__global__ void widen(float* out, int* integers, unsigned short* back) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  T value;
  *reinterpret_cast<unsigned short*>(&value) = static_cast<unsigned short>(i);
  out[i] = Type<T>::to(value);
  if constexpr (std::is_same<T, __half>::value)
    integers[i] =
        __half2int_rz(value) + static_cast<int>(__half2short_rn(__hmul(value, __float2half(0.25f)))) * 7;
  else
    integers[i] = __bfloat162int_rz(value);
  const T again = Type<T>::from(out[i]);
  back[i] = *reinterpret_cast<const unsigned short*>(&again);
}

template <class T>
void check_all_values() {
  constexpr unsigned kN = 65536;
  Array<float> out(kN);
  Array<int> integers(kN);
  Array<unsigned short> back(kN);
  widen<T><<<kN / 256, 256>>>(out, integers, back);
  finish("widen");
  out.fetch(), integers.fetch(), back.fetch();
  const Format f = Type<T>::format;
  const int exponents = (1 << (15 - f.mantissa)) - 1;
  for (unsigned i = 0; i < kN; ++i) {
    const int exponent = static_cast<int>(i >> f.mantissa) & exponents,
              mantissa = static_cast<int>(i) & ((1 << f.mantissa) - 1);
    double expected = exponent == exponents ? (mantissa != 0 ? NAN : INFINITY)
                      : exponent == 0
                          ? std::ldexp(mantissa, 1 - f.bias - f.mantissa)
                          : std::ldexp(mantissa + (1 << f.mantissa), exponent - f.bias - f.mantissa);
    if (i >= 0x8000) expected = -expected;
    if (!same(out.host[i], static_cast<float>(expected)) || (!std::isnan(expected) && back.host[i] != i)) {
      std::printf("failed: %s %#x is %g and %#x, expected %g\n", Type<T>::name, i, out.host[i], back.host[i],
                  expected);
      ++failures();
      return;
    }
    if (std::isnan(expected) || std::fabs(expected) > 1e9) continue;
    int integer = static_cast<int>(expected);
    if (f.mantissa == 10)
      integer +=
          7 * static_cast<int>(std::clamp(std::nearbyint(rounded(f, expected * 0.25)), -32768.0, 32767.0));
    if (integers.host[i] != integer) {
      std::printf("failed: %s %g as an integer is %d, expected %d\n", Type<T>::name, expected,
                  integers.host[i], integer);
      ++failures();
      return;
    }
  }
}

// ---- arithmetic ----

constexpr int kForms = 20;

__device__ __half low(__half2 p) { return __low2half(p); }
__device__ __nv_bfloat16 low(__nv_bfloat162 p) { return __low2bfloat16(p); }

template <class T>
__global__ void arithmetic(float* out, const float* in, int n) {
  const int i = static_cast<int>(blockIdx.x), j = static_cast<int>(threadIdx.x);
  using F = Type<T>;
  const float fa = in[i], fb = in[j], fc = in[(i * 5 + j) % n];
  const T a = F::from(fa), b = F::from(fb), c = F::from(fc);
  const auto pa = F::pair(fa, fb), pb = F::pair(fb, fc), pc = F::pair(fc, fa);
  float* o = out + (i * n + j) * kForms;
  const auto put = [&](float value) { *o++ = value; };
  put(F::to(__hadd(a, b))), put(F::to(__hsub(a, b))), put(F::to(__hmul(a, b))), put(F::to(__hfma(a, b, c)));
  put(F::to(__hneg(a))), put(F::to(__habs(a))), put(F::to(__hmax(a, b))), put(F::to(__hmin(a, b)));
  put(static_cast<float>(__hlt(a, b) + 2 * __hle(a, b) + 4 * __heq(a, b) + 8 * __hne(a, b) +
                         16 * __hgtu(a, b) + 32 * __hisnan(a)));
  const auto sum = __hadd2(pa, pb), product = __hmul2(pa, pb), fused = __hfma2(pa, pb, pc),
             larger = __hmax2(pa, pb);
  put(__low2float(sum)), put(__high2float(sum)), put(__low2float(product)), put(__high2float(product)),
      put(__low2float(fused)), put(__high2float(fused));
  put(__low2float(larger)), put(F::to(__hadd(low(pa), c)));
  put(F::to(__hfma_relu(a, b, c))), put(F::to(__hadd_sat(a, b))), put(F::to(a / b));
}

template <class T>
void check_arithmetic() {
  std::vector<float> numbers{0,     -0.0f, 1,     -1,     2,     0.5f,     3,         -3,  100,  1024,
                             -2048, 60000, 1e-4f, -1e-6f, 6e-8f, INFINITY, -INFINITY, NAN, 0.1f, 1.0f / 3};
  unsigned state = 1;
  while (numbers.size() < 64) {
    state = state * 1664525 + 1013904223;
    numbers.push_back(std::ldexp(static_cast<float>(static_cast<int>(state >> 12) - (1 << 19)),
                                 static_cast<int>(state % 20) - 26));
  }
  const Format f = Type<T>::format;
  for (float& number : numbers) number = static_cast<float>(rounded(f, number));
  const int n = static_cast<int>(numbers.size());
  Array<float> in(numbers), out(static_cast<std::size_t>(n * n * kForms));
  arithmetic<T><<<n, n>>>(out, in, n);
  finish("arithmetic");
  out.fetch();
  const auto larger = [](double x, double y) {
    return std::isnan(x) ? y : std::isnan(y) ? x : std::max(x, y);
  };
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      const double a = numbers[static_cast<std::size_t>(i)], b = numbers[static_cast<std::size_t>(j)],
                   c = numbers[static_cast<std::size_t>((i * 5 + j) % n)];
      // a + b and a * b are exact in double or rounded far below a half's last place; so is fma in long
      // double.
      const auto fma = [&](double x, double y, double z) {
        return rounded(f, static_cast<double>(static_cast<long double>(x) * y + z));
      };
      const bool nan = std::isnan(a) || std::isnan(b);
      const double fused = fma(a, b, c), sum = rounded(f, a + b);
      const double expected[kForms] = {sum,
                                       rounded(f, a - b),
                                       rounded(f, a * b),
                                       fused,
                                       -a,
                                       std::fabs(a),
                                       larger(a, b),
                                       -larger(-a, -b),
                                       (a < b) + 2.0 * (a <= b) + 4.0 * (a == b) + 8.0 * (!nan && a != b) +
                                           16.0 * (nan || a > b) + 32.0 * std::isnan(a),
                                       sum,
                                       rounded(f, b + c),
                                       rounded(f, a * b),
                                       rounded(f, b * c),
                                       fused,
                                       fma(b, c, a),
                                       larger(a, b),
                                       rounded(f, a + c),
                                       fused < 0 ? 0 : fused,
                                       std::isnan(sum) ? 0 : std::clamp(sum, 0.0, 1.0),
                                       rounded(f, a / b)};
      for (int k = 0; k < kForms; ++k) {
        const float got = out.host[static_cast<std::size_t>((i * n + j) * kForms + k)];
        // Quotients come from a reciprocal in float.
        const double slack =
            k == kForms - 1 ? std::fabs(expected[k]) * std::ldexp(1.0, -f.mantissa) + std::ldexp(1.0, -24)
                            : 0;
        if (same(got, static_cast<float>(expected[k])) || std::fabs(got - expected[k]) <= slack) continue;
        std::printf("failed: %s form %d of %g, %g, %g is %g, expected %g\n", Type<T>::name, k, a, b, c, got,
                    expected[k]);
        if (++failures() > 10) return;
      }
    }
}

// ---- functions ----

__global__ void functions(float* out, const float* in) {
  const float x = in[threadIdx.x];
  const __half h = __float2half(x);
  const __nv_bfloat16 b = __float2bfloat16(x);
  float* o = out + threadIdx.x * 10;
  o[0] = __half2float(hexp(h)), o[1] = __half2float(hlog(__habs(h))), o[2] = __half2float(hsqrt(__habs(h))),
  o[3] = __half2float(hsin(h)), o[4] = __half2float(hfloor(h));
  o[5] = __bfloat162float(hexp(b)), o[6] = __bfloat162float(hrsqrt(__habs(b))),
  o[7] = __bfloat162float(hcos(b)), o[8] = __bfloat162float(htrunc(b)), o[9] = __half2float(hrcp(h));
}

void check_functions() {
  std::vector<float> numbers;
  for (int i = 0; i < 64; ++i) numbers.push_back(static_cast<float>((i - 31.5) / 8));
  Array<float> in(numbers), out(640);
  functions<<<1, 64>>>(out, in);
  finish("functions");
  out.fetch();
  for (std::size_t i = 0; i < 64; ++i) {
    const double h = rounded(kHalf, numbers[i]), b = rounded(kBfloat, numbers[i]);
    const double expected[10] = {std::exp(h),
                                 std::log(std::fabs(h)),
                                 std::sqrt(std::fabs(h)),
                                 std::sin(h),
                                 std::floor(h),
                                 std::exp(b),
                                 1 / std::sqrt(std::fabs(b)),
                                 std::cos(b),
                                 std::trunc(b),
                                 1 / h};
    for (int k = 0; k < 10; ++k) {
      const double bound = std::ldexp(std::fabs(expected[k]), k < 5 || k == 9 ? -9 : -6) + 1e-3;
      const float got = out.host[i * 10 + static_cast<std::size_t>(k)];
      if (std::fabs(got - expected[k]) <= bound) continue;
      std::printf("failed: function %d of %g is %g, expected %g\n", k, numbers[i], got, expected[k]);
      ++failures();
    }
  }
}

// ---- 8 bits ----

__global__ void eight_bits(unsigned char* codes, float* values, const float* in) {
  const int t = static_cast<int>(threadIdx.x);
  const __nv_fp8_e4m3 a(in[t]);
  const __nv_fp8_e5m2 b(in[t]);
  codes[2 * t] = a.__x, codes[2 * t + 1] = b.__x;
  values[4 * t] = static_cast<float>(a), values[4 * t + 1] = static_cast<float>(b);
  const __nv_fp8x2_e4m3 pair(float2{in[t], in[127 - t]});
  const float2 both = static_cast<float2>(pair);
  values[4 * t + 2] = both.x, values[4 * t + 3] = both.y;
}

void check_eight_bits() {
  std::vector<float> numbers;
  for (int i = 0; i < 128; ++i)
    numbers.push_back(std::ldexp(static_cast<float>(i % 37 - 18) * 1.37f, i % 19 - 12));
  numbers[5] = 1e6f, numbers[6] = -1e6f, numbers[7] = 0, numbers[8] = NAN;
  Array<float> in(numbers), values(512);
  Array<unsigned char> codes(256);
  eight_bits<<<1, 128>>>(codes, values, in);
  finish("eight_bits");
  const auto saturated = [](const Format& f, double v) {
    return std::isnan(v) ? static_cast<float>(v)
                         : static_cast<float>(std::clamp(rounded(f, v), -f.largest, f.largest));
  };
  std::vector<float> expected;
  for (std::size_t i = 0; i < 128; ++i)
    for (const float v : {saturated(kE4m3, numbers[i]), saturated(kE5m2, numbers[i]),
                          saturated(kE4m3, numbers[i]), saturated(kE4m3, numbers[127 - i])})
      expected.push_back(v);
  expect_equal("8-bit floats", values.fetch(), expected);
  codes.fetch();
  EXPECT(codes.host[2 * 7] == 0 && codes.host[2 * 5] == 0x7e && codes.host[2 * 5 + 1] == 0x7b &&
         codes.host[2 * 6] == 0xfe);
}

}  // namespace

int main() {
  check_all_values<__half>();
  check_all_values<__nv_bfloat16>();
  check_arithmetic<__half>();
  check_arithmetic<__nv_bfloat16>();
  check_functions();
  check_eight_bits();
  return status();
}
