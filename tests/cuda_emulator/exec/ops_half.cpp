#include "exec/arithmetic.h"
#include "exec/decoder.h"
#include "exec/half_math.h"
#include "exec/lanes.h"
#include "exec/special_math.h"

/// f16, bf16 and their pairs: add, sub, mul, fma, neg, abs, min, max, ex2, tanh. Every result is rounded
/// once.
namespace emulator {
namespace {

// ---- operations on one element: Format::widen'ed operands in, something that rounds correctly out ----

// Sums: float has 24 >= 2p + 2 bits for p = 11 and 8, so rounding to float first does no harm (Figueroa,
// "When is double rounding innocuous?", 1995), and sums that are subnormal in the narrow format are exact.
struct Add {
  template <class Format>
  [[gnu::always_inline]] static float apply(float a, float b) {
    return a + b;
  }
};
struct Subtract {
  template <class Format>
  [[gnu::always_inline]] static float apply(float a, float b) {
    return a - b;
  }
};

// Products have 22 bits for f16, no lower than 2^-48: exact in float. Those of bf16 have 16 bits: exact too,
// or below 2^-134, a half of the least number, and then zero either way.
struct Multiply {
  template <class Format>
  [[gnu::always_inline]] static float apply(float a, float b) {
    return a * b;
  }
};

// The product is exact in double. A sum that is not exact matters only if its larger operand lies halfway
// between two numbers of the format, so is a product. For f16 such a product would exceed 2^28, since addends
// are multiples of 2^-24: infinity either way. For bf16 it happens; hence the error term.
struct FusedMultiplyAdd {
  template <class Format>
  [[gnu::always_inline]] static double apply(float a, float b, float c) {
    const double product = static_cast<double>(a) * static_cast<double>(b), addend = static_cast<double>(c);
    const double sum = product + addend;
    if constexpr (std::is_same_v<Format, F16>)
      return sum;
    else
      return round_to_odd(sum, sum_error(product, addend, sum));
  }
};

enum class After { nothing, saturate, relu };

template <class Format, class Op, After after, bool ftz, class... X>
[[gnu::always_inline]] inline std::uint32_t element(X... bits) {
  const auto result = Op::template apply<Format>(Format::widen(ftz ? Format::flush(bits) : bits)...);
  const auto clamped = after == After::saturate ? saturate(result)
                       : after == After::relu   ? relu(result)
                                                : result;
  const std::uint32_t rounded = Format::template round<Rounding::nearest>(clamped);
  return ftz ? Format::flush(rounded) : rounded;
}

/// d = f(a…) for 16-bit registers, or for both halves of 32-bit registers.
template <bool pair, class F, class... S>
[[gnu::always_inline]] inline void map_halves(Warp& warp, Slot d, Mask active, F f, S... sources) {
  if constexpr (pair) {
    const auto both = [f](auto... x) __attribute__((always_inline)) {
      return f((x & 0xffffu)...) | (f((x >> 16)...) << 16);
    };
    map_lanes(active, warp.lanes<std::uint32_t>(d), both, warp.lanes<std::uint32_t>(sources)...);
  } else {
    const auto one = [f](auto... x) __attribute__((always_inline)) {
      return static_cast<std::uint16_t>(f(static_cast<std::uint32_t>(x)...));
    };
    map_lanes(active, warp.lanes<std::uint16_t>(d), one, warp.lanes<std::uint16_t>(sources)...);
  }
}

template <class Op, class Format, bool pair, After after, bool ftz>
[[gnu::flatten]] void run_arithmetic(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](auto... x) __attribute__((always_inline)) {
    return element<Format, Op, after, ftz>(x...);
  };
  if constexpr (requires { Op::template apply<Format>(0.0f, 0.0f, 0.0f); }) {
    map_halves<pair>(warp, ins.d, active, f, ins.a, ins.b, ins.c);
  } else {
    map_halves<pair>(warp, ins.d, active, f, ins.a, ins.b);
  }
}

// ---- decoding ----

struct HalfType {
  ptx::Type type;
  bool bf16, pair;
};

HalfType expect_half(Decoder& decoder) {
  const ptx::Type type = decoder.type();
  return {type, type == ptx::Type::bf16 || type == ptx::Type::bf16x2,
          type == ptx::Type::f16x2 || type == ptx::Type::bf16x2};
}

void read_operands(Decoder& decoder, Ins& ins, ptx::Type type, std::size_t sources) {
  decoder.instruction_class = Class::half;
  decoder.operand_count(sources + 1);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  if (sources > 1) ins.b = decoder.read(2, type);
  if (sources > 2) ins.c = decoder.read(3, type);
}

template <class Op, class Format, bool pair>
Run arithmetic_run(After after, bool ftz) {
  static constexpr bool fma = requires { Op::template apply<Format>(0.0f, 0.0f, 0.0f); }
  , f16 = std::is_same_v<Format, F16>;
  static constexpr Run plain = run_arithmetic<Op, Format, pair, After::nothing, false>;
  // Of the three, only fma has .relu; only f16 has .ftz and .sat.
  if constexpr (fma) {
    if (after == After::relu && !ftz) return run_arithmetic<Op, Format, pair, After::relu, false>;
    if constexpr (f16)
      if (after == After::relu) return run_arithmetic<Op, Format, pair, After::relu, true>;
  }
  if constexpr (f16) {
    if (after == After::saturate)
      return ftz ? run_arithmetic<Op, Format, pair, After::saturate, true>
                 : run_arithmetic<Op, Format, pair, After::saturate, false>;
    if (ftz) return run_arithmetic<Op, Format, pair, After::nothing, true>;
  }
  return plain;
}

template <class Op>
void decode_rounding(Decoder& decoder, Ins& ins, std::size_t sources) {
  const bool fma = sources == 3;
  if (fma)
    decoder.expect("rn");
  else
    decoder.take("rn");
  const bool ftz = decoder.take("ftz");
  const After after = decoder.take("sat")           ? After::saturate
                      : fma && decoder.take("relu") ? After::relu
                                                    : After::nothing;
  const HalfType half = expect_half(decoder);
  if (half.bf16 && (ftz || after == After::saturate)) decoder.fail(".ftz and .sat do not apply to bf16");
  if (half.bf16) {
    ins.run = half.pair ? arithmetic_run<Op, Bf16, true>(after, false)
                        : arithmetic_run<Op, Bf16, false>(after, false);
  } else {
    ins.run =
        half.pair ? arithmetic_run<Op, F16, true>(after, ftz) : arithmetic_run<Op, F16, false>(after, ftz);
  }
  read_operands(decoder, ins, half.type, sources);
}

// ---- signs ----

/// aux: 1 for abs; aux2: 1 for .ftz (f16 only).
template <bool pair>
[[gnu::flatten]] void run_sign(Warp& warp, const Ins& ins, Mask active) {
  const bool absolute = ins.aux != 0, ftz = ins.aux2 != 0;
  const auto f = [ absolute, ftz ](std::uint32_t x) __attribute__((always_inline)) {
    const std::uint32_t flushed = ftz ? F16::flush(x) : x;
    return absolute ? flushed & 0x7fffu : flushed ^ 0x8000u;
  };
  map_halves<pair>(warp, ins.d, active, f, ins.a);
}

void decode_sign(Decoder& decoder, Ins& ins, bool absolute) {
  ins.aux = absolute;
  ins.aux2 = decoder.take("ftz");
  const HalfType half = expect_half(decoder);
  if (half.bf16 && ins.aux2 != 0) decoder.fail(".ftz does not apply to bf16");
  ins.run = half.pair ? run_sign<true> : run_sign<false>;
  read_operands(decoder, ins, half.type, 1);
}

// ---- minimum and maximum ----

/// As the PTX ISA's pseudo-code of min and max; -0 is below +0.
template <class Format, bool maximum, bool nan, bool xorsign>
[[gnu::always_inline]] inline std::uint32_t extreme(std::uint32_t x, std::uint32_t y) {
  const std::uint32_t sign = xorsign ? (x ^ y) & 0x8000u : 0;
  const std::uint32_t a = xorsign ? x & 0x7fffu : x, b = xorsign ? y & 0x7fffu : y;
  const auto key = [](std::uint32_t v) __attribute__((always_inline)) {
    return (v & 0x8000u) != 0 ? -static_cast<std::int32_t>(v & 0x7fffu) - 1 : static_cast<std::int32_t>(v);
  };
  const std::uint32_t picked = (key(a) < key(b)) != maximum ? a : b;
  const bool a_nan = Format::is_nan(a), b_nan = Format::is_nan(b);
  const std::uint32_t number = a_nan ? b : b_nan ? a : picked;
  const bool nan_result = nan ? (a_nan | b_nan) : (a_nan & b_nan);
  return nan_result ? Format::nan : number | sign;
}

/// aux: 1 for .ftz (f16 only).
template <class Format, bool pair, bool maximum, bool nan, bool xorsign>
[[gnu::flatten]] void run_extreme(Warp& warp, const Ins& ins, Mask active) {
  const bool ftz = ins.aux != 0;
  const auto f = [ftz](std::uint32_t x, std::uint32_t y) __attribute__((always_inline)) {
    const std::uint32_t a = ftz ? Format::flush(x) : x, b = ftz ? Format::flush(y) : y;
    return extreme<Format, maximum, nan, xorsign>(a, b);
  };
  map_halves<pair>(warp, ins.d, active, f, ins.a, ins.b);
}

template <class Format, bool pair, bool maximum>
Run extreme_run(bool nan, bool xorsign) {
  static constexpr Run runs[2][2] = {
      {run_extreme<Format, pair, maximum, false, false>, run_extreme<Format, pair, maximum, false, true>},
      {run_extreme<Format, pair, maximum, true, false>, run_extreme<Format, pair, maximum, true, true>}};
  return runs[nan][xorsign];
}

template <bool maximum>
void decode_extreme(Decoder& decoder, Ins& ins) {
  ins.aux = decoder.take("ftz");
  const bool nan = decoder.take("NaN"), xorsign = decoder.take("xorsign");
  if (xorsign) decoder.expect("abs");
  const HalfType half = expect_half(decoder);
  if (half.bf16 && ins.aux != 0) decoder.fail(".ftz does not apply to bf16");
  if (half.bf16) {
    ins.run = half.pair ? extreme_run<Bf16, true, maximum>(nan, xorsign)
                        : extreme_run<Bf16, false, maximum>(nan, xorsign);
  } else {
    ins.run = half.pair ? extreme_run<F16, true, maximum>(nan, xorsign)
                        : extreme_run<F16, false, maximum>(nan, xorsign);
  }
  read_operands(decoder, ins, half.type, 2);
}

// ---- ex2 and tanh ----

template <class F, class Format>
double noisy(double y, double u) {
  if constexpr (std::is_same_v<Format, F16>)
    return F::noisy_f16(y, u);
  else
    return F::noisy_bf16(y, u);
}

/// ex2.approx.ftz.bf16 flushes, ex2.approx.f16 and tanh do not.
template <class F, class Format, bool pair, bool ftz>
[[gnu::flatten]] void run_approximate(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](std::uint32_t bits) __attribute__((always_inline)) {
    const float x = Format::widen(ftz ? Format::flush(bits) : bits);
    const float y = static_cast<float>(F::value(x));
    const std::uint32_t rounded = Format::template round<Rounding::nearest>(unless_nan(x, y));
    return ftz ? Format::flush(rounded) : rounded;
  };
  map_halves<pair>(warp, ins.d, active, f, ins.a);
}

template <class F, class Format, bool pair, bool ftz>
void run_noisy(Warp& warp, const Ins& ins, Mask active) {
  const std::uint64_t seed = options().seed;
  const auto f = [seed](std::uint32_t bits) __attribute__((always_inline)) {
    const float x = Format::widen(ftz ? Format::flush(bits) : bits);
    double y = F::value(x);
    if (x != 0 && y != 0) y = noisy<F, Format>(y, noise_of(bits, seed));
    const std::uint32_t rounded =
        Format::template round<Rounding::nearest>(x == x ? static_cast<float>(y) : x);
    return ftz ? Format::flush(rounded) : rounded;
  };
  map_halves<pair>(warp, ins.d, active, f, ins.a);
}

template <class F, class Format, bool ftz>
Run approximate_run(bool pair) {
  if (options().noise) return pair ? run_noisy<F, Format, true, ftz> : run_noisy<F, Format, false, ftz>;
  return pair ? run_approximate<F, Format, true, ftz> : run_approximate<F, Format, false, ftz>;
}

/// `flushes`: ex2 has .ftz for bf16 and not for f16; tanh never has it.
template <class F, bool flushes>
void decode_approximate(Decoder& decoder, Ins& ins) {
  decoder.expect("approx");
  const bool ftz = decoder.take("ftz");
  const HalfType half = expect_half(decoder);
  if (ftz != (flushes && half.bf16)) decoder.fail(ftz ? ".ftz does not apply" : ".ftz is missing");
  ins.run =
      half.bf16 ? approximate_run<F, Bf16, flushes>(half.pair) : approximate_run<F, F16, false>(half.pair);
  read_operands(decoder, ins, half.type, 1);
  decoder.instruction_class = Class::special;
}

struct Shared {
  std::string_view opcode;
  Decode decode;
};
constexpr Shared kShared[] = {
    {"add", [](Decoder& d, Ins& i) { decode_rounding<Add>(d, i, 2); }},
    {"sub", [](Decoder& d, Ins& i) { decode_rounding<Subtract>(d, i, 2); }},
    {"mul", [](Decoder& d, Ins& i) { decode_rounding<Multiply>(d, i, 2); }},
    {"fma", [](Decoder& d, Ins& i) { decode_rounding<FusedMultiplyAdd>(d, i, 3); }},
    {"min", decode_extreme<false>},
    {"max", decode_extreme<true>},
    {"abs", [](Decoder& d, Ins& i) { decode_sign(d, i, true); }},
    {"neg", [](Decoder& d, Ins& i) { decode_sign(d, i, false); }},
    {"ex2", decode_approximate<Exp2, true>},
    {"tanh", decode_approximate<Tanh, false>},
};

}  // namespace

bool decode_half_arithmetic(Decoder& decoder, Ins& ins) {
  if (decoder.source.modifiers.empty()) return false;
  const std::string& last = decoder.source.modifiers.back();
  if (last != "f16" && last != "f16x2" && last != "bf16" && last != "bf16x2") return false;
  for (const Shared& shared : kShared) {
    if (shared.opcode == decoder.source.opcode) {
      shared.decode(decoder, ins);
      return true;
    }
  }
  return false;
}

/// All opcodes of these types are shared with others: see decode_half_arithmetic().
}  // namespace emulator
