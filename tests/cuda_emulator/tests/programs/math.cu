// Mathematical functions against the host's, within the bounds that CUDA documents, and arithmetic in every
// rounding mode, bit by bit.
#include <cfenv>

#include "compare.h"

namespace {

// The bounds that CUDA documents are those of hardware's tables. Here the building blocks are exact, and with
// CUDA_EMULATOR_NOISE as wrong as they may be at the same time: one unit more is allowed, and three times as
// much with noise.
constexpr double kSlack = 1;

bool noise() {
  const char* value = std::getenv("CUDA_EMULATOR_NOISE");
  return value != nullptr && value[0] == '1';
}

template <class T, class F>
__global__ void map(T* out, const T* a, const T* b, int n, F f) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = f(a[i], b[i]);
}

template <class T, class F, class Host>
void check(const char* name, double bound, const std::vector<T>& a, const std::vector<T>& b, F device,
           Host host) {
  const int n = static_cast<int>(a.size());
  if (bound >= 1 && noise()) bound *= 3;
  Array<T> first(a), second(b), out(a.size());
  map<<<(n + 127) / 128, 128>>>(static_cast<T*>(out), static_cast<const T*>(first),
                                static_cast<const T*>(second), n, device);
  finish(name);
  out.fetch();
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto expected = host(a[i], b[i]);
    const double distance = ulps(out.host[i], expected);
    if (distance <= bound) continue;
    std::printf(
        "failed: %s(%.17g, %.17g) is %.17g, expected %.17g: %.3g units in the last place, allowed are %g\n",
        name, static_cast<double>(a[i]), static_cast<double>(b[i]), static_cast<double>(out.host[i]),
        static_cast<double>(expected), distance, bound);
    ++failures();
    return;
  }
}

template <class T>
std::vector<T> between(double low, double high, int n = 500) {
  std::vector<T> values;
  for (int i = 0; i < n; ++i) values.push_back(static_cast<T>(low + (high - low) * (i + 0.37) / n));
  return values;
}

/// Both signs, from tiny to huge, and the special values.
template <class T>
std::vector<T> wide(int n = 500) {
  std::vector<T> values{T(0), T(-0.0), T(INFINITY), T(-INFINITY), T(NAN), T(1), T(-1)};
  const double span = sizeof(T) == 4 ? 37 : 300;
  for (int i = 0; i < n; ++i)
    values.push_back(
        static_cast<T>((i % 2 == 0 ? 1 : -1) * std::pow(10.0, -span + 2 * span * i / n) * (1 + i * 0.001)));
  return values;
}

template <class T>
std::vector<T> join(std::vector<T> a, const std::vector<T>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// ---- the functions on the device, as types ----

#define FLOAT_ONE(name)                                                      \
  struct name##_float {                                                      \
    __device__ float operator()(float a, float) const { return name##f(a); } \
  };
#define FLOAT_TWO(name)                                                           \
  struct name##_float {                                                           \
    __device__ float operator()(float a, float b) const { return name##f(a, b); } \
  };
#define DOUBLE_ONE(name)                                                     \
  struct name##_double {                                                     \
    __device__ double operator()(double a, double) const { return name(a); } \
  };
#define DOUBLE_TWO(name)                                                          \
  struct name##_double {                                                          \
    __device__ double operator()(double a, double b) const { return name(a, b); } \
  };
#define OPERATION(type, name, expression)                                                \
  struct name {                                                                          \
    __device__ type operator()([[maybe_unused]] type x, [[maybe_unused]] type y) const { \
      return expression;                                                                 \
    }                                                                                    \
  };
FLOAT_ONE(sin)
FLOAT_ONE(cos) FLOAT_ONE(tan) FLOAT_ONE(exp) FLOAT_ONE(exp2) FLOAT_ONE(expm1) FLOAT_ONE(log) FLOAT_ONE(
    log2) FLOAT_ONE(log10) FLOAT_ONE(log1p) FLOAT_ONE(erf) FLOAT_ONE(erfc) FLOAT_ONE(tanh) FLOAT_ONE(sinh)
    FLOAT_ONE(cosh) FLOAT_ONE(asin) FLOAT_ONE(acos) FLOAT_ONE(atan) FLOAT_ONE(asinh) FLOAT_ONE(atanh)
        FLOAT_ONE(cbrt) FLOAT_ONE(sqrt) FLOAT_ONE(tgamma) FLOAT_ONE(lgamma) FLOAT_ONE(floor) FLOAT_ONE(ceil)
            FLOAT_ONE(trunc) FLOAT_ONE(rint) FLOAT_ONE(round) FLOAT_TWO(fmod) FLOAT_TWO(remainder) FLOAT_TWO(
                pow) FLOAT_TWO(atan2) FLOAT_TWO(hypot) FLOAT_TWO(copysign) FLOAT_TWO(fmax) FLOAT_TWO(fmin)
                FLOAT_TWO(fdim) DOUBLE_ONE(sin) DOUBLE_ONE(cos) DOUBLE_ONE(exp) DOUBLE_ONE(exp2)
                    DOUBLE_ONE(log) DOUBLE_ONE(log10) DOUBLE_ONE(log1p) DOUBLE_ONE(erf) DOUBLE_ONE(tanh)
                        DOUBLE_ONE(atan) DOUBLE_ONE(asin) DOUBLE_ONE(cbrt) DOUBLE_ONE(sqrt) DOUBLE_ONE(rint)
                            DOUBLE_ONE(floor) DOUBLE_TWO(fmod) DOUBLE_TWO(pow) DOUBLE_TWO(atan2)
                                DOUBLE_TWO(hypot) OPERATION(float, InverseRootOfFloats, (rsqrtf(x)))
                                    OPERATION(float, QuotientOfFloats,
                                              (x / y)) OPERATION(float, FastExpOfFloats, (__expf(x)))
                                        OPERATION(float, FastLogOfFloats,
                                                  (x > 0.5f && x < 20 ? __logf(x) + 3 : 0.0f))
                                            OPERATION(float, FastSineOfFloats, (__sinf(x) + 2))
                                                OPERATION(float, FastQuotientOfFloats, (__fdividef(x, y)))
                                                    OPERATION(float, SaturatedOfFloats, (__saturatef(x)))
                                                        OPERATION(double, InverseRootOfDoubles, (rsqrt(x)))
                                                            OPERATION(double, QuotientOfDoubles, (x / y))
// ---- and against the host ----

#define FLOAT1(name, bound, inputs)                              \
  check<float>(#name "f", bound, inputs, inputs, name##_float{}, \
               [](float a, float) { return std::name(static_cast<double>(a)); })
#define DOUBLE1(name, bound, inputs)                           \
  check<double>(#name, bound, inputs, inputs, name##_double{}, \
                [](double a, double) { return std::name(static_cast<long double>(a)); })
#define FLOAT2(name, bound, a, b)                      \
  check<float>(#name "f", bound, a, b, name##_float{}, \
               [](float x, float y) { return std::name(static_cast<double>(x), static_cast<double>(y)); })
#define DOUBLE2(name, bound, a, b)                                              \
  check<double>(#name, bound, a, b, name##_double{}, [](double x, double y) {   \
    return std::name(static_cast<long double>(x), static_cast<long double>(y)); \
  })

                                                                void check_floats() {
  const auto all = wide<float>(), angles = join(wide<float>(), between<float>(-400, 400)),
             unit = between<float>(-1, 1), small = join(between<float>(-12, 12), wide<float>());
  const auto exponents = join(between<float>(-110, 95), wide<float>()),
             positive = join(between<float>(0.001, 30), wide<float>());
  FLOAT1(sin, 2 + kSlack, angles);
  FLOAT1(cos, 2 + kSlack, angles);
  FLOAT1(tan, 4 + kSlack, angles);
  FLOAT1(exp, 2 + kSlack, exponents);
  FLOAT1(exp2, 2 + kSlack, exponents);
  FLOAT1(expm1, 1 + kSlack, exponents);
  FLOAT1(log, 1 + kSlack, positive);
  FLOAT1(log2, 1 + kSlack, positive);
  FLOAT1(log10, 2 + kSlack, positive);
  FLOAT1(log1p, 1 + kSlack, positive);
  FLOAT1(erf, 2 + kSlack, small);
  FLOAT1(erfc, 4 + kSlack, small);
  FLOAT1(tanh, 2 + kSlack, small);
  FLOAT1(sinh, 3 + kSlack, exponents);
  FLOAT1(cosh, 2 + kSlack, exponents);
  FLOAT1(asin, 2 + kSlack, unit);
  FLOAT1(acos, 2 + kSlack, unit);
  FLOAT1(atan, 2 + kSlack, all);
  FLOAT1(asinh, 3 + kSlack, all);
  FLOAT1(atanh, 3 + kSlack, unit);
  FLOAT1(cbrt, 1 + kSlack, all);
  FLOAT1(sqrt, 0.5, positive);
  FLOAT1(tgamma, 5 + kSlack, between<float>(0.1, 30));
  FLOAT1(lgamma, 6 + kSlack, between<float>(3.5, 100));
  FLOAT1(floor, 0, small);
  FLOAT1(ceil, 0, small);
  FLOAT1(trunc, 0, small);
  FLOAT1(rint, 0, small);
  FLOAT1(round, 0, small);
  check<float>("rsqrtf", 2 + kSlack, positive, positive, InverseRootOfFloats{},
               [](float a, float) { return 1 / std::sqrt(static_cast<double>(a)); });

  const auto a = join(between<float>(-50, 50), between<float>(0.01, 9e3)),
             b = join(between<float>(-7, 9), between<float>(-8, 8));
  const auto bases = join(between<float>(0.01, 20), wide<float>()),
             powers = join(between<float>(-20, 20), wide<float>());
  FLOAT2(fmod, 0, a, b);
  FLOAT2(remainder, 0, a, b);
  FLOAT2(pow, 4 + kSlack, bases, powers);
  FLOAT2(atan2, 3 + kSlack, a, b);
  FLOAT2(hypot, 3 + kSlack, a, b);
  FLOAT2(copysign, 0, a, b);
  FLOAT2(fmax, 0, a, b);
  FLOAT2(fmin, 0, powers, bases);
  FLOAT2(fdim, 0.5, a, b);
  check<float>("a / b", 0.5, bases, powers, QuotientOfFloats{},
               [](float x, float y) { return static_cast<double>(x) / y; });

  // Fast versions: bounds are absolute or of a narrow range; here roughly.
  const auto narrow = between<float>(-3, 3);
  check<float>("__expf", 6, narrow, narrow, FastExpOfFloats{},
               [](float x, float) { return std::exp(static_cast<double>(x)); });
  check<float>("__logf + 3", 8, bases, bases, FastLogOfFloats{}, [](float x, float) {
    return x > 0.5f && x < 20 ? std::log(static_cast<double>(x)) + 3 : 0.0;
  });
  check<float>("__sinf + 2", 4, narrow, narrow, FastSineOfFloats{},
               [](float x, float) { return std::sin(static_cast<double>(x)) + 2; });
  check<float>("__fdividef", 3, a, b, FastQuotientOfFloats{},
               [](float x, float y) { return static_cast<double>(x) / y; });
  check<float>("__saturatef", 0, narrow, narrow, SaturatedOfFloats{}, [](float x, float) {
    return x < 0 ? 0.0 : x > 1 ? 1.0 : x;
  });
}

void check_doubles() {
  const auto all = wide<double>(), angles = join(wide<double>(), between<double>(-4000, 4000)),
             unit = between<double>(-1, 1), small = join(between<double>(-12, 12), wide<double>());
  const auto exponents = join(between<double>(-740, 710), wide<double>()),
             positive = join(between<double>(0.001, 30), wide<double>());
  DOUBLE1(sin, 2, angles);
  DOUBLE1(cos, 2, angles);
  DOUBLE1(exp, 1, exponents);
  DOUBLE1(exp2, 1, exponents);
  DOUBLE1(log, 1, positive);
  DOUBLE1(log10, 2, positive);
  DOUBLE1(log1p, 1, positive);
  if (!noise()) {  // these take ex2.approx of a whole number for exact, as it is on hardware; noise makes it
                   // wrong
    DOUBLE1(erf, 2, small);
    DOUBLE1(tanh, 2, small);
  }
  DOUBLE1(atan, 2, all);
  DOUBLE1(asin, 2, unit);
  DOUBLE1(cbrt, 1, all);
  DOUBLE1(sqrt, 0.501, positive);
  DOUBLE1(rint, 0, small);
  DOUBLE1(floor, 0, small);
  // rsqrt.approx.f64 has no documented bound of its own; noise takes it for one like that of
  // rcp.approx.ftz.f64.
  check<double>("rsqrt", noise() ? 0x1p33 : 1.5, positive, positive, InverseRootOfDoubles{},
                [](double a, double) { return 1 / std::sqrt(static_cast<long double>(a)); });
  const auto a = join(between<double>(-50, 50), between<double>(0.01, 9e5)),
             b = join(between<double>(-7, 9), between<double>(-8, 8));
  const auto bases = join(between<double>(0.01, 20), wide<double>()),
             powers = join(between<double>(-20, 20), wide<double>());
  DOUBLE2(fmod, 0, a, b);
  DOUBLE2(pow, 2, bases, powers);
  DOUBLE2(atan2, 2, a, b);
  DOUBLE2(hypot, 2, a, b);
  check<double>("a / b", 0.501, bases, powers, QuotientOfDoubles{},
                [](double x, double y) { return static_cast<long double>(x) / y; });
}

// ---- rounding modes ----

constexpr int kForms = 12;

#define ROUNDED(mode, r)                                                                                \
  __global__ void floats_##mode(float* out, const float* in, int n) {                                   \
    const int i = static_cast<int>(blockIdx.x), j = static_cast<int>(threadIdx.x);                      \
    const float a = in[i], b = in[j], c = in[(i + 3 * j) % n];                                          \
    float* o = out + (i * n + j) * kForms;                                                              \
    o[0] = __fadd_##r(a, b), o[1] = __fsub_##r(a, b), o[2] = __fmul_##r(a, b), o[3] = __fdiv_##r(a, b); \
    o[4] = __fmaf_##r(a, b, c), o[5] = __fsqrt_##r(fabsf(a)), o[6] = __frcp_##r(a);                     \
    o[7] = __double2float_##r(static_cast<double>(a) * b), o[8] = static_cast<float>(__dadd_##r(a, b)); \
    o[9] = static_cast<float>(__ddiv_##r(a, b)), o[10] = static_cast<float>(__fma_##r(a, b, c)),        \
    o[11] = __int2float_##r(__float_as_int(a));                                                         \
  }
ROUNDED(nearest, rn)
ROUNDED(zero, rz)
ROUNDED(up, ru)
ROUNDED(down, rd)

void rounded_on_host(int mode, float x, float y, float z, float* o) {
  std::fesetround(mode);
  volatile float a = x, b = y, c = z, one = 1;
  volatile double da = x, db = y, dc = z, result;
  o[0] = a + b, o[1] = a - b, o[2] = a * b, o[3] = a / b;
  o[4] = std::fma(a, b, c), o[5] = std::sqrt(std::fabs(a)), o[6] = one / a;
  result = da * db;
  o[7] = static_cast<float>(result);
  int bits;
  std::memcpy(&bits, &x, 4);
  volatile int integer = bits;
  o[11] = static_cast<float>(integer);
  volatile double sum = da + db, quotient = da / db, fused = std::fma(da, db, dc);
  std::fesetround(FE_TONEAREST);
  o[8] = static_cast<float>(sum), o[9] = static_cast<float>(quotient), o[10] = static_cast<float>(fused);
}

void check_rounding() {
  std::vector<float> numbers{0,      -0.0f,   1,        -1,       INFINITY, -INFINITY,
                             NAN,    3.4e38f, -3.4e38f, 1e-45f,   -1e-45f,  1.2e-38f,
                             1e-39f, 0.1f,    1 / 3.0f, 16777216, 16777215, 1 + 1.2e-7f};
  unsigned state = 12345;
  while (numbers.size() < 64) {
    state = state * 1664525 + 1013904223;
    float value;
    const unsigned bits = state % 3 == 0 ? state : (state & 0x81ffffff) | 0x3e000000;  // any, and near 1
    std::memcpy(&value, &bits, 4);
    if (std::isfinite(value)) numbers.push_back(value);
  }
  const int n = static_cast<int>(numbers.size());
  const struct {
    int mode;
    const char* name;
    void (*kernel)(float*, const float*, int);
  } modes[] = {{FE_TONEAREST, "rn", floats_nearest},
               {FE_TOWARDZERO, "rz", floats_zero},
               {FE_UPWARD, "ru", floats_up},
               {FE_DOWNWARD, "rd", floats_down}};
  for (const auto& mode : modes) {
    Array<float> in(numbers), out(static_cast<std::size_t>(n * n * kForms));
    mode.kernel<<<n, n>>>(out, in, n);
    finish(mode.name);
    out.fetch();
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) {
        float expected[kForms];
        rounded_on_host(mode.mode, numbers[static_cast<std::size_t>(i)], numbers[static_cast<std::size_t>(j)],
                        numbers[static_cast<std::size_t>((i + 3 * j) % n)], expected);
        for (int k = 0; k < kForms; ++k) {
          const float got = out.host[static_cast<std::size_t>((i * n + j) * kForms + k)];
          if (same(got, expected[k]) && (std::isnan(got) || std::signbit(got) == std::signbit(expected[k])))
            continue;
          std::printf("failed: form %d, %s, of %a, %a: %a, expected %a\n", k, mode.name,
                      numbers[static_cast<std::size_t>(i)], numbers[static_cast<std::size_t>(j)], got,
                      expected[k]);
          if (++failures() > 10) return;
        }
      }
  }
}

}  // namespace

int main() {
  check_floats();
  check_doubles();
  check_rounding();
  return status();
}
