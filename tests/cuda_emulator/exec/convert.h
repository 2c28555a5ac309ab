#pragma once

#include <bit>

#include "exec/decoder.h"
#include "exec/float_math.h"

/// Plain cvt, shared by the common forms (exec/ops_convert.cpp) and the general way (exec/convert.cpp).
namespace emulator {

inline bool is_float(ptx::Type type) {
  return type == ptx::Type::f16 || type == ptx::Type::bf16 || type == ptx::Type::f32 ||
         type == ptx::Type::f64;
}
inline bool is_signed(ptx::Type type) {
  return type == ptx::Type::s8 || type == ptx::Type::s16 || type == ptx::Type::s32 || type == ptx::Type::s64;
}
inline bool is_integer(ptx::Type type) {
  return is_signed(type) || type == ptx::Type::u8 || type == ptx::Type::u16 || type == ptx::Type::u32 ||
         type == ptx::Type::u64;
}
inline int bits_of_type(ptx::Type type) { return 8 * ptx::bytes_of(type); }

/// What Ins::imm of a cvt holds. Registers may be wider than the types.
struct Conversion {
  enum Flags : std::uint8_t { kFtz = 1, kSat = 2, kRelu = 4, kSatfinite = 8, kIntegral = 16 };
  ptx::Type to, from;
  std::uint8_t to_register, from_register;  // bytes
  Rounding rounding;
  std::uint8_t flags;
  std::uint8_t unused[2];

  bool has(Flags flag) const { return (flags & flag) != 0; }
};
static_assert(sizeof(Conversion) == 8);

/// The integers that a type holds.
struct Range {
  std::int64_t low;
  std::uint64_t high;
};
inline Range range_of(ptx::Type type) {
  const int bits = bits_of_type(type);
  if (!is_signed(type)) return {0, ~std::uint64_t(0) >> (64 - bits)};
  const std::uint64_t high = ~std::uint64_t(0) >> (65 - bits);
  return {-static_cast<std::int64_t>(high) - 1, high};
}

/// x rounded to an integral number.
[[gnu::always_inline]] inline double to_integral(double x, Rounding rounding) {
  switch (rounding) {
    case Rounding::zero:
      return __builtin_trunc(x);
    case Rounding::down:
      return __builtin_floor(x);
    case Rounding::up:
      return __builtin_ceil(x);
    default:
      return __builtin_rint(x);
  }
}

/// For any conversion of Ins::imm.
Run general_conversion(const Conversion& conversion);

}  // namespace emulator
