#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

/// Arithmetic that never rounds, for reference values: sums and products of doubles as integers of 4480 bits,
/// rounded once at the end by counting bits. Shares nothing with the emulator's arithmetic.
namespace emulator::exact {

// -Wpedantic does not know the type by its other name.
__extension__ typedef unsigned __int128 Wide;

enum class Mode { nearest, zero, down, up, away };

/// A binary format: sign, `exponent_bits`, `fraction_bits`. Without infinities (e4m3) the largest number is
/// `largest`.
struct Format {
  int exponent_bits, fraction_bits;
  bool infinite = true;
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  std::uint64_t sign() const { return std::uint64_t(1) << (exponent_bits + fraction_bits); }
  std::uint64_t infinity() const { return ((std::uint64_t(1) << exponent_bits) - 1) << fraction_bits; }
  std::uint64_t nan() const { return sign() - 1; }
  std::uint64_t largest() const { return infinite ? infinity() - 1 : nan() - 1; }
  int smallest_exponent() const { return 1 - bias() - fraction_bits; }  // of the least subnormal
  bool is_nan(std::uint64_t bits) const {
    return infinite ? (bits & (sign() - 1)) > infinity() : (bits & (sign() - 1)) == nan();
  }
  bool is_subnormal(std::uint64_t bits) const {
    return (bits & infinity()) == 0 && (bits & (sign() - 1)) != 0;
  }
  std::uint64_t flushed(std::uint64_t bits) const { return is_subnormal(bits) ? bits & sign() : bits; }
};
inline constexpr Format kF64{11, 52}, kF32{8, 23}, kF16{5, 10}, kBf16{8, 7}, kTf32{8, 10}, kE4m3{4, 3, false},
    kE5m2{5, 2};

/// The value of a bit pattern, from the definition of the formats.
inline double decode(Format f, std::uint64_t bits) {
  const double sign = (bits & f.sign()) != 0 ? -1 : 1;
  if (f.is_nan(bits)) return std::numeric_limits<double>::quiet_NaN();
  const auto exponent = static_cast<int>((bits & f.infinity()) >> f.fraction_bits);
  const auto fraction = static_cast<double>(bits & ((std::uint64_t(1) << f.fraction_bits) - 1));
  if (f.infinite && exponent == (1 << f.exponent_bits) - 1) return sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, f.smallest_exponent());
  return sign * std::ldexp(fraction + std::ldexp(1.0, f.fraction_bits), exponent - 1 + f.smallest_exponent());
}

/// A number m * 2^e with an integer m.
struct Scaled {
  bool negative;
  Wide m;
  int e;
};
inline Scaled scaled(double x) {  // finite
  int e = 0;
  const double fraction = std::frexp(std::fabs(x), &e);
  return {std::signbit(x), static_cast<Wide>(std::ldexp(fraction, 53)), e - 53};
}

class Number {
 public:
  Number() = default;
  explicit Number(Scaled s) : negative(s.negative) {
    const int shift = s.e + kPoint, word = shift / 64, bit = shift % 64;
    const auto low = static_cast<std::uint64_t>(s.m), high = static_cast<std::uint64_t>(s.m >> 64);
    words[static_cast<std::size_t>(word)] = low << bit;
    words[static_cast<std::size_t>(word) + 1] = (high << bit) | (bit != 0 ? low >> (64 - bit) : 0);
    words[static_cast<std::size_t>(word) + 2] = bit != 0 ? high >> (64 - bit) : 0;
  }
  explicit Number(double x) : Number(scaled(x)) {}

  bool zero() const {
    for (const std::uint64_t w : words)
      if (w != 0) return false;
    return true;
  }

  friend Number operator+(const Number& a, const Number& b) {
    if (a.negative == b.negative) return add(a, b);
    return smaller(a, b) ? subtract(b, a) : subtract(a, b);
  }

  /// Rounded to the format; an exact zero has this object's sign.
  std::uint64_t round(Format f, Mode mode) const {
    const std::uint64_t sign = negative ? f.sign() : 0;
    const int top = top_bit();
    if (top < 0) return sign;
    const int least = f.smallest_exponent() + kPoint;
    const int quantum = top - f.fraction_bits > least ? top - f.fraction_bits : least;
    std::uint64_t q = 0;
    for (int i = top; i >= quantum; --i) q = q << 1 | bit(i);
    const bool half = bit(quantum - 1) != 0, rest = any_below(quantum - 1);
    const bool up = mode == Mode::nearest ? half && (rest || (q & 1) != 0)
                    : mode == Mode::away  ? half
                    : mode == Mode::zero  ? false
                                          : (half || rest) && (mode == Mode::up) != negative;
    const std::uint64_t bits = (static_cast<std::uint64_t>(quantum - least) << f.fraction_bits) + q + up;
    if (bits <= f.largest()) return sign | bits;
    const bool to_infinity =
        mode == Mode::nearest || mode == Mode::away || (mode != Mode::zero && (mode == Mode::up) != negative);
    return sign | (to_infinity && f.infinite ? f.infinity() : f.largest());
  }

  bool negative = false;

 private:
  static constexpr int kWords = 70, kPoint = 2300;  // bit kPoint has weight 1

  static bool smaller(const Number& a, const Number& b) {
    for (std::size_t i = kWords; i-- > 0;)
      if (a.words[i] != b.words[i]) return a.words[i] < b.words[i];
    return false;
  }
  static Number add(const Number& a, const Number& b) {
    Number sum;
    sum.negative = a.negative;
    Wide carry = 0;
    for (std::size_t i = 0; i < kWords; ++i) {
      carry += static_cast<Wide>(a.words[i]) + b.words[i];
      sum.words[i] = static_cast<std::uint64_t>(carry);
      carry >>= 64;
    }
    return sum;
  }
  static Number subtract(const Number& a, const Number& b) {  // |a| >= |b|
    Number difference;
    difference.negative = a.negative;
    std::uint64_t borrow = 0;
    for (std::size_t i = 0; i < kWords; ++i) {
      difference.words[i] = a.words[i] - b.words[i] - borrow;
      borrow = a.words[i] < b.words[i] || (a.words[i] == b.words[i] && borrow != 0);
    }
    return difference;
  }
  std::uint64_t bit(int i) const {
    return i < 0 ? 0 : words[static_cast<std::size_t>(i / 64)] >> (i % 64) & 1;
  }
  int top_bit() const {
    for (int w = kWords - 1; w >= 0; --w)
      if (const std::uint64_t word = words[static_cast<std::size_t>(w)]; word != 0)
        return 64 * w + 63 - std::countl_zero(word);
    return -1;
  }
  bool any_below(int end) const {
    for (int w = 0; w < end / 64; ++w)
      if (words[static_cast<std::size_t>(w)] != 0) return true;
    return end > 0 && end % 64 != 0 &&
           (words[static_cast<std::size_t>(end / 64)] & ((std::uint64_t(1) << (end % 64)) - 1)) != 0;
  }

  std::array<std::uint64_t, kWords> words{};
};

inline Number product(double a, double b) {
  const Scaled x = scaled(a), y = scaled(b);
  return Number(Scaled{x.negative != y.negative, x.m * y.m, x.e + y.e});
}

/// To 74 bits and a sticky one.
inline Number quotient(double a, double b) {
  const Scaled x = scaled(a), y = scaled(b);
  const Wide dividend = x.m << 74;
  return Number(
      Scaled{x.negative != y.negative, (dividend / y.m) << 1 | (dividend % y.m != 0), x.e - y.e - 75});
}

/// Of a positive number, to 62 bits and a sticky one.
inline Number root(double a) {
  Scaled x = scaled(a);
  x.m <<= 71 + (x.e % 2 == 0);
  x.e -= 71 + (x.e % 2 == 0);
  Wide r = 0;
  for (Wide bit = static_cast<Wide>(1) << 63; bit != 0; bit >>= 1)
    if ((r | bit) * (r | bit) <= x.m) r |= bit;
  return Number(Scaled{false, r << 1 | (r * r != x.m), x.e / 2 - 1});
}

inline std::uint64_t special_bits(Format f, double x) {
  return std::isnan(x) ? f.nan() : f.infinity() | (std::signbit(x) ? f.sign() : 0);
}

/// a * b + c, rounded once, as IEEE 754 says.
inline std::uint64_t fma(Format f, double a, double b, double c, Mode mode) {
  if (!std::isfinite(a) || !std::isfinite(b)) return special_bits(f, a * b + c);
  if (!std::isfinite(c)) return special_bits(f, c);
  const Number p = product(a, b), addend(c);
  Number sum = p + addend;
  if (sum.zero()) sum.negative = p.negative == addend.negative ? p.negative : mode == Mode::down;
  return sum.round(f, mode);
}

inline std::uint64_t add(Format f, double a, double b, Mode mode) { return fma(f, a, 1, b, mode); }

inline std::uint64_t multiply(Format f, double a, double b, Mode mode) {
  if (std::isfinite(a) && std::isfinite(b)) return product(a, b).round(f, mode);
  return special_bits(f, a * b);
}

inline std::uint64_t divide(Format f, double a, double b, Mode mode) {
  const std::uint64_t sign = std::signbit(a) != std::signbit(b) ? f.sign() : 0;
  if (std::isnan(a) || std::isnan(b) || (std::isinf(a) && std::isinf(b)) || (a == 0 && b == 0))
    return f.nan();
  if (std::isinf(a) || b == 0) return sign | f.infinity();
  if (std::isinf(b) || a == 0) return sign;
  return quotient(a, b).round(f, mode);
}

inline std::uint64_t square_root(Format f, double a, Mode mode) {
  if (std::isnan(a) || a < 0) return f.nan();
  if (a == 0 || std::isinf(a)) return (std::signbit(a) ? f.sign() : 0) | (a == 0 ? 0 : f.infinity());
  return root(a).round(f, mode);
}

/// x rounded to the format.
inline std::uint64_t encode(Format f, double x, Mode mode) {
  if (std::isnan(x)) return f.nan();
  if (std::isinf(x)) return (f.infinite ? f.infinity() : f.largest()) | (x < 0 ? f.sign() : 0);
  return Number(x).round(f, mode);
}
/// An integer rounded to the format.
inline std::uint64_t encode_integer(Format f, bool negative, std::uint64_t magnitude, Mode mode) {
  return Number(Scaled{negative && magnitude != 0, magnitude, 0}).round(f, mode);
}

}  // namespace emulator::exact
