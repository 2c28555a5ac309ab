#include "exec/arithmetic.h"
#include "exec/decoder.h"
#include "exec/float_math.h"
#include "exec/lanes.h"
#include "exec/special_math.h"

/// rcp, sqrt and rsqrt in all roundings, and the approximate functions of the special function unit.
namespace emulator {
namespace {

// ---- approximate, f32 ----

template <class F, bool ftz>
[[gnu::always_inline]] inline float approximate(float operand) {
  constexpr bool is_one = std::is_same_v<F, Exp2>;  // 2 to a subnormal, flushed or not
  const float x = flush_if < ftz && !is_one > (operand);
  if constexpr (requires { F::quick(x); })
    return flush_if<ftz>(canonical(F::quick(x)));
  else
    return unless_nan(x, flush_if<ftz>(static_cast<float>(F::value(x))));
}

/// Lanes that need the host's function; `x` is what the lanes held before.
template <class F>
void repair_beyond(float* d, const float* x, Mask active) {
  const Mask large = mask_of(
      active, [](float v) { return std::fabs(v) > F::limit && std::fabs(v) < HUGE_VALF; }, x);
  each_lane(large, [&](int lane) { d[lane] = static_cast<float>(F::beyond(static_cast<double>(x[lane]))); });
}

template <class F, bool ftz>
[[gnu::flatten]] void run_approximate(Warp& warp, const Ins& ins, Mask active) {
  const auto f = [](float x) { return approximate<F, ftz>(x); };
  float* d = warp.lanes<float>(ins.d);
  const float* a = warp.lanes<float>(ins.a);
  if constexpr (requires { F::limit; }) {
    float x[kLanes];
    std::memcpy(x, a, sizeof x);
    map_lanes(active, d, f, static_cast<const float*>(x));
    repair_beyond<F>(d, x, active);
  } else {
    map_lanes(active, d, f, a);
  }
}

/// With noise; .ftz in aux. Zeros and what has no neighbours stay exact, as the ISA's tables of special
/// values ask.
template <class F>
void run_noisy(Warp& warp, const Ins& ins, Mask active) {
  const std::uint64_t seed = options().seed;
  const bool ftz = ins.aux != 0;
  float* d = warp.lanes<float>(ins.d);
  const float* a = warp.lanes<float>(ins.a);
  each_lane(active, [&](int lane) {
    const float x = ftz ? flush(a[lane]) : a[lane];
    const double wide = static_cast<double>(x);
    double y = F::value(x);
    if constexpr (requires { F::limit; }) {
      if (std::fabs(wide) > F::limit && std::fabs(wide) < HUGE_VAL) y = F::beyond(wide);
    }
    if (x != 0 && y != 0 && std::isfinite(y)) y = F::noisy(wide, y, noise_of(bits_of(x), seed));
    const float result = canonical(x == x ? static_cast<float>(y) : x);
    d[lane] = ftz ? flush(result) : result;
  });
}

/// `.approx{.ftz}.f32 d, a`, the modifier .approx taken.
template <class F>
void decode_approximate(Decoder& decoder, Ins& ins, bool may_flush = true) {
  const bool ftz = may_flush && decoder.take("ftz");
  if (decoder.type() != ptx::Type::f32) decoder.fail("expected f32");
  ins.aux = ftz;
  ins.run = options().noise ? run_noisy<F> : ftz ? run_approximate<F, true> : run_approximate<F, false>;
  decoder.instruction_class = Class::special;
  decoder.operand_count(2);
  ins.d = decoder.write(0, ptx::Type::f32);
  ins.a = decoder.read(1, ptx::Type::f32);
}

// ---- approximate, f64 ----

enum class Low { dropped, kept };  // .ftz forms read and write only the upper 32 bits

template <class F, Low low>
double approximate_f64(double operand, std::uint64_t seed) {
  const auto upper = [](double v) {
    if (low == Low::kept) return v;
    const std::uint64_t bits = bits_of(v) & 0xffffffff00000000u;
    return double_of((bits & 0x7ff0000000000000u) == 0 ? bits & 0x8000000000000000u : bits);
  };
  const double x = upper(operand);
  double y = F::value(x);
  // The ISA gives no bound for these; 2^-20 is the step of the upper half, and the refinement that nvcc
  // appends starts from there.
  if (seed != 0 && x != 0 && std::isfinite(y)) y = special::relative(y, 0x1p-21, noise_of(bits_of(x), seed));
  if (y != y) return double_of(low == Low::kept ? 0x7fffffffffffffffu : 0x7fffffff00000000u);
  return upper(y);
}

template <class F, Low low>
void run_approximate_f64(Warp& warp, const Ins& ins, Mask active) {
  const std::uint64_t seed = options().noise ? options().seed | 1 : 0;
  map_lanes(
      active, warp.lanes<double>(ins.d), [seed](double x) { return approximate_f64<F, low>(x, seed); },
      warp.lanes<double>(ins.a));
}

// ---- rounded ----

template <class F, bool ftz>
[[gnu::flatten]] void run_rounded_f32(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<float>(ins.d),
      [](float operand) {
        const float x = flush_if<ftz>(operand);
        return flush_if<ftz>(canonical(F::quick(x)));
      },
      warp.lanes<float>(ins.a));
}

template <class F>
[[gnu::flatten]] void run_rounded_f64(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<double>(ins.d), [](double x) { return F::value(x); }, warp.lanes<double>(ins.a));
}

/// rcp and sqrt: .rn, .rz, .rm, .rp.
template <class F>
void decode_rounded(Decoder& decoder, Ins& ins) {
  ins.aux2 = static_cast<std::uint16_t>(decoder.expect_one_of({"rn", "rz", "rm", "rp"}));
  const bool directed = ins.aux2 != 0;
  const bool ftz = decoder.take("ftz");
  const ptx::Type type = decoder.type();
  if (type == ptx::Type::f64 && !ftz) {
    ins.run = directed ? rounded<run_rounded_f64<F>> : run_rounded_f64<F>;
    decoder.instruction_class = Class::fp64;
  } else if (type == ptx::Type::f32) {
    static constexpr Run runs[2][2] = {
        {run_rounded_f32<F, false>, run_rounded_f32<F, true>},
        {rounded<run_rounded_f32<F, false>>, rounded<run_rounded_f32<F, true>>}};
    ins.run = runs[directed][ftz];
    decoder.instruction_class = Class::special;
  } else {
    decoder.fail("expected f32 or f64");
  }
  decoder.operand_count(2);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
}

template <class F, Low low>
void decode_f64(Decoder& decoder, Ins& ins) {
  if (low == Low::dropped) decoder.expect("ftz");
  decoder.expect("f64");
  ins.run = run_approximate_f64<F, low>;
  decoder.instruction_class = Class::fp64;
  decoder.operand_count(2);
  ins.d = decoder.write(0, ptx::Type::f64);
  ins.a = decoder.read(1, ptx::Type::f64);
}

// ---- division ----

/// .full: a / b. .approx: a * (1 / b), where the reciprocal of |b| > 2^126 is 0.
template <bool full, bool ftz, bool noisy>
[[gnu::flatten]] void run_division(Warp& warp, const Ins& ins, Mask active) {
  const std::uint64_t seed = options().seed;
  const auto f = [seed](float x, float y) {
    const float a = flush_if<ftz>(x), b = flush_if<ftz>(y);
    float quotient = a / b;
    if constexpr (noisy) {  // 2 ulp, of which rounding takes a half
      const double exact = static_cast<double>(a) / static_cast<double>(b);
      const std::uint64_t bits = (static_cast<std::uint64_t>(bits_of(a)) << 32) | bits_of(b);
      if (std::isfinite(exact))
        quotient = static_cast<float>(special::relative(exact, 0x1.8p-24, noise_of(bits, seed)));
    }
    if constexpr (!full) {
      const bool vanishes = std::fabs(b) > 0x1p126f && std::fabs(b) < HUGE_VALF;
      quotient = vanishes ? a * (b > 0 ? 0.0f : -0.0f) : quotient;
    }
    return flush_if<ftz>(canonical(quotient));
  };
  map_lanes(active, warp.lanes<float>(ins.d), f, warp.lanes<float>(ins.a), warp.lanes<float>(ins.b));
}

template <bool full>
Run division_run(bool ftz) {
  if (options().noise) return ftz ? run_division<full, true, true> : run_division<full, false, true>;
  return ftz ? run_division<full, true, false> : run_division<full, false, false>;
}

}  // namespace

void decode_approximate_division(Decoder& decoder, Ins& ins) {
  const bool full = decoder.expect_one_of({"approx", "full"}) == 1;
  const bool ftz = decoder.take("ftz");
  if (decoder.type() != ptx::Type::f32) decoder.fail("expected f32");
  ins.run = full ? division_run<true>(ftz) : division_run<false>(ftz);
  decoder.instruction_class = Class::special;
  decoder.operand_count(3);
  ins.d = decoder.write(0, ptx::Type::f32);
  ins.a = decoder.read(1, ptx::Type::f32);
  ins.b = decoder.read(2, ptx::Type::f32);
}

void decode_rcp(Decoder& decoder, Ins& ins) {
  if (!decoder.take("approx")) return decode_rounded<Reciprocal>(decoder, ins);
  if (decoder.ends_with_modifier("f64")) return decode_f64<Reciprocal, Low::dropped>(decoder, ins);
  decode_approximate<Reciprocal>(decoder, ins);
}

void decode_sqrt(Decoder& decoder, Ins& ins) {
  if (!decoder.take("approx")) return decode_rounded<Root>(decoder, ins);
  decode_approximate<Root>(decoder, ins);
}

void decode_rsqrt(Decoder& decoder, Ins& ins) {
  decoder.expect("approx");
  if (!decoder.ends_with_modifier("f64")) return decode_approximate<ReciprocalRoot>(decoder, ins);
  if (decoder.next() == "ftz") return decode_f64<ReciprocalRoot, Low::dropped>(decoder, ins);
  decode_f64<ReciprocalRoot, Low::kept>(decoder, ins);
}

void decode_sin(Decoder& decoder, Ins& ins) {
  decoder.expect("approx");
  decode_approximate<Sine>(decoder, ins);
}

void decode_cos(Decoder& decoder, Ins& ins) {
  decoder.expect("approx");
  decode_approximate<Cosine>(decoder, ins);
}

void decode_lg2(Decoder& decoder, Ins& ins) {
  decoder.expect("approx");
  decode_approximate<Log2>(decoder, ins);
}

void decode_ex2(Decoder& decoder, Ins& ins) {
  if (decode_half_arithmetic(decoder, ins)) return;
  decoder.expect("approx");
  decode_approximate<Exp2>(decoder, ins);
}

void decode_tanh(Decoder& decoder, Ins& ins) {
  if (decode_half_arithmetic(decoder, ins)) return;
  decoder.expect("approx");
  decode_approximate<Tanh>(decoder, ins, false);
}

}  // namespace emulator
