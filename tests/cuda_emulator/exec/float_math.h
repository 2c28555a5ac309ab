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

/// The NaN that single precision instructions return, whatever the NaN that went in (PTX ISA, "Floating Point Instructions").
inline constexpr std::uint32_t kCanonicalNan = 0x7fffffffu;

inline std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
inline std::uint64_t bits_of(double x) { return std::bit_cast<std::uint64_t>(x); }
inline float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline double double_of(std::uint64_t bits) { return std::bit_cast<double>(bits); }

inline float canonical(float x) { return x == x ? x : float_of(kCanonicalNan); }

/// .ftz: a subnormal becomes a zero of its sign.
inline float flush(float x) {
  const std::uint32_t bits = bits_of(x);
  return float_of((bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits);
}
template <bool ftz>
inline float flush_if(float x) {
  if constexpr (ftz) return flush(x);
  return x;
}

/// .sat: [0, 1]; NaN and both zeros become +0.
template <class T>
inline T saturate(T x) {
  const T positive = x > T(0) ? x : T(0);
  return positive < T(1) ? positive : T(1);
}

enum class Rounding : std::uint8_t { nearest, zero, down, up, nearest_away };

/// The processor rounds in another mode during the life of this object. What is to be rounded must happen in a function that the compiler cannot look into
/// (see rounded()), for it takes arithmetic to be independent of the mode.
class RoundingScope {
 public:
  explicit RoundingScope(Rounding rounding) {
#if defined(__SSE2__)
    static constexpr unsigned modes[] = {_MM_ROUND_NEAREST, _MM_ROUND_TOWARD_ZERO, _MM_ROUND_DOWN, _MM_ROUND_UP};
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

/// Rounds the sum of s and e, where s is that sum rounded to double, to a float with an odd last bit if it is inexact. Rounding the float again to at most 22
/// bits gives what rounding the exact sum once would have given (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
inline float round_to_odd(double s, double e) {
  const float r = static_cast<float>(s);
  const double back = static_cast<double>(r);
  const bool finite = (bits_of(s) & 0x7ff0000000000000u) != 0x7ff0000000000000u;
  const bool too_small = s > back || (s == back && e > 0);
  const bool too_big = s < back || (s == back && e < 0);
  const std::uint32_t bits = bits_of(r);
  const bool positive = (bits & 0x80000000u) == 0;
  const bool even = (bits & 1u) == 0;
  const std::uint32_t step = (too_small == positive) ? 1u : ~0u;
  return float_of(finite && even && (too_small || too_big) ? bits + step : bits);
}

/// The error of s = a + b rounded to nearest, exactly (Knuth's TwoSum).
inline double sum_error(double a, double b, double s) {
  const double b_part = s - a;
  return (a - (s - b_part)) + (b - b_part);
}

}  // namespace emulator
