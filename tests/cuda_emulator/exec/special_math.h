#pragma once

#include <cmath>
#include <utility>

#include "exec/float_math.h"

/// The approximate functions, in double and without branches, so that loops over lanes become vector
/// instructions; a NaN operand gives anything. `value` is within 2^-33 of the exact value, relatively, so
/// that a float rounded from it is the correctly rounded one in all but a few of a thousand cases. `noisy`
/// deviates from it by at most what the PTX ISA allows, less what rounding to the destination adds; u is in
/// [-1, 1].
namespace emulator {

namespace special {

inline constexpr double kShift =
    0x1.8p52;  // adding it to a number below 2^51 leaves the nearest integer in the low bits

/// Coefficients from the constant up; they interpolate at Chebyshev nodes (float_conformance_test measures
/// the errors).
template <std::size_t n>
[[gnu::always_inline]] inline double polynomial(const double (&coefficients)[n], double x) {
  double p = coefficients[n - 1];
  [&]<std::size_t... i>(std::index_sequence<i...>) {
    ((p = __builtin_fma(p, x, coefficients[n - 2 - i])), ...);
  }
  (std::make_index_sequence<n - 1>());
  return p;
}

/// 2^x for |x| <= 1000, relative error 2^-34.
[[gnu::always_inline]] inline double exp2(double x) {
  static constexpr double kCoefficients[] = {
      0x1.ffffffffa7134p-1, 0x1.62e42fef9cc64p-1,  0x1.ebfbe0aa03e5ap-3,  0x1.c6b08da70d53dp-5,
      0x1.3b29d8bb08993p-7, 0x1.5d877597b8d5ap-10, 0x1.446c79f169bc7p-13, 0x1.00c0e5263812dp-16};
  const double shifted = x + kShift;
  const double p = polynomial(kCoefficients, x - (shifted - kShift));
  return double_of(bits_of(p) + (bits_of(shifted) << 52));
}

/// Takes |x| down to at most `most`; NaN becomes that too. As a minimum of integers, since a comparison of
/// floats with two outcomes tempts gcc to follow both through the polynomial.
[[gnu::always_inline]] inline double limit(float x, float most) {
  const std::uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu, bound = bits_of(most);
  const std::uint32_t limited = magnitude < bound ? magnitude : bound;
  return static_cast<double>(float_of(limited | (bits & 0x80000000u)));
}

[[gnu::always_inline]] inline double sine(double x, std::uint64_t quadrant) {
  static constexpr double kSine[] = {0x1.fffffffffffd9p-1,   -0x1.5555555550e9fp-3, 0x1.1111110bdd681p-7,
                                     -0x1.a019f8a2ee4e1p-13, 0x1.71d73259bdf82p-19, -0x1.a950d98179808p-26};
  static constexpr double kCosine[] = {0x1.ffffffffffe0ap-1,   -0x1.ffffffffe36dbp-2, 0x1.5555554472736p-5,
                                       -0x1.6c16b2d181220p-10, 0x1.a00e954d47549p-16, -0x1.23c589e4cbdffp-22};
  const double shifted = x * 0x1.45f306dc9c883p-1 + kShift;  // 2 / pi
  const double n = shifted - kShift;
  const double r = __builtin_fma(n, -0x1.1a62633145c07p-54,
                                 __builtin_fma(n, -0x1.921fb54442d18p0, x));  // pi / 2 in two parts
  const double z = r * r;
  const double sin = r * polynomial(kSine, z), cos = polynomial(kCosine, z);
  const std::uint64_t q = bits_of(shifted) + quadrant;
  return double_of(bits_of((q & 1) != 0 ? cos : sin) ^ ((q & 2) << 62));
}

[[gnu::always_inline]] inline double relative(double y, double bound, double u) {
  return y * (1.0 + bound * u);
}

}  // namespace special

// The bounds are those of the PTX ISA 9.0; "- x" is what rounding to the destination may add.

struct Exp2 {
  [[gnu::always_inline]] static double value(float x) { return special::exp2(special::limit(x, 300)); }
  static double noisy(double, double y, double u) {
    return special::relative(y, 0x1p-22 - 0x1p-24, u);
  }  // relative 2^-22
  static double noisy_f16(double y, double u) {
    return special::relative(y, 0x1.125p-10 - 0x1p-11, u);
  }  // relative 2^-9.9
  static double noisy_bf16(double y, double u) {
    return special::relative(y, 0x1p-7 - 0x1p-8, u);
  }  // relative 2^-7
};

struct Log2 {
  [[gnu::always_inline]] static double value(float operand) {
    const auto x = static_cast<double>(operand);
    static constexpr double kCoefficients[] = {0x1.71547652b8254p+1, 0x1.ec709dc53968fp-1,
                                               0x1.2776c295efaa2p-1, 0x1.a61a2d062b7ecp-2,
                                               0x1.479593b23c113p-2, 0x1.21adf517006acp-2};
    constexpr std::uint64_t root_half =
        0x3fe6a09e667f3bcdu;  // sqrt(1/2): the significand m is taken from [sqrt(1/2), sqrt(2))
    const std::uint64_t bits = bits_of(x);
    const std::uint64_t biased = (bits - root_half + (std::uint64_t(1024) << 52)) >> 52;
    const double exponent = double_of(0x4330000000000000u | biased) - (0x1p52 + 1024);
    const double m = double_of(bits - ((biased - 1024) << 52));
    const double s = (m - 1) / (m + 1);
    const double y = __builtin_fma(s, special::polynomial(kCoefficients, s * s), exponent);
    const double of_zero = x == 0 ? -HUGE_VAL : static_cast<double>(float_of(kCanonicalNan));
    const double positive = x < HUGE_VAL ? y : x;
    return x > 0 ? positive : of_zero;
  }
  static double noisy(double x, double y, double u) {  // absolute 2^-22 in (0.5, 2), relative 2^-22 elsewhere
    return x > 0.5 && x < 2 ? y + (0x1p-22 - 0x1p-24) * u : special::relative(y, 0x1p-22 - 0x1p-24, u);
  }
};

struct Sine {
  static constexpr double limit =
      0x1p20;  // beyond, the two-part reduction is not exact enough: the host's function
  [[gnu::always_inline]] static double value(float x) { return special::sine(static_cast<double>(x), 0); }
  static double beyond(double x) { return std::sin(x); }
  static double noisy(double, double y, double u) {
    return y + (0x1.6a09p-21 - 0x1p-24) * u;
  }  // absolute 2^-20.5 in [-2 pi, 2 pi]
};
struct Cosine {
  static constexpr double limit = Sine::limit;
  [[gnu::always_inline]] static double value(float x) { return special::sine(static_cast<double>(x), 1); }
  static double beyond(double x) { return std::cos(x); }
  static double noisy(double x, double y, double u) { return Sine::noisy(x, y, u); }
};

struct Tanh {
  [[gnu::always_inline]] static double value(float operand) {
    const double x = special::limit(operand, 20), z = x * x;
    const double near_zero =
        x * (1 + z * (-1.0 / 3 + z * (2.0 / 15 + z * (-17.0 / 315 + z * (62.0 / 2835)))));
    const double e = special::exp2(x * 0x1.71547652b82fep1);  // e^(2x)
    const double far = 1 - 2 / (e + 1);
    return z < 0x1p-6 ? near_zero : far;
  }
  static double noisy(double, double y, double u) {
    return std::fmin(std::fmax(special::relative(y, 0x1p-11 - 0x1p-24, u), -1), 1);
  }  // relative 2^-11
  static double noisy_f16(double y, double u) {
    return std::fmin(std::fmax(y + (0x1.024p-11 - 0x1p-12) * u, -1), 1);
  }                                                         // absolute 2^-10.987
  static double noisy_bf16(double y, double) { return y; }  // relative 2^-8: rounding uses it up
};

struct Reciprocal {
  template <class T>
  [[gnu::always_inline]] static double value(T x) {
    return 1 / static_cast<double>(x);
  }
  [[gnu::always_inline]] static float quick(float x) { return 1 / x; }
  static double noisy(double, double y, double u) {
    return special::relative(y, 0x1p-25, u);
  }  // 1 ulp, of which rounding takes a half
};
struct Root {
  template <class T>
  [[gnu::always_inline]] static double value(T x) {
    return __builtin_sqrt(static_cast<double>(x));
  }
  [[gnu::always_inline]] static float quick(float x) { return __builtin_sqrtf(x); }
  static double noisy(double, double y, double u) {
    return special::relative(y, 0x1p-23 - 0x1p-24, u);
  }  // relative 2^-23
};
struct ReciprocalRoot {
  template <class T>
  [[gnu::always_inline]] static double value(T x) {
    return 1 / __builtin_sqrt(static_cast<double>(x));
  }
  static double noisy(double, double y, double u) {
    return special::relative(y, 0x1.125p-23 - 0x1p-24, u);
  }  // relative 2^-22.9
};

/// y, or the canonical NaN if x or y is NaN: in integers, which gcc turns into fewer instructions than two
/// comparisons of floats.
[[gnu::always_inline]] inline float unless_nan(float x, float y) {
  const std::uint32_t a = bits_of(x) & 0x7fffffffu, b = bits_of(y) & 0x7fffffffu, larger = a > b ? a : b;
  return float_of(larger > 0x7f800000u ? kCanonicalNan : bits_of(y));
}

/// Noise in [-1, 1], a function of the bits of the operand and the seed alone: two runs agree, and so do two
/// lanes with the same operand.
inline double noise_of(std::uint64_t bits, std::uint64_t seed) {
  std::uint64_t h = bits + seed * 0x9e3779b97f4a7c15u;  // SplitMix64
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  h ^= h >> 31;
  return (double_of(0x3ff0000000000000u | (h >> 12)) - 1.5) * 2;
}

}  // namespace emulator
