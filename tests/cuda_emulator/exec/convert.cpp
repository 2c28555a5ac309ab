#include "exec/convert.h"

#include <cmath>

#include "exec/half_math.h"
#include "exec/lanes.h"

/// cvt between any two scalars, in two loops: the source register becomes 64-bit integers or doubles, which
/// hold every value of every type, and these become the destination.
namespace emulator {
namespace {

using ptx::Type;

Conversion conversion_of(const Ins& ins) { return std::bit_cast<Conversion>(ins.imm); }

// ---- registers ----

template <class T>
void widen(const T* from, std::uint64_t* to) {
  for (int lane = 0; lane < kLanes; ++lane) to[lane] = from[lane];
}

void read_register(Warp& warp, Slot slot, int bytes, std::uint64_t* raw) {
  if (bytes == 2)
    widen(warp.lanes<std::uint16_t>(slot), raw);
  else if (bytes == 4)
    widen(warp.lanes<std::uint32_t>(slot), raw);
  else
    widen(warp.lanes<std::uint64_t>(slot), raw);
}

void write_register(Warp& warp, Slot slot, int bytes, Mask active, const std::uint64_t* raw) {
  if (bytes == 2)
    map_lanes(
        active, warp.lanes<std::uint16_t>(slot),
        [](std::uint64_t x) { return static_cast<std::uint16_t>(x); }, raw);
  else if (bytes == 4)
    map_lanes(
        active, warp.lanes<std::uint32_t>(slot),
        [](std::uint64_t x) { return static_cast<std::uint32_t>(x); }, raw);
  else
    map_lanes(
        active, warp.lanes<std::uint64_t>(slot), [](std::uint64_t x) { return x; }, raw);
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

template <class F>
[[gnu::always_inline]] inline void fill(double* values, const std::uint64_t* raw, F f) {
  for (int lane = 0; lane < kLanes; ++lane) values[lane] = f(raw[lane]);
}

void read_floats(Warp& warp, const Ins& ins, const Conversion& c, double* values) {
  std::uint64_t raw[kLanes];
  read_register(warp, ins.a, c.from_register, raw);
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  if (c.from == Type::f16)
    fill(values, raw, [=](std::uint64_t x) { return static_cast<double>(F16::widen(low(x) & 0xffffu)); });
  else if (c.from == Type::bf16)
    fill(values, raw, [=](std::uint64_t x) { return static_cast<double>(Bf16::widen(low(x) & 0xffffu)); });
  else if (c.from == Type::f64)
    fill(values, raw, [](std::uint64_t x) { return double_of(x); });
  else if (c.has(Conversion::kFtz))
    fill(values, raw, [=](std::uint64_t x) { return static_cast<double>(flush(float_of(low(x)))); });
  else
    fill(values, raw, [=](std::uint64_t x) { return static_cast<double>(float_of(low(x))); });
}

/// Destination f64 or f32: rounds in the processor's mode.
void write_wide_floats(Warp& warp, const Ins& ins, const Conversion& c, Mask active, const double* values) {
  std::uint64_t raw[kLanes];
  const bool ftz = c.has(Conversion::kFtz);
  if (c.to == Type::f64) {
    for (int lane = 0; lane < kLanes; ++lane) raw[lane] = bits_of(values[lane]);
  } else {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float x = canonical(static_cast<float>(values[lane]));
      raw[lane] = bits_of(ftz ? flush(x) : x);
    }
  }
  write_register(warp, ins.d, c.to_register, active, raw);
}

template <class Format, Rounding rounding>
void narrow(const double* values, std::uint64_t* raw) {
  for (int lane = 0; lane < kLanes; ++lane) raw[lane] = Format::template round<rounding>(values[lane]);
}

/// Destination f16 or bf16: rounds in c.rounding; the processor's mode does not matter.
void write_narrow_floats(Warp& warp, const Ins& ins, const Conversion& c, Mask active, const double* values) {
  using Narrowing = void (*)(const double*, std::uint64_t*);
  static constexpr Narrowing narrowings[2][4] = {
      {narrow<F16, Rounding::nearest>, narrow<F16, Rounding::zero>, narrow<F16, Rounding::down>,
       narrow<F16, Rounding::up>},
      {narrow<Bf16, Rounding::nearest>, narrow<Bf16, Rounding::zero>, narrow<Bf16, Rounding::down>,
       narrow<Bf16, Rounding::up>}};
  std::uint64_t raw[kLanes];
  narrowings[c.to == Type::bf16][static_cast<int>(c.rounding)](values, raw);
  write_register(warp, ins.d, c.to_register, active, raw);
}

// ---- the four kinds ----

void integer_to_integer(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  std::uint64_t values[kLanes];
  read_integers(warp, ins, c, values);
  if (c.has(Conversion::kSat)) {
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

/// I: signed or unsigned, 64 bits.
template <class I>
void fill_floats(const Conversion& c, const std::uint64_t* values, std::uint64_t* raw) {
  const bool sat = c.has(Conversion::kSat);
  if (c.to == Type::f64) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto x = static_cast<double>(static_cast<I>(values[lane]));
      raw[lane] = bits_of(sat ? saturate(x) : x);
    }
  } else {
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto x = static_cast<float>(static_cast<I>(values[lane]));
      raw[lane] = bits_of(sat ? saturate(x) : x);
    }
  }
}

/// To f32 and f64, in the processor's rounding mode.
void integer_to_wide_float(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  std::uint64_t values[kLanes], raw[kLanes];
  read_integers(warp, ins, c, values);
  if (is_signed(c.from))
    fill_floats<std::int64_t>(c, values, raw);
  else
    fill_floats<std::uint64_t>(c, values, raw);
  write_register(warp, ins.d, c.to_register, active, raw);
}

/// The integer as a double with 53 bits, of which the last says whether lower bits were lost: enough for
/// rounding to f16 and bf16 once.
double sticky_double(std::uint64_t value, bool is_signed_value) {
  const bool negative = is_signed_value && static_cast<std::int64_t>(value) < 0;
  const std::uint64_t magnitude = negative ? 0 - value : value;
  const std::uint64_t lost = magnitude & 0xfffu;
  const std::uint64_t kept =
      magnitude >> 53 == 0 ? magnitude : (magnitude - lost) | (lost != 0 ? 0x800u : 0u);
  const auto x = static_cast<double>(kept);
  return negative ? -x : x;
}

void integer_to_narrow_float(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  std::uint64_t values[kLanes];
  double wide[kLanes];
  read_integers(warp, ins, c, values);
  for (int lane = 0; lane < kLanes; ++lane) wide[lane] = sticky_double(values[lane], is_signed(c.from));
  if (c.has(Conversion::kSat))
    for (double& x : wide) x = saturate(x);
  write_narrow_floats(warp, ins, c, active, wide);
}

template <Rounding rounding>
void make_integral(double* values) {
  for (int lane = 0; lane < kLanes; ++lane) values[lane] = to_integral(values[lane], rounding);
}

void make_integral(double* values, Rounding rounding) {
  static constexpr void (*roundings[])(double*) = {
      make_integral<Rounding::nearest>, make_integral<Rounding::zero>, make_integral<Rounding::down>,
      make_integral<Rounding::up>};
  roundings[static_cast<int>(rounding)](values);
}

/// The integers (I: signed or unsigned, 64 bits) nearest to integral values in [low, high]. NaN: 0, but 1 <<
/// (bits - 1) if the source is f64 or the destination has 64 bits (PTX ISA, cvt).
template <class I>
void clamp_to(const Conversion& c, const double* values, std::uint64_t* integers) {
  const Range range = range_of(c.to);
  const std::uint64_t not_a_number =
      c.from == Type::f64 || bits_of_type(c.to) == 64 ? std::uint64_t(1) << (bits_of_type(c.to) - 1) : 0;
  const auto low = static_cast<double>(range.low);
  // As a double, the highest 64-bit integer is the next power of two, which is out of range like everything
  // above it.
  const auto high = static_cast<double>(range.high);
  const double below_high = bits_of_type(c.to) == 64 ? std::nextafter(high, 0.0) : high;
  for (int lane = 0; lane < kLanes; ++lane) {
    const double x = values[lane];
    const double above = x > low ? x : low;
    const double inside = above < below_high ? above : below_high;
    const auto integer = static_cast<std::uint64_t>(static_cast<I>(inside));
    const std::uint64_t clamped = x >= high ? range.high : integer;
    integers[lane] = x == x ? clamped : not_a_number;
  }
}

void float_to_integer(Warp& warp, const Ins& ins, Mask active) {
  const Conversion c = conversion_of(ins);
  double values[kLanes];
  std::uint64_t integers[kLanes];
  read_floats(warp, ins, c, values);
  make_integral(values, c.rounding);
  if (is_signed(c.to))
    clamp_to<std::int64_t>(c, values, integers);
  else
    clamp_to<std::uint64_t>(c, values, integers);
  write_integers(warp, ins, c, active, integers);
}

void prepare(const Conversion& c, double* values) {
  if (c.has(Conversion::kIntegral)) make_integral(values, c.rounding);
  if (c.has(Conversion::kSat))
    for (int lane = 0; lane < kLanes; ++lane) values[lane] = saturate(values[lane]);
  if (c.has(Conversion::kRelu))
    for (int lane = 0; lane < kLanes; ++lane) values[lane] = relu(values[lane]);
  if (!c.has(Conversion::kSatfinite)) return;
  const auto largest = static_cast<double>(c.to == Type::f16 ? F16::largest_float() : Bf16::largest_float());
  for (int lane = 0; lane < kLanes; ++lane) {
    const double below = values[lane] > largest ? largest : values[lane];
    values[lane] = below < -largest ? -largest : below;
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

Run plain_run(const Conversion& c) {
  const bool to_narrow = c.to == Type::f16 || c.to == Type::bf16;
  if (!is_float(c.to)) return is_float(c.from) ? float_to_integer : integer_to_integer;
  if (!is_float(c.from)) return to_narrow ? integer_to_narrow_float : integer_to_wide_float;
  return to_narrow ? float_to_narrow_float : float_to_wide_float;
}

}  // namespace

Run general_conversion(const Conversion& conversion) {
  const Run run = plain_run(conversion);
  if (conversion.rounding == Rounding::nearest || conversion.has(Conversion::kIntegral)) return run;
  if (run == integer_to_wide_float) return rounded<integer_to_wide_float>;
  if (run == float_to_wide_float) return rounded<float_to_wide_float>;
  return run;  // exact, or rounds by itself
}

}  // namespace emulator
