#pragma once

#include "exec/float_math.h"

/// The narrow formats: 1 sign bit, E exponent bits, M fraction bits. All functions are branch-free loops' bodies.
namespace emulator {

/// f16: 5, 10; bf16: 8, 7; e5m2: 5, 2. With `infinite` false (e4m3) the highest exponent holds numbers and the only NaN is all ones.
template <int E, int M, bool infinite = true>
struct Narrow {
  static constexpr int exponent_bits = E, fraction_bits = M;
  static constexpr std::uint32_t bias = (1u << (E - 1)) - 1;
  static constexpr std::uint32_t sign = 1u << (E + M);
  static constexpr std::uint32_t infinity = ((1u << E) - 1) << M;      // magnitude bits
  static constexpr std::uint32_t nan = sign - 1;                       // canonical: 0x7fff of f16 and bf16, 0x7f of both 8-bit formats
  static constexpr std::uint32_t largest = infinite ? infinity - 1 : nan - 1;
  static constexpr std::uint32_t rebias = 127 - bias;

  /// The value, exactly. NaNs stay NaNs.
  static float widen(std::uint32_t bits) {
    const std::uint32_t magnitude = bits & (sign - 1);
    const std::uint32_t sign_bit = (bits & sign) << (31 - E - M);
    if constexpr (E == 8) return float_of(bits << 16);
    const std::uint32_t scaled = bits_of(float_of(magnitude << (23 - M)) * float_of((127 + rebias) << 23));
    const bool special = infinite ? magnitude >= infinity : magnitude == nan;
    return float_of((special ? (infinite ? scaled | 0x7f800000u : kCanonicalNan) : scaled) | sign_bit);
  }

  static constexpr float largest_float() {
    constexpr std::uint32_t bits = (largest << (23 - M)) + (rebias << 23);
    return std::bit_cast<float>(bits);
  }

  /// Rounds; too large is infinity or the largest number, as IEEE 754 says; NaN becomes the canonical one. Without infinities the caller clamps first.
  template <Rounding rounding>
  static std::uint32_t round(float x) {
    constexpr std::uint32_t cap = E == 8 ? 0x7f800000u : ((127 + bias + (infinite ? 0 : 1)) << 23) | 0x7fffffu;
    const std::uint32_t bits = bits_of(x);
    const bool negative = (bits >> 31) != 0;
    const std::uint32_t full = bits & 0x7fffffffu;
    const std::uint32_t m = full < cap ? full : cap;  // what is finite and too large rounds like the number just below the next power of two
    const int exponent = static_cast<int>(m >> 23);
    const bool normal = exponent > static_cast<int>(rebias);
    const int deficit = static_cast<int>(rebias) + 1 - (exponent > 1 ? exponent : 1);
    const int shift_wanted = 23 - M + (deficit > 0 ? deficit : 0);
    const int shift = shift_wanted < 31 ? shift_wanted : 31;
    const std::uint32_t significand = (m & 0x7fffffu) | (exponent > 0 ? 0x800000u : 0u);
    const std::uint32_t value = normal ? m - (rebias << 23) : significand;
    std::uint32_t add = 0;
    if constexpr (rounding == Rounding::nearest) add = (1u << (shift - 1)) - 1 + (value >> shift & 1u);
    if constexpr (rounding == Rounding::nearest_away) add = 1u << (shift - 1);
    if constexpr (rounding == Rounding::up) add = negative ? 0 : (1u << shift) - 1;
    if constexpr (rounding == Rounding::down) add = negative ? (1u << shift) - 1 : 0;
    const std::uint32_t magnitude = (value + add) >> shift;
    const std::uint32_t signed_bits = (full == 0x7f800000u ? infinity : magnitude) | (negative ? sign : 0u);
    return full > 0x7f800000u ? nan : signed_bits;
  }

  /// .ftz of f16.
  static std::uint32_t flush(std::uint32_t bits) { return (bits & infinity) == 0 ? bits & sign : bits; }
  static bool is_nan(std::uint32_t bits) { return (bits & (sign - 1)) > infinity; }
};

using F16 = Narrow<5, 10>;
using Bf16 = Narrow<8, 7>;
using E5m2 = Narrow<5, 2>;
using E4m3 = Narrow<4, 3, false>;

/// .relu: negative numbers and zeros become +0; NaN stays.
inline float relu(float x) { return x <= 0.0f ? 0.0f : x; }

/// .satfinite: beyond the largest number of the format is that number; NaN stays.
template <class Format>
inline float saturate_finite(float x) {
  constexpr float largest = Format::largest_float();
  const float below = x > largest ? largest : x;
  return below < -largest ? -largest : below;
}

}  // namespace emulator
