#pragma once

#include <type_traits>

#include "exec/float_math.h"

/// The narrow formats: 1 sign bit, E exponent bits, M fraction bits. All functions are branch-free loops'
/// bodies.
namespace emulator {

/// f16: 5, 10; bf16: 8, 7; e5m2: 5, 2. With `infinite` false (e4m3) the highest exponent holds numbers and
/// the only NaN is all ones.
template <int E, int M, bool infinite = true>
struct Narrow {
  static constexpr int exponent_bits = E, fraction_bits = M;
  static constexpr std::uint32_t bias = (1u << (E - 1)) - 1;
  static constexpr std::uint32_t sign = 1u << (E + M);
  static constexpr std::uint32_t infinity = ((1u << E) - 1) << M;  // magnitude bits
  static constexpr std::uint32_t nan =
      sign - 1;  // canonical: 0x7fff of f16 and bf16, 0x7f of both 8-bit formats
  static constexpr std::uint32_t largest = infinite ? infinity - 1 : nan - 1;
  static constexpr std::uint32_t rebias = 127 - bias;

  /// The value, exactly. NaNs stay NaNs.
  [[gnu::always_inline]] static float widen(std::uint32_t bits) {
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

  /// Rounds a float or double; too large is infinity or the largest number, as IEEE 754 says; NaN becomes the
  /// canonical one. Without infinities the caller clamps first.
  template <Rounding rounding, class T>
  [[gnu::always_inline]] static std::uint32_t round(T x) {
    using U = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
    using I = std::make_signed_t<U>;
    constexpr int width = 8 * sizeof(U), fraction = sizeof(T) == 8 ? 52 : 23;
    constexpr U one = 1, sign_bit = one << (width - 1),
                source_infinity = (sign_bit - 1) >> fraction << fraction;
    constexpr U source_bias = source_infinity >> (fraction + 1), rebias_here = source_bias - bias;
    // What is finite and too large rounds like the number just below the next power of two.
    constexpr U cap = rebias_here == 0
                          ? source_infinity
                          : (source_bias + bias + (infinite ? 0 : 1)) << fraction | ((one << fraction) - 1);
    const U bits = std::bit_cast<U>(x);
    const U negative = bits >> (width - 1);
    const U full = bits & ~sign_bit;
    const U m = full < cap ? full : cap;
    const I exponent = static_cast<I>(m >> fraction);
    const bool normal = exponent > static_cast<I>(rebias_here);
    const I deficit = static_cast<I>(rebias_here) + 1 - (exponent > 1 ? exponent : 1);
    const I shift_wanted = fraction - M + (deficit > 0 ? deficit : 0);
    const U shift = static_cast<U>(shift_wanted < width - 2 ? shift_wanted : width - 2);
    const U significand = (m & ((one << fraction) - 1)) | (exponent > 0 ? one << fraction : 0);
    const U value = normal ? m - (rebias_here << fraction) : significand;
    // In numbers rather than bools, and without shifting a constant or by a difference: gcc 12 would not
    // vectorise that for 64 bits.
    const U doubled = value << 1, halves = doubled >> shift;
    const U half = halves & 1, odd = halves >> 1 & 1, rest = (halves << shift) != doubled ? 1 : 0;
    U more = 0;
    if constexpr (rounding == Rounding::nearest) more = half & (rest | odd);
    if constexpr (rounding == Rounding::up) more = (half | rest) & (negative ^ 1);
    if constexpr (rounding == Rounding::down) more = (half | rest) & negative;
    const U magnitude = (halves >> 1) + more;
    const U signed_bits = (full == source_infinity ? infinity : magnitude) | negative << (E + M);
    return static_cast<std::uint32_t>(full > source_infinity ? nan : signed_bits);
  }

  /// .ftz of f16.
  [[gnu::always_inline]] static std::uint32_t flush(std::uint32_t bits) {
    return bits & ((bits & infinity) == 0 ? sign : ~0u);
  }
  [[gnu::always_inline]] static bool is_nan(std::uint32_t bits) { return (bits & (sign - 1)) > infinity; }
};

using F16 = Narrow<5, 10>;
using Bf16 = Narrow<8, 7>;
using E5m2 = Narrow<5, 2>;
using E4m3 = Narrow<4, 3, false>;

/// .relu: negative numbers and zeros become +0; NaN stays.
template <class T>
[[gnu::always_inline]] inline T relu(T x) {
  return x <= 0 ? 0 : x;
}

/// .satfinite: beyond the largest number of the format is that number; NaN stays.
template <class Format, class T>
[[gnu::always_inline]] inline T saturate_finite(T x) {
  constexpr T largest = static_cast<T>(Format::largest_float());
  const T below = x > largest ? largest : x;
  return below < -largest ? -largest : below;
}

}  // namespace emulator
