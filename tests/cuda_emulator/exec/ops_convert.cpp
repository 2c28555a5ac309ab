#include <algorithm>
#include <string>

#include "exec/arithmetic.h"
#include "exec/convert.h"
#include "exec/half_math.h"
#include "exec/lanes.h"

/// cvt between scalars: decoding, and single loops for the common forms.
namespace emulator {
namespace {

using ptx::Type;

// ---- the common forms ----

template <class D, class S>
void run_cast(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<D>(ins.d), [](S x) { return static_cast<D>(x); }, warp.lanes<S>(ins.a));
}

void run_f64_to_f32(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<float>(ins.d), [](double x) { return canonical(static_cast<float>(x)); },
      warp.lanes<double>(ins.a));
}

template <class Format>
[[gnu::flatten]] void run_widen(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<float>(ins.d), [](std::uint16_t x) { return Format::widen(x); },
      warp.lanes<std::uint16_t>(ins.a));
}

template <class Format>
[[gnu::flatten]] void run_narrow(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](float x) {
    return static_cast<std::uint16_t>(Format::template round<Rounding::nearest>(x));
  };
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

template <Rounding rounding, bool ftz>
[[gnu::flatten]] void run_integral_f32(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<float>(ins.d),
      [](float x) {
        return canonical(static_cast<float>(to_integral(static_cast<double>(flush_if<ftz>(x)), rounding)));
      },
      warp.lanes<float>(ins.a));
}

template <bool ftz>
Run integral_f32_run(Rounding rounding) {
  static constexpr Run runs[] = {run_integral_f32<Rounding::nearest, ftz>,
                                 run_integral_f32<Rounding::zero, ftz>, run_integral_f32<Rounding::down, ftz>,
                                 run_integral_f32<Rounding::up, ftz>};
  return runs[static_cast<int>(rounding)];
}

template <bool is_unsigned>
Run f32_to_32_run(Rounding rounding) {
  static constexpr Run runs[] = {
      run_f32_to_32<is_unsigned, Rounding::nearest>, run_f32_to_32<is_unsigned, Rounding::zero>,
      run_f32_to_32<is_unsigned, Rounding::down>, run_f32_to_32<is_unsigned, Rounding::up>};
  return runs[static_cast<int>(rounding)];
}

/// A single loop for the form; null: there is none.
Run quick_run(const Conversion& c) {
  if (c.from_register != ptx::bytes_of(c.from) || c.to_register != ptx::bytes_of(c.to)) return nullptr;
  if (c.to == Type::f32 && c.from == Type::f32 &&
      (c.flags | Conversion::kFtz) == (Conversion::kIntegral | Conversion::kFtz))
    return c.has(Conversion::kFtz) ? integral_f32_run<true>(c.rounding) : integral_f32_run<false>(c.rounding);
  if (c.flags != 0) return nullptr;
  const auto is = [&c](Type to, Type from) { return c.to == to && c.from == from; };
  const bool nearest = c.rounding == Rounding::nearest;
  if (is(Type::f32, Type::f16)) return run_widen<F16>;
  if (is(Type::f32, Type::bf16)) return run_widen<Bf16>;
  if (is(Type::f16, Type::f32) && nearest) return run_narrow<F16>;
  if (is(Type::bf16, Type::f32) && nearest) return run_narrow<Bf16>;
  if (is(Type::f64, Type::f32)) return run_cast<double, float>;
  if (is(Type::f32, Type::f64)) return nearest ? run_f64_to_f32 : rounded<run_f64_to_f32>;
  if (is(Type::f32, Type::s32))
    return nearest ? run_cast<float, std::int32_t> : rounded<run_cast<float, std::int32_t>>;
  if (is(Type::f32, Type::u32))
    return nearest ? run_cast<float, std::uint32_t> : rounded<run_cast<float, std::uint32_t>>;
  if (is(Type::f64, Type::s32)) return run_cast<double, std::int32_t>;
  if (is(Type::s32, Type::f32)) return f32_to_32_run<false>(c.rounding);
  if (is(Type::u32, Type::f32)) return f32_to_32_run<true>(c.rounding);
  if (!is_integer(c.to) || !is_integer(c.from)) return nullptr;
  const int to = c.to_register, from = c.from_register;
  const bool sign = is_signed(c.from);
  if (to == 8 && from == 4)
    return sign ? run_cast<std::uint64_t, std::int32_t> : run_cast<std::uint64_t, std::uint32_t>;
  if (to == 8 && from == 2)
    return sign ? run_cast<std::uint64_t, std::int16_t> : run_cast<std::uint64_t, std::uint16_t>;
  if (to == 4 && from == 2)
    return sign ? run_cast<std::uint32_t, std::int16_t> : run_cast<std::uint32_t, std::uint16_t>;
  if (to == 4 && from == 8) return run_cast<std::uint32_t, std::uint64_t>;
  if (to == 2 && from == 8) return run_cast<std::uint16_t, std::uint64_t>;
  if (to == 2 && from == 4) return run_cast<std::uint16_t, std::uint32_t>;
  return nullptr;
}

// ---- decoding ----

void check_rounding(Decoder& decoder, const Conversion& c, int integral, int fractional) {
  const bool to_float = is_float(c.to), from_float = is_float(c.from);
  const bool narrowing = ptx::bytes_of(c.to) < ptx::bytes_of(c.from) ||
                         (c.to != c.from && ptx::bytes_of(c.to) == 2 && ptx::bytes_of(c.from) == 2);
  const bool same = c.to == c.from;
  if (integral >= 0 && !(from_float && (!to_float || same))) decoder.fail("integer rounding does not apply");
  if (fractional >= 0 && !(to_float && (!from_float || narrowing))) decoder.fail("rounding does not apply");
  if (from_float && !to_float && integral < 0)
    decoder.fail("an integer rounding (.rni, .rzi, .rmi, .rpi) is missing");
  if (to_float && (!from_float || narrowing) && fractional < 0)
    decoder.fail("a rounding (.rn, .rz, .rm, .rp) is missing");
}

void take_flags(Decoder& decoder, Conversion& c) {
  for (;;) {
    if (decoder.take("ftz"))
      c.flags |= Conversion::kFtz;
    else if (decoder.take("sat"))
      c.flags |= Conversion::kSat;
    else if (decoder.take("relu"))
      c.flags |= Conversion::kRelu;
    else if (decoder.take("satfinite"))
      c.flags |= Conversion::kSatfinite;
    else
      return;
  }
}

/// What ptxas refuses is refused here too.
void check_flags(Decoder& decoder, const Conversion& c) {
  const bool bf16 = c.to == Type::bf16 || c.from == Type::bf16,
             narrowed_f32 = (c.to == Type::f16 || c.to == Type::bf16) && c.from == Type::f32;
  if (c.has(Conversion::kFtz) && c.to != Type::f32 && c.from != Type::f32)
    decoder.fail(".ftz does not apply");
  if ((c.has(Conversion::kRelu) || c.has(Conversion::kSatfinite)) &&
      (!narrowed_f32 || c.has(Conversion::kFtz) || c.has(Conversion::kSat) || c.rounding == Rounding::down ||
       c.rounding == Rounding::up))
    decoder.fail(".relu and .satfinite do not apply");
  if (!c.has(Conversion::kSat)) return;
  const bool integers = is_integer(c.to) && is_integer(c.from);
  const Range to = range_of(c.to), from = range_of(c.from);
  if (bf16 || (integers && from.low >= to.low && from.high <= to.high)) decoder.fail(".sat does not apply");
}

/// Registers may be wider than the type, unless bf16 is converted from or to.
void check_width(Decoder& decoder, const ptx::Operand& operand, Type type, bool bf16) {
  const int found = decoder.register_bytes(operand), bytes = ptx::bytes_of(type);
  if (found != 0 && (found < bytes || (bf16 && found != bytes)))
    decoder.fail("a register of " + std::to_string(8 * found) + " bits for a ." + ptx::name_of(type));
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
  if ((!is_float(c.to) && !is_integer(c.to)) || (!is_float(c.from) && !is_integer(c.from)))
    decoder.fail("cannot be converted");
  const bool bf16 = c.to == Type::bf16 || c.from == Type::bf16;
  if (bf16 && (ptx::bytes_of(c.to) == 1 || ptx::bytes_of(c.from) == 1))
    decoder.fail("bf16 is not converted to or from 8 bits");
  check_rounding(decoder, c, integral, fractional);
  check_flags(decoder, c);
  if (integral >= 0 && is_float(c.to)) c.flags |= Conversion::kIntegral;

  decoder.operand_count(2);
  const int to_register = decoder.register_bytes(decoder.operand(0)),
            from_register = decoder.register_bytes(decoder.operand(1));
  if (to_register == 0) decoder.fail("the destination must be a register");
  check_width(decoder, decoder.operand(0), c.to, bf16);
  check_width(decoder, decoder.operand(1), c.from, bf16);
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
  ins.run = quick != nullptr ? quick : general_conversion(c);
  ins.aux2 = static_cast<std::uint16_t>(c.rounding);  // for rounded()
  ins.imm = std::bit_cast<std::int64_t>(c);
  decoder.instruction_class = Class::convert;
}

}  // namespace

Opcodes convert_opcodes() {
  static constexpr std::pair<std::string_view, Decode> opcodes[] = {{"cvt", decode_cvt}};
  return opcodes;
}

}  // namespace emulator
