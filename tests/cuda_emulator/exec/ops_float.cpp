#include <limits>
#include <utility>

#include "exec/arithmetic.h"
#include "exec/decoder.h"
#include "exec/float_math.h"
#include "exec/lanes.h"

/// add, sub, mul, fma, mad, div, min, max, abs, neg, testp and copysign of f32 and f64.
namespace emulator {
namespace {

// ---- arithmetic that rounds ----

struct Add {
  template <class T>
  [[gnu::always_inline]] static T apply(T a, T b) {
    return a + b;
  }
};
struct Subtract {
  template <class T>
  [[gnu::always_inline]] static T apply(T a, T b) {
    return a - b;
  }
};
struct Multiply {
  template <class T>
  [[gnu::always_inline]] static T apply(T a, T b) {
    return a * b;
  }
};
struct Divide {
  template <class T>
  [[gnu::always_inline]] static T apply(T a, T b) {
    return a / b;
  }
};
struct FusedMultiplyAdd {
  [[gnu::always_inline]] static float apply(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  [[gnu::always_inline]] static double apply(double a, double b, double c) { return __builtin_fma(a, b, c); }
};

/// d = f(a, b) or f(a, b, c), as many as Op takes.
template <class T, class Op, class F>
[[gnu::always_inline]] inline void map_operands(Warp& warp, const Ins& ins, Mask active, F f) {
  if constexpr (requires(T x) { Op::apply(x, x, x); }) {
    map_lanes(active, warp.lanes<T>(ins.d), f, warp.lanes<T>(ins.a), warp.lanes<T>(ins.b),
              warp.lanes<T>(ins.c));
  } else {
    map_lanes(active, warp.lanes<T>(ins.d), f, warp.lanes<T>(ins.a), warp.lanes<T>(ins.b));
  }
}

template <class Op, bool ftz, bool sat>
[[gnu::flatten]] void run_f32(Warp& warp, const Ins& ins, Mask active) {
  map_operands<float, Op>(warp, ins, active, [](auto... x) {
    const float result = flush_if<ftz>(Op::apply(flush_if<ftz>(x)...));
    return sat ? saturate(result) : canonical(result);
  });
}

// NaNs of f64 are the host's: as on the GPU, the payload of an operand survives.
template <class Op>
[[gnu::flatten]] void run_f64(Warp& warp, const Ins& ins, Mask active) {
  map_operands<double, Op>(warp, ins, active, [](auto... x) { return Op::apply(x...); });
}

template <class Op>
Run f32_run(bool directed, bool ftz, bool sat) {
  static constexpr Run runs[2][2][2] = {
      {{run_f32<Op, false, false>, run_f32<Op, false, true>},
       {run_f32<Op, true, false>, run_f32<Op, true, true>}},
      {{rounded<run_f32<Op, false, false>>, rounded<run_f32<Op, false, true>>},
       {rounded<run_f32<Op, true, false>>, rounded<run_f32<Op, true, true>>}}};
  return runs[directed][ftz][sat];
}

enum class Rule { optional, required };  // of the rounding modifier

template <class Op>
void decode_rounding(Decoder& decoder, Ins& ins, std::size_t sources, Rule rule) {
  const int named = decoder.take_one_of({"rn", "rz", "rm", "rp"});
  if (named < 0 && rule == Rule::required)
    decoder.fail("a rounding modifier (.rn, .rz, .rm, .rp) is missing");
  ins.aux2 = static_cast<std::uint16_t>(named > 0 ? named : 0);
  const bool ftz = decoder.take("ftz"), sat = decoder.take("sat");
  const ptx::Type type = decoder.type();
  if (type == ptx::Type::f64) {
    if (ftz || sat) decoder.fail(".ftz and .sat do not apply to f64");
    ins.run = ins.aux2 != 0 ? rounded<run_f64<Op>> : run_f64<Op>;
    decoder.instruction_class = Class::fp64;
  } else {
    if (type != ptx::Type::f32) decoder.fail("expected f32 or f64");
    ins.run = f32_run<Op>(ins.aux2 != 0, ftz, sat);
    decoder.instruction_class = Class::fp32;
  }
  decoder.operand_count(sources + 1);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  if (sources == 3) ins.c = decoder.read(3, type);
}

void decode_div(Decoder& decoder, Ins& ins) {
  if (decoder.next() == "approx" || decoder.next() == "full")
    return decode_approximate_division(decoder, ins);
  decode_rounding<Divide>(decoder, ins, 2, Rule::required);
}

void decode_fma(Decoder& decoder, Ins& ins) {
  if (decode_half_arithmetic(decoder, ins)) return;
  decode_rounding<FusedMultiplyAdd>(decoder, ins, 3, Rule::required);
}

// ---- minimum and maximum ----

/// Signed integers in the order of the floats: -0 below +0.
template <class I>
[[gnu::always_inline]] inline I order_key(I bits) {
  constexpr I magnitude = std::numeric_limits<I>::max();
  return bits ^ ((bits >> (8 * sizeof(I) - 1)) & magnitude);
}

template <class I, bool maximum>
[[gnu::always_inline]] inline I pick(I a, I b) {
  return (order_key(a) < order_key(b)) != maximum ? a : b;
}

/// As the PTX ISA's pseudo-code of min and max. With `nan` a NaN operand wins, otherwise it loses.
template <bool maximum, bool nan, bool xorsign, bool ftz>
[[gnu::always_inline]] inline std::int32_t extreme(float x, float y) {
  constexpr std::int32_t infinity = 0x7f800000, magnitude = 0x7fffffff;
  std::int32_t a = std::bit_cast<std::int32_t>(flush_if<ftz>(x)),
               b = std::bit_cast<std::int32_t>(flush_if<ftz>(y));
  const std::int32_t sign = (a ^ b) & ~magnitude;
  if (xorsign) a &= magnitude, b &= magnitude;
  const bool a_nan = (a & magnitude) > infinity, b_nan = (b & magnitude) > infinity;
  std::int32_t result = pick<std::int32_t, maximum>(a, b);
  if (xorsign) result |= sign;
  const std::int32_t other_a = xorsign ? a | sign : a, other_b = xorsign ? b | sign : b;
  result = a_nan ? other_b : b_nan ? other_a : result;
  const bool nan_result = nan ? (a_nan | b_nan) : (a_nan & b_nan);
  return nan_result ? static_cast<std::int32_t>(kCanonicalNan) : result;
}

template <bool maximum, bool nan, bool xorsign, bool ftz>
[[gnu::flatten]] void run_extreme(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<std::int32_t>(ins.d),
      [](float x, float y) { return extreme<maximum, nan, xorsign, ftz>(x, y); }, warp.lanes<float>(ins.a),
      warp.lanes<float>(ins.b));
}

template <bool maximum>
[[gnu::flatten]] void run_extreme_f64(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](double x, double y) {
    const auto result =
        pick<std::int64_t, maximum>(std::bit_cast<std::int64_t>(x), std::bit_cast<std::int64_t>(y));
    return x != x ? y : y != y ? x : std::bit_cast<double>(result);
  };
  map_lanes(active, warp.lanes<double>(ins.d), f, warp.lanes<double>(ins.a), warp.lanes<double>(ins.b));
}

template <bool maximum, std::size_t... i>
Run extreme_run(std::size_t which, std::index_sequence<i...>) {
  static constexpr Run runs[] = {run_extreme<maximum, (i & 4) != 0, (i & 2) != 0, (i & 1) != 0>...};
  return runs[which];
}

template <bool maximum>
void decode_extreme(Decoder& decoder, Ins& ins) {
  const bool ftz = decoder.take("ftz"), nan = decoder.take("NaN"), xorsign = decoder.take("xorsign");
  if (xorsign) decoder.expect("abs");
  const ptx::Type type = decoder.type();
  if (type == ptx::Type::f64) {
    if (ftz || nan || xorsign) decoder.fail("f64 takes no modifiers");
    ins.run = run_extreme_f64<maximum>;
  } else {
    ins.run = extreme_run<maximum>(nan * 4u + xorsign * 2u + ftz, std::make_index_sequence<8>());
  }
  decoder.instruction_class = type == ptx::Type::f64 ? Class::fp64 : Class::fp32;
  decoder.operand_count(3);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
}

// ---- signs and classes ----

template <class U, bool absolute, bool ftz>
[[gnu::flatten]] void run_sign(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](U bits) {
    constexpr U sign = U(1) << (8 * sizeof(U) - 1);
    if constexpr (ftz) bits = bits_of(flush(float_of(bits)));
    return absolute ? static_cast<U>(bits & ~sign) : static_cast<U>(bits ^ sign);
  };
  map_lanes(active, warp.lanes<U>(ins.d), f, warp.lanes<U>(ins.a));
}

template <bool absolute>
void decode_sign(Decoder& decoder, Ins& ins) {
  const bool ftz = decoder.take("ftz");
  const ptx::Type type = decoder.type();
  if (type == ptx::Type::f64) {
    if (ftz) decoder.fail(".ftz does not apply to f64");
    ins.run = run_sign<std::uint64_t, absolute, false>;
  } else {
    ins.run = ftz ? run_sign<std::uint32_t, absolute, true> : run_sign<std::uint32_t, absolute, false>;
  }
  decoder.instruction_class = type == ptx::Type::f64 ? Class::fp64 : Class::fp32;
  decoder.operand_count(2);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
}

/// d has the sign of a and the magnitude of b.
template <class U>
void run_copysign(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](U a, U b) {
    constexpr U sign = U(1) << (8 * sizeof(U) - 1);
    return static_cast<U>((a & sign) | (b & ~sign));
  };
  map_lanes(active, warp.lanes<U>(ins.d), f, warp.lanes<U>(ins.a), warp.lanes<U>(ins.b));
}

void decode_copysign(Decoder& decoder, Ins& ins) {
  const ptx::Type type = decoder.type();
  if (type != ptx::Type::f32 && type != ptx::Type::f64) decoder.fail("expected f32 or f64");
  ins.run = type == ptx::Type::f64 ? run_copysign<std::uint64_t> : run_copysign<std::uint32_t>;
  decoder.instruction_class = type == ptx::Type::f64 ? Class::fp64 : Class::fp32;
  decoder.operand_count(3);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
}

enum Property { finite, infinite, number, notanumber, normal, subnormal };

/// A zero counts as normal (PTX ISA, testp).
template <class U, U infinity, U smallest_normal>
bool has(U bits, int property) {
  const U magnitude = bits & (~U(0) >> 1);
  switch (property) {
    case finite:
      return magnitude < infinity;
    case infinite:
      return magnitude == infinity;
    case number:
      return magnitude <= infinity;
    case notanumber:
      return magnitude > infinity;
    case normal:
      return magnitude == 0 || (magnitude >= smallest_normal && magnitude < infinity);
    default:
      return magnitude != 0 && magnitude < smallest_normal;
  }
}

template <class U, U infinity, U smallest_normal>
void run_testp(Warp& warp, const Ins& ins, Mask active) {
  const int property = ins.aux;
  const auto f = [property](U bits) { return has<U, infinity, smallest_normal>(bits, property); };
  set_predicate(warp, ins.d, active, mask_of(active, f, warp.lanes<U>(ins.a)));
}

void decode_testp(Decoder& decoder, Ins& ins) {
  ins.aux = static_cast<std::uint16_t>(
      decoder.expect_one_of({"finite", "infinite", "number", "notanumber", "normal", "subnormal"}));
  const ptx::Type type = decoder.type();
  if (type != ptx::Type::f32 && type != ptx::Type::f64) decoder.fail("expected f32 or f64");
  ins.run = type == ptx::Type::f64 ? run_testp<std::uint64_t, 0x7ff0000000000000u, 0x0010000000000000u>
                                   : run_testp<std::uint32_t, 0x7f800000u, 0x00800000u>;
  decoder.instruction_class = Class::predicate;
  decoder.operand_count(2);
  ins.d = decoder.write_predicate(decoder.operand(0));
  ins.a = decoder.read(1, type);
}

struct Shared {
  std::string_view opcode;
  Decode decode;
};
constexpr Shared kShared[] = {
    {"add", [](Decoder& d, Ins& i) { decode_rounding<Add>(d, i, 2, Rule::optional); }},
    {"sub", [](Decoder& d, Ins& i) { decode_rounding<Subtract>(d, i, 2, Rule::optional); }},
    {"mul", [](Decoder& d, Ins& i) { decode_rounding<Multiply>(d, i, 2, Rule::optional); }},
    {"mad", [](Decoder& d, Ins& i) { decode_rounding<FusedMultiplyAdd>(d, i, 3, Rule::required); }},
    {"div", decode_div},
    {"min", decode_extreme<false>},
    {"max", decode_extreme<true>},
    {"abs", decode_sign<true>},
    {"neg", decode_sign<false>},
};

}  // namespace

bool decode_float_arithmetic(Decoder& decoder, Ins& ins) {
  if (!decoder.ends_with_modifier("f32") && !decoder.ends_with_modifier("f64")) return false;
  for (const Shared& shared : kShared) {
    if (shared.opcode == decoder.source.opcode) {
      shared.decode(decoder, ins);
      return true;
    }
  }
  return false;
}

Opcodes float_opcodes() {
  static constexpr std::pair<std::string_view, Decode> opcodes[] = {
      {"fma", decode_fma},   {"rcp", decode_rcp},     {"sqrt", decode_sqrt},         {"rsqrt", decode_rsqrt},
      {"sin", decode_sin},   {"cos", decode_cos},     {"lg2", decode_lg2},           {"ex2", decode_ex2},
      {"tanh", decode_tanh}, {"testp", decode_testp}, {"copysign", decode_copysign}, {"setp", decode_setp},
      {"set", decode_set},   {"selp", decode_selp},   {"slct", decode_slct}};
  return opcodes;
}

}  // namespace emulator
