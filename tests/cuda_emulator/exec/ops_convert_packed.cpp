#include <algorithm>
#include <type_traits>

#include "exec/arithmetic.h"
#include "exec/decoder.h"
#include "exec/half_math.h"
#include "exec/lanes.h"

/// cvt to and from pairs of narrow floats, cvt to tf32, and cvt.pack.
namespace emulator {
namespace {

using ptx::Type;

// Ins::aux: .relu; Ins::aux2: .satfinite.
template <class Format>
inline float prepare(float x, bool relu_wanted, bool satfinite) {
  const float positive = relu_wanted ? relu(x) : x;
  return satfinite ? saturate_finite<Format>(positive) : positive;
}

struct Modifiers {
  int rounding;
  bool relu, satfinite;
};

Modifiers take_modifiers(Decoder& decoder, std::initializer_list<std::string_view> roundings) {
  Modifiers m{decoder.expect_one_of(roundings), false, false};
  m.relu = decoder.take("relu");
  m.satfinite = decoder.take("satfinite");
  m.relu = m.relu || decoder.take("relu");
  return m;
}

void keep(Ins& ins, const Modifiers& modifiers) {
  ins.aux = modifiers.relu;
  ins.aux2 = modifiers.satfinite;
}

// ---- pairs from f32: d = {a, b}, a in the upper half ----

template <class Format, Rounding rounding>
[[gnu::flatten]] void run_pair_from_f32(Warp& warp, const Ins& ins, Mask active) {
  using D =
      std::conditional_t<Format::exponent_bits + Format::fraction_bits == 7, std::uint16_t, std::uint32_t>;
  constexpr int shift = 4 * sizeof(D);
  const bool relu_wanted = ins.aux != 0, satfinite = ins.aux2 != 0;
  const auto f = [=](float a, float b) {
    const std::uint32_t high = Format::template round<rounding>(prepare<Format>(a, relu_wanted, satfinite));
    const std::uint32_t low = Format::template round<rounding>(prepare<Format>(b, relu_wanted, satfinite));
    return static_cast<D>(high << shift | low);
  };
  map_lanes(active, warp.lanes<D>(ins.d), f, warp.lanes<float>(ins.a), warp.lanes<float>(ins.b));
}

/// The form without .relu and .satfinite, which nearly every kernel in half precision uses.
template <class Format>
[[gnu::flatten]] void run_pair_nearest(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](float a, float b) {
    return Format::template round<Rounding::nearest>(a) << 16 | Format::template round<Rounding::nearest>(b);
  };
  map_lanes(active, warp.lanes<std::uint32_t>(ins.d), f, warp.lanes<float>(ins.a), warp.lanes<float>(ins.b));
}

template <class Format>
void decode_pair_from_f32(Decoder& decoder, Ins& ins) {
  const Modifiers modifiers = take_modifiers(decoder, {"rn", "rz"});
  keep(ins, modifiers);
  const Type type = decoder.type();
  decoder.expect("f32");
  const bool plain = !modifiers.relu && !modifiers.satfinite;
  ins.run = modifiers.rounding == 1 ? run_pair_from_f32<Format, Rounding::zero>
            : plain                 ? run_pair_nearest<Format>
                                    : run_pair_from_f32<Format, Rounding::nearest>;
  decoder.operand_count(3);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, Type::f32);
  ins.b = decoder.read(2, Type::f32);
}

// ---- tf32: a float whose lower 13 bits are zero ----

template <Rounding rounding>
inline std::uint32_t round_tf32(float x) {
  constexpr std::uint32_t unused = (1u << 13) - 1;
  const std::uint32_t bits = bits_of(x);
  std::uint32_t add = 0;
  if constexpr (rounding == Rounding::nearest) add = unused / 2 + (bits >> 13 & 1u);
  if constexpr (rounding == Rounding::nearest_away) add = unused / 2 + 1;
  return x == x ? (bits + add) & ~unused : kCanonicalNan;
}

template <Rounding rounding>
[[gnu::flatten]] void run_tf32(Warp& warp, const Ins& ins, Mask active) {
  const bool relu_wanted = ins.aux != 0, satfinite = ins.aux2 != 0;
  const auto f = [=](float a) {
    const float x = relu_wanted ? relu(a) : a;
    const std::uint32_t rounded = round_tf32<rounding>(x);
    const bool beyond = satfinite && (rounded & 0x7fffffffu) == 0x7f800000u;
    return beyond ? (rounded & 0x80000000u) | 0x7f7fe000u : rounded;
  };
  map_lanes(active, warp.lanes<std::uint32_t>(ins.d), f, warp.lanes<float>(ins.a));
}

void decode_tf32(Decoder& decoder, Ins& ins) {
  static constexpr Run runs[] = {run_tf32<Rounding::nearest>, run_tf32<Rounding::zero>,
                                 run_tf32<Rounding::nearest_away>};
  const Modifiers modifiers = take_modifiers(decoder, {"rn", "rz", "rna"});
  keep(ins, modifiers);
  ins.run = runs[modifiers.rounding];
  decoder.expect("tf32");
  decoder.expect("f32");
  if (modifiers.rounding == 2 ? modifiers.relu : modifiers.satfinite)
    decoder.fail(modifiers.relu ? ".relu does not apply to .rna" : ".satfinite applies to .rna alone");
  decoder.operand_count(2);
  ins.d = decoder.write(decoder.operand(0), 4);
  ins.a = decoder.read(1, Type::f32);
}

// ---- 8-bit floats ----

template <class Format>
[[gnu::flatten]] void run_8bit_from_f16x2(Warp& warp, const Ins& ins, Mask active) {
  const bool relu_wanted = ins.aux != 0;
  const auto f = [=](std::uint32_t x) {
    const std::uint32_t high =
        Format::template round<Rounding::nearest>(prepare<Format>(F16::widen(x >> 16), relu_wanted, true));
    const std::uint32_t low = Format::template round<Rounding::nearest>(
        prepare<Format>(F16::widen(x & 0xffffu), relu_wanted, true));
    return static_cast<std::uint16_t>(high << 8 | low);
  };
  map_lanes(active, warp.lanes<std::uint16_t>(ins.d), f, warp.lanes<std::uint32_t>(ins.a));
}

template <class Format>
[[gnu::flatten]] void run_f16x2_from_8bit(Warp& warp, const Ins& ins, Mask active) {
  const bool relu_wanted = ins.aux != 0;
  const auto f = [=](std::uint16_t x) {
    const float high = Format::widen(x >> 8), low = Format::widen(x & 0xffu);
    return F16::round<Rounding::nearest>(relu_wanted ? relu(high) : high) << 16 |
           F16::round<Rounding::nearest>(relu_wanted ? relu(low) : low);
  };
  map_lanes(active, warp.lanes<std::uint32_t>(ins.d), f, warp.lanes<std::uint16_t>(ins.a));
}

template <class Format>
void decode_to_8bit(Decoder& decoder, Ins& ins) {
  const Modifiers modifiers = take_modifiers(decoder, {"rn"});
  keep(ins, modifiers);
  if (!modifiers.satfinite) decoder.fail(".satfinite is missing");
  decoder.expect_one_of({"e4m3x2", "e5m2x2"});
  const bool from_f32 = decoder.expect_one_of({"f32", "f16x2"}) == 0;
  ins.run = from_f32 ? run_pair_from_f32<Format, Rounding::nearest> : run_8bit_from_f16x2<Format>;
  decoder.operand_count(from_f32 ? 3 : 2);
  ins.d = decoder.write(decoder.operand(0), 2);
  ins.a = decoder.read(decoder.operand(1), 4);
  if (from_f32) ins.b = decoder.read(2, Type::f32);
}

template <class Format>
void decode_from_8bit(Decoder& decoder, Ins& ins) {
  const Modifiers modifiers = take_modifiers(decoder, {"rn"});
  keep(ins, modifiers);
  if (modifiers.satfinite) decoder.fail(".satfinite does not apply");
  decoder.expect("f16x2");
  decoder.expect_one_of({"e4m3x2", "e5m2x2"});
  ins.run = run_f16x2_from_8bit<Format>;
  decoder.operand_count(2);
  ins.d = decoder.write(0, Type::f16x2);
  ins.a = decoder.read(decoder.operand(1), 2);
}

// ---- pack: d = {c's lower bits, saturated a, saturated b} ----

/// aux: bits of one element; aux2: 1 for signed.
[[gnu::flatten]] void run_pack(Warp& warp, const Ins& ins, Mask active) {
  const int bits = ins.aux;
  const std::int32_t high = (1 << (bits - ins.aux2)) - 1;
  const std::int32_t low = ins.aux2 != 0 ? -high - 1 : 0;
  const std::uint32_t element = (1u << bits) - 1;
  const auto f = [=](std::int32_t a, std::int32_t b, std::uint32_t c) {
    const auto packed = [=](std::int32_t x) {
      return static_cast<std::uint32_t>(std::clamp(x, low, high)) & element;
    };
    return packed(b) | packed(a) << bits | (bits == 16 ? 0 : c << (bits & 15) << (bits & 15));
  };
  map_lanes(active, warp.lanes<std::uint32_t>(ins.d), f, warp.lanes<std::int32_t>(ins.a),
            warp.lanes<std::int32_t>(ins.b), warp.lanes<std::uint32_t>(ins.c));
}

void decode_pack(Decoder& decoder, Ins& ins) {
  decoder.expect("pack");
  decoder.expect("sat");
  const int type = decoder.expect_one_of({"u16", "s16", "u2", "s2", "u4", "s4", "u8", "s8"});
  static constexpr std::uint16_t kBits[] = {16, 2, 4, 8};
  ins.aux = kBits[type / 2];
  ins.aux2 = type % 2 != 0;
  decoder.expect("s32");
  const bool three = ins.aux != 16;
  if (three) decoder.expect("b32");
  ins.run = run_pack;
  decoder.operand_count(three ? 4 : 3);
  ins.d = decoder.write(0, Type::b32);
  ins.a = decoder.read(1, Type::s32);
  ins.b = decoder.read(2, Type::s32);
  ins.c = three ? decoder.read(3, Type::b32) : decoder.constant(0, 4);
}

}  // namespace

bool decode_packed_convert(Decoder& decoder, Ins& ins) {
  const auto& modifiers = decoder.source.modifiers;
  if (modifiers.size() < 2) return false;
  const std::string &to = modifiers[modifiers.size() - 2], &from = modifiers.back();
  decoder.instruction_class = Class::convert;
  if (modifiers.front() == "pack")
    decode_pack(decoder, ins);
  else if (to == "tf32")
    decode_tf32(decoder, ins);
  else if (to == "f16x2" && from == "f32")
    decode_pair_from_f32<F16>(decoder, ins);
  else if (to == "bf16x2" && from == "f32")
    decode_pair_from_f32<Bf16>(decoder, ins);
  else if (to == "e4m3x2")
    decode_to_8bit<E4m3>(decoder, ins);
  else if (to == "e5m2x2")
    decode_to_8bit<E5m2>(decoder, ins);
  else if (from == "e4m3x2")
    decode_from_8bit<E4m3>(decoder, ins);
  else if (from == "e5m2x2")
    decode_from_8bit<E5m2>(decoder, ins);
  else
    return false;
  return true;
}

}  // namespace emulator
