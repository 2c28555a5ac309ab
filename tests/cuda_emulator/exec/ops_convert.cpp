#include <algorithm>

#include "exec/arithmetic.h"
#include "exec/decoder.h"
#include "exec/half_math.h"
#include "exec/lanes.h"

/// cvt between scalars. The common forms are single loops; all others go through 64-bit integers or doubles, which hold every value of every type but f64's
/// neighbours of 64-bit integers (handled where they occur).
namespace emulator {
namespace {

using ptx::Type;

bool is_float(Type type) { return type == Type::f16 || type == Type::bf16 || type == Type::f32 || type == Type::f64; }
bool is_signed(Type type) { return type == Type::s8 || type == Type::s16 || type == Type::s32 || type == Type::s64; }
bool is_integer(Type type) {
  return is_signed(type) || type == Type::u8 || type == Type::u16 || type == Type::u32 || type == Type::u64;
}
int bits_of_type(Type type) { return 8 * ptx::bytes_of(type); }

enum Flags : std::uint8_t { kFtz = 1, kSat = 2, kRelu = 4, kSatfinite = 8, kIntegral = 16 };

/// What Ins::imm holds. Registers may be wider than the types.
struct Conversion {
  Type to, from;
  std::uint8_t to_register, from_register;  // bytes
  Rounding rounding;
  std::uint8_t flags;
  std::uint8_t unused[2];
};
static_assert(sizeof(Conversion) == 8);

Conversion conversion_of(const Ins& ins) { return std::bit_cast<Conversion>(ins.imm); }

// ---- registers ----

template <class T>
void widen(const T* from, std::uint64_t* to) {
  for (int lane = 0; lane < kLanes; ++lane) to[lane] = from[lane];
}

void read_register(Warp& warp, Slot slot, int bytes, std::uint64_t* raw) {
  if (bytes == 2) widen(warp.lanes<std::uint16_t>(slot), raw);
  else if (bytes == 4) widen(warp.lanes<std::uint32_t>(slot), raw);
  else widen(warp.lanes<std::uint64_t>(slot), raw);
}

void write_register(Warp& warp, Slot slot, int bytes, Mask active, const std::uint64_t* raw) {
  if (bytes == 2) map_lanes(active, warp.lanes<std::uint16_t>(slot), [](std::uint64_t x) { return static_cast<std::uint16_t>(x); }, raw);
  else if (bytes == 4) map_lanes(active, warp.lanes<std::uint32_t>(slot), [](std::uint64_t x) { return static_cast<std::uint32_t>(x); }, raw);
  else map_lanes(active, warp.lanes<std::uint64_t>(slot), [](std::uint64_t x) { return x; }, raw);
}

/// Keeps the bits of the type and extends them as the type says.
void extend(Type type, std::uint64_t* values) {
  const int unused = 64 - bits_of_type(type);
  if (is_signed(type)) {
    for (int lane = 0; lane < kLanes; ++lane)
      values[lane] = static_cast<std::uint64_t>(static_cast<std::int64_t>(values[lane] << unused) >> unused);
  } else {
    for (int lane = 0; lane < kLanes; ++lane) values[lane] = values[lane] << unused >> unused;
  }
}

void read_integers(Warp& warp, const Ins& ins, const Conversion& c, std::uint64_t* values) {
  read_register(warp, ins.a, c.from_register, values);
  extend(c.from, values);
}

void write_integers(Warp& warp, const Ins& ins, const Conversion& c, Mask active, std::uint64_t* values) {
  extend(c.to, values);
  write_register(warp, ins.d, c.to_register, active, values);
}

void read_floats(Warp& warp, const Ins& ins, const Conversion& c, double* values) {
  std::uint64_t raw[kLanes];
  read_register(warp, ins.a, c.from_register, raw);
  const bool ftz = (c.flags & kFtz) != 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto low = static_cast<std::uint32_t>(raw[lane]);
    switch (c.from) {
      case Type::f16: values[lane] = static_cast<double>(F16::widen(low & 0xffffu)); break;
      case Type::bf16: values[lane] = static_cast<double>(Bf16::widen(low & 0xffffu)); break;
      case Type::f32: values[lane] = static_cast<double>(ftz ? flush(float_of(low)) : float_of(low)); break;
      default: values[lane] = double_of(raw[lane]);
    }
  }
}

template <Rounding rounding>
std::uint64_t narrow(Type type, double x) {
  const float odd = round_to_odd(x, 0);
  return type == Type::f16 ? F16::round<rounding>(odd) : Bf16::round<rounding>(odd);
}

std::uint64_t narrow(Type type, double x, Rounding rounding) {
  switch (rounding) {
    case Rounding::zero: return narrow<Rounding::zero>(type, x);
    case Rounding::down: return narrow<Rounding::down>(type, x);
    case Rounding::up: return narrow<Rounding::up>(type, x);
    default: return narrow<Rounding::nearest>(type, x);
  }
}

/// Destination f64 or f32: rounds in the processor's mode.
void write_wide_floats(Warp& warp, const Ins& ins, const Conversion& c, Mask active, const double* values) {
  std::uint64_t raw[kLanes];
  const bool ftz = (c.flags & kFtz) != 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const float x = canonical(static_cast<float>(values[lane]));
    raw[lane] = c.to == Type::f64 ? bits_of(values[lane]) : bits_of(ftz ? flush(x) : x);
  }
  write_register(warp, ins.d, c.to_register, active, raw);
}

/// Destination f16 or bf16: rounds in c.rounding; the processor's mode must be to nearest.
void write_narrow_floats(Warp& warp, const Ins& ins, const Conversion& c, Mask active, const double* values) {
  std::uint64_t raw[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) raw[lane] = narrow(c.to, values[lane], c.rounding);
  write_register(warp, ins.d, c.to_register, active, raw);
}

// ---- the four kinds ----

struct Range {
  std::int64_t low;
  std::uint64_t high;
};
Range range_of(Type type) {
  const int bits = bits_of_type(type);
  if (!is_signed(type)) return {0, ~std::uint64_t(0) >> (64 - bits)};
  const std::uint64_t high = ~std::uint64_t(0) >> (65 - bits);
  return {-static_cast<std::int64_t>(high) - 1, high};
}

void integer_to_integer(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  std::uint64_t values[kLanes];
  read_integers(warp, ins, c, values);
  if ((c.flags & kSat) != 0) {
    const Range range = range_of(c.to);
    const bool from_signed = is_signed(c.from);
    for (std::uint64_t& value : values) {
      if (from_signed && static_cast<std::int64_t>(value) < 0) {
        if (static_cast<std::int64_t>(value) < range.low) value = static_cast<std::uint64_t>(range.low);
      } else if (value > range.high) {
        value = range.high;
      }
    }
  }
  write_integers(warp, ins, c, active, values);
}

/// To f32 and f64, in the processor's rounding mode.
void integer_to_wide_float(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  std::uint64_t values[kLanes], raw[kLanes];
  read_integers(warp, ins, c, values);
  const bool from_signed = is_signed(c.from), sat = (c.flags & kSat) != 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto signed_value = static_cast<std::int64_t>(values[lane]);
    if (c.to == Type::f64) {
      const double x = from_signed ? static_cast<double>(signed_value) : static_cast<double>(values[lane]);
      raw[lane] = bits_of(sat ? saturate(x) : x);
    } else {
      const float x = from_signed ? static_cast<float>(signed_value) : static_cast<float>(values[lane]);
      raw[lane] = bits_of(sat ? saturate(x) : x);
    }
  }
  write_register(warp, ins.d, c.to_register, active, raw);
}

/// The integer as a double with 53 bits, of which the last says whether lower bits were lost: enough for rounding to f16 and bf16 once.
double sticky_double(std::uint64_t value, bool is_signed_value) {
  const bool negative = is_signed_value && static_cast<std::int64_t>(value) < 0;
  const std::uint64_t magnitude = negative ? 0 - value : value;
  const std::uint64_t lost = magnitude & 0xfffu;
  const std::uint64_t kept = magnitude >> 53 == 0 ? magnitude : (magnitude - lost) | (lost != 0 ? 0x800u : 0u);
  const auto x = static_cast<double>(kept);
  return negative ? -x : x;
}

void integer_to_narrow_float(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  std::uint64_t values[kLanes];
  double wide[kLanes];
  read_integers(warp, ins, c, values);
  for (int lane = 0; lane < kLanes; ++lane) wide[lane] = sticky_double(values[lane], is_signed(c.from));
  if ((c.flags & kSat) != 0)
    for (double& x : wide) x = saturate(x);
  write_narrow_floats(warp, ins, c, active, wide);
}

double to_integral(double x, Rounding rounding) {
  switch (rounding) {
    case Rounding::zero: return __builtin_trunc(x);
    case Rounding::down: return __builtin_floor(x);
    case Rounding::up: return __builtin_ceil(x);
    default: return __builtin_rint(x);
  }
}

/// The nearest number of the type to an integral x. NaN: 0, but 1 << (bits - 1) if the source is f64 or the destination has 64 bits (PTX ISA, cvt).
std::uint64_t clamp_to(const Conversion& c, double x) {
  if (x != x) return c.from == Type::f64 || bits_of_type(c.to) == 64 ? std::uint64_t(1) << (bits_of_type(c.to) - 1) : 0;
  const Range range = range_of(c.to);
  if (x <= static_cast<double>(range.low)) return static_cast<std::uint64_t>(range.low);
  // As a double, the highest 64-bit integers are the next power of two, which is out of range like everything above it.
  if (x >= static_cast<double>(range.high)) return range.high;
  return x < 0 ? static_cast<std::uint64_t>(static_cast<std::int64_t>(x)) : static_cast<std::uint64_t>(x);
}

void float_to_integer(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  double values[kLanes];
  std::uint64_t integers[kLanes];
  read_floats(warp, ins, c, values);
  for (int lane = 0; lane < kLanes; ++lane) integers[lane] = clamp_to(c, to_integral(values[lane], c.rounding));
  write_integers(warp, ins, c, active, integers);
}

void prepare(const Conversion& c, double* values) {
  for (int lane = 0; lane < kLanes; ++lane) {
    double x = values[lane];
    if ((c.flags & kIntegral) != 0) x = to_integral(x, c.rounding);
    if ((c.flags & kSat) != 0) x = saturate(x);
    if ((c.flags & kRelu) != 0) x = x <= 0 ? 0 : x;
    if ((c.flags & kSatfinite) != 0) {
      const auto largest = static_cast<double>(c.to == Type::f16 ? F16::largest_float() : Bf16::largest_float());
      x = x > largest ? largest : x < -largest ? -largest : x;
    }
    values[lane] = x;
  }
}

void float_to_wide_float(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  double values[kLanes];
  read_floats(warp, ins, c, values);
  prepare(c, values);
  write_wide_floats(warp, ins, c, active, values);
}

void float_to_narrow_float(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  double values[kLanes];
  read_floats(warp, ins, c, values);
  prepare(c, values);
  write_narrow_floats(warp, ins, c, active, values);
}

// ---- the common forms ----

template <class D, class S>
void run_cast(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(active, warp.lanes<D>(ins.d), [](S x) { return static_cast<D>(x); }, warp.lanes<S>(ins.a));
}

void run_f64_to_f32(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(active, warp.lanes<float>(ins.d), [](double x) { return canonical(static_cast<float>(x)); }, warp.lanes<double>(ins.a));
}

template <class Format>
[[gnu::flatten]] void run_widen(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(active, warp.lanes<float>(ins.d), [](std::uint16_t x) { return Format::widen(x); }, warp.lanes<std::uint16_t>(ins.a));
}

template <class Format>
[[gnu::flatten]] void run_narrow(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](float x) { return static_cast<std::uint16_t>(Format::template round<Rounding::nearest>(x)); };
  map_lanes(active, warp.lanes<std::uint16_t>(ins.d), f, warp.lanes<float>(ins.a));
}

template <bool is_unsigned, Rounding rounding>
[[gnu::flatten]] void run_f32_to_32(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](float operand) {
    constexpr double low = is_unsigned ? 0 : -0x1p31, high = is_unsigned ? 0x1p32 - 1 : 0x1p31 - 1;
    const double x = to_integral(static_cast<double>(operand), rounding);
    const double above = x > low ? x : low;
    const double clamped = above < high ? above : high;
    const auto integer = is_unsigned ? static_cast<std::uint32_t>(static_cast<std::int64_t>(clamped))
                                     : static_cast<std::uint32_t>(static_cast<std::int32_t>(clamped));
    return operand == operand ? integer : 0u;
  };
  map_lanes(active, warp.lanes<std::uint32_t>(ins.d), f, warp.lanes<float>(ins.a));
}

/// A single loop for the form; null: there is none. Rounding to f32 follows the processor's mode.
Run quick_run(const Conversion& c) {
  if (c.flags != 0 || c.from_register != ptx::bytes_of(c.from) || c.to_register != ptx::bytes_of(c.to)) return nullptr;
  const auto is = [&c](Type to, Type from) { return c.to == to && c.from == from; };
  const bool nearest = c.rounding == Rounding::nearest, zero = c.rounding == Rounding::zero;
  if (is(Type::f32, Type::f16)) return run_widen<F16>;
  if (is(Type::f32, Type::bf16)) return run_widen<Bf16>;
  if (is(Type::f16, Type::f32) && nearest) return run_narrow<F16>;
  if (is(Type::bf16, Type::f32) && nearest) return run_narrow<Bf16>;
  if (is(Type::f64, Type::f32)) return run_cast<double, float>;
  if (is(Type::f32, Type::f64)) return run_f64_to_f32;
  if (is(Type::f32, Type::s32)) return run_cast<float, std::int32_t>;
  if (is(Type::f32, Type::u32)) return run_cast<float, std::uint32_t>;
  if (is(Type::f64, Type::s32)) return run_cast<double, std::int32_t>;
  if (is(Type::s32, Type::f32) && zero) return run_f32_to_32<false, Rounding::zero>;
  if (is(Type::s32, Type::f32) && nearest) return run_f32_to_32<false, Rounding::nearest>;
  if (is(Type::s32, Type::f32) && c.rounding == Rounding::down) return run_f32_to_32<false, Rounding::down>;
  if (is(Type::u32, Type::f32) && zero) return run_f32_to_32<true, Rounding::zero>;
  if (!is_integer(c.to) || !is_integer(c.from)) return nullptr;
  const int to = c.to_register, from = c.from_register;
  const bool sign = is_signed(c.from);
  if (to == 8 && from == 4) return sign ? run_cast<std::uint64_t, std::int32_t> : run_cast<std::uint64_t, std::uint32_t>;
  if (to == 8 && from == 2) return sign ? run_cast<std::uint64_t, std::int16_t> : run_cast<std::uint64_t, std::uint16_t>;
  if (to == 4 && from == 2) return sign ? run_cast<std::uint32_t, std::int16_t> : run_cast<std::uint32_t, std::uint16_t>;
  if (to == 4 && from == 8) return run_cast<std::uint32_t, std::uint64_t>;
  if (to == 2 && from == 8) return run_cast<std::uint16_t, std::uint64_t>;
  if (to == 2 && from == 4) return run_cast<std::uint16_t, std::uint32_t>;
  return nullptr;
}

// ---- decoding ----

void check_rounding(Decoder& decoder, const Conversion& c, int integral, int fractional) {
  const bool to_float = is_float(c.to), from_float = is_float(c.from);
  const bool narrowing = ptx::bytes_of(c.to) < ptx::bytes_of(c.from) || (c.to != c.from && ptx::bytes_of(c.to) == 2 && ptx::bytes_of(c.from) == 2);
  const bool same = c.to == c.from;
  if (integral >= 0 && !(from_float && (!to_float || same))) decoder.fail("integer rounding does not apply");
  if (fractional >= 0 && !(to_float && (!from_float || narrowing))) decoder.fail("rounding does not apply");
  if (from_float && !to_float && integral < 0) decoder.fail("an integer rounding (.rni, .rzi, .rmi, .rpi) is missing");
  if (to_float && (!from_float || narrowing) && fractional < 0) decoder.fail("a rounding (.rn, .rz, .rm, .rp) is missing");
}

Run generic_run(const Conversion& c) {
  const bool to_narrow = c.to == Type::f16 || c.to == Type::bf16;
  if (!is_float(c.to)) return is_float(c.from) ? float_to_integer : integer_to_integer;
  if (!is_float(c.from)) return to_narrow ? integer_to_narrow_float : integer_to_wide_float;
  return to_narrow ? float_to_narrow_float : float_to_wide_float;
}

/// The same in the rounding mode Ins::aux2.
Run directed_run(Run run) {
  if (run == integer_to_wide_float) return rounded<integer_to_wide_float>;
  if (run == float_to_wide_float) return rounded<float_to_wide_float>;
  if (run == run_f64_to_f32) return rounded<run_f64_to_f32>;
  if (run == run_cast<float, std::int32_t>) return rounded<run_cast<float, std::int32_t>>;
  if (run == run_cast<float, std::uint32_t>) return rounded<run_cast<float, std::uint32_t>>;
  return run;  // exact, or rounds by itself
}

void take_flags(Decoder& decoder, Conversion& c) {
  for (;;) {
    if (decoder.take("ftz")) c.flags |= kFtz;
    else if (decoder.take("sat")) c.flags |= kSat;
    else if (decoder.take("relu")) c.flags |= kRelu;
    else if (decoder.take("satfinite")) c.flags |= kSatfinite;
    else return;
  }
}

void check_flags(Decoder& decoder, const Conversion& c) {
  const bool narrowed_f32 = (c.to == Type::f16 || c.to == Type::bf16) && c.from == Type::f32;
  if ((c.flags & kFtz) != 0 && c.to != Type::f32 && c.from != Type::f32) decoder.fail(".ftz does not apply");
  if ((c.flags & (kRelu | kSatfinite)) != 0 && !narrowed_f32) decoder.fail(".relu and .satfinite do not apply");
}

void decode_cvt(Decoder& decoder, Ins& ins) {
  if (decode_packed_convert(decoder, ins)) return;
  const int integral = decoder.take_one_of({"rni", "rzi", "rmi", "rpi"});
  const int fractional = integral < 0 ? decoder.take_one_of({"rn", "rz", "rm", "rp"}) : -1;
  Conversion c{};
  take_flags(decoder, c);
  c.rounding = static_cast<Rounding>(std::max({integral, fractional, 0}));
  c.to = decoder.type();
  c.from = decoder.type();
  if ((!is_float(c.to) && !is_integer(c.to)) || (!is_float(c.from) && !is_integer(c.from))) decoder.fail("cannot be converted");
  check_rounding(decoder, c, integral, fractional);
  check_flags(decoder, c);
  if (integral >= 0 && is_float(c.to)) c.flags |= kIntegral;

  decoder.operand_count(2);
  const int to_register = decoder.register_bytes(decoder.operand(0)), from_register = decoder.register_bytes(decoder.operand(1));
  if (to_register < ptx::bytes_of(c.to)) decoder.fail("the destination is narrower than its type");
  if (from_register != 0 && from_register < ptx::bytes_of(c.from)) decoder.fail("the source is narrower than its type");
  c.to_register = static_cast<std::uint8_t>(to_register);
  ins.d = decoder.write(decoder.operand(0), to_register);
  if (from_register == 0) {  // an immediate of the source's type
    c.from_register = static_cast<std::uint8_t>(std::max(2, ptx::bytes_of(c.from)));
    ins.a = ptx::bytes_of(c.from) == 1 ? decoder.read(decoder.operand(1), 2) : decoder.read(1, c.from);
  } else {
    c.from_register = static_cast<std::uint8_t>(from_register);
    ins.a = decoder.read(decoder.operand(1), from_register);
  }
  const Run quick = quick_run(c);
  ins.run = quick != nullptr ? quick : generic_run(c);
  if (fractional > 0 && (c.to == Type::f32 || c.to == Type::f64)) {
    ins.aux2 = static_cast<std::uint16_t>(fractional);
    ins.run = directed_run(ins.run);
  }
  ins.imm = std::bit_cast<std::int64_t>(c);
  decoder.instruction_class = Class::convert;
}

}  // namespace

Opcodes convert_opcodes() {
  static constexpr std::pair<std::string_view, Decode> opcodes[] = {{"cvt", decode_cvt}};
  return opcodes;
}

}  // namespace emulator
