#pragma once

#include <bit>
#include <cfenv>
#include <cstdint>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "exec/machine.h"

/// Bits, flushing, canonical NaNs and directed rounding for the floating-point instructions.
namespace emulator {

/// The NaN that single precision instructions return, whatever the NaN that went in (PTX ISA, "Floating Point
/// Instructions").
inline constexpr std::uint32_t kCanonicalNan = 0x7fffffffu;

[[gnu::always_inline]] inline std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
[[gnu::always_inline]] inline std::uint64_t bits_of(double x) { return std::bit_cast<std::uint64_t>(x); }
[[gnu::always_inline]] inline float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }
[[gnu::always_inline]] inline double double_of(std::uint64_t bits) { return std::bit_cast<double>(bits); }

// Inlined early and always: the vectoriser sees loops before the inliner is done with larger functions.

[[gnu::always_inline]] inline float canonical(float x) { return x == x ? x : float_of(kCanonicalNan); }

/// .ftz: a subnormal becomes a zero of its sign.
[[gnu::always_inline]] inline float flush(float x) {
  const std::uint32_t bits = bits_of(x);
  return float_of(bits & ((bits & 0x7f800000u) == 0 ? 0x80000000u : ~0u));
}
template <bool ftz>
[[gnu::always_inline]] inline float flush_if(float x) {
  if constexpr (ftz) return flush(x);
  return x;
}

/// .sat: [0, 1]; NaN and both zeros become +0.
template <class T>
[[gnu::always_inline]] inline T saturate(T x) {
  const T positive = x > T(0) ? x : T(0);
  return positive < T(1) ? positive : T(1);
}

enum class Rounding : std::uint8_t { nearest, zero, down, up, nearest_away };

/// The processor rounds in another mode during the life of this object. What is to be rounded must happen in
/// a function that the compiler cannot look into (see rounded()), for it takes arithmetic to be independent
/// of the mode.
class RoundingScope {
 public:
  explicit RoundingScope(Rounding rounding) {
#if defined(__SSE2__)
    static constexpr unsigned modes[] = {_MM_ROUND_NEAREST, _MM_ROUND_TOWARD_ZERO, _MM_ROUND_DOWN,
                                         _MM_ROUND_UP};
    saved_ = _mm_getcsr();
    _mm_setcsr((saved_ & ~static_cast<unsigned>(_MM_ROUND_MASK)) | modes[static_cast<int>(rounding)]);
#else
    static constexpr int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    saved_ = static_cast<unsigned>(std::fegetround());
    std::fesetround(modes[static_cast<int>(rounding)]);
#endif
  }
  ~RoundingScope() {
#if defined(__SSE2__)
    _mm_setcsr(saved_);
#else
    std::fesetround(static_cast<int>(saved_));
#endif
  }
  RoundingScope(const RoundingScope&) = delete;
  RoundingScope& operator=(const RoundingScope&) = delete;

 private:
  unsigned saved_;
};

/// Runs `plain` in the rounding mode Ins::aux2.
template <Run plain>
void rounded(Warp& warp, const Ins& ins, Mask active) {
  const Run volatile opaque = plain;
  const RoundingScope scope(static_cast<Rounding>(ins.aux2));
  opaque(warp, ins, active);
}

/// The sum of s and e, where s is that sum rounded to double, as a double whose last bit is set if it is
/// inexact. Rounding it to at most 51 bits gives what rounding the exact sum once would have given (Boldo and
/// Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
[[gnu::always_inline]] inline double round_to_odd(double s, double e) {
  const std::uint64_t bits = bits_of(s);
  const bool inexact = (e > 0) | (e < 0);  // NaN, of a sum that is infinite, counts as exact
  const bool too_far = (e > 0) != (s > 0);
  return double_of(inexact ? (bits - (too_far ? 1 : 0)) | 1 : bits);
}

/// The error of s = a + b rounded to nearest, exactly (Knuth's TwoSum).
[[gnu::always_inline]] inline double sum_error(double a, double b, double s) {
  const double b_part = s - a;
  return (a - (s - b_part)) + (b - b_part);
}

}  // namespace emulator
