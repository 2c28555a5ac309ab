#include <catch2/catch.hpp>

#include "tests/conformance.h"
#include "tests/exact.h"

// f32 and f64: add, sub, mul, fma, mad, div, rcp, sqrt, min, max, abs, neg, testp, copysign. References
// compute in integers (tests/exact.h).
namespace {

using namespace emulator::conformance;
namespace exact = emulator::exact;
using exact::Format;
using exact::Mode;

constexpr Mode kModes[] = {Mode::nearest, Mode::zero, Mode::down, Mode::up};
const char* const kModeNames[] = {"rn", "rz", "rm", "rp"};

std::vector<std::uint64_t> specials(Format f) {
  const std::uint64_t one = static_cast<std::uint64_t>(f.bias()) << f.fraction_bits,
                      normal = std::uint64_t(1) << f.fraction_bits;
  std::vector<std::uint64_t> values;
  for (const std::uint64_t positive : {std::uint64_t(0), std::uint64_t(1), normal - 1, normal, normal + 1,
                                       one - 1, one, one + 1, one + 2 * normal + normal / 2, 2 * one - 1,
                                       f.infinity() - 1, f.infinity(), f.infinity() + 1, f.nan()}) {
    values.push_back(positive);
    values.push_back(positive | f.sign());
  }
  return values;
}

/// Random bits rarely have exponents close to each other, and then nothing is rounded: three quarters of the
/// rows get exponents near that of the first input.
std::vector<Row> inputs(Format f, std::size_t count, std::size_t random) {
  std::vector<Row> rows = crossed(specials(f), count, random);
  const std::uint64_t exponents = f.infinity();
  for (std::size_t i = rows.size() - random; i < rows.size(); ++i) {
    if (i % 4 == 0) continue;
    for (std::size_t k = 1; k < count; ++k) {
      const std::uint64_t near = (rows[i][0] & exponents) + ((rows[i][k] >> 8) % 61 << f.fraction_bits) -
                                 (std::uint64_t(30) << f.fraction_bits);
      rows[i][k] = (rows[i][k] & ~exponents) | (near & exponents);
    }
    // Products near the third operand.
    if (count == 3 && i % 4 == 1)
      rows[i][1] = (rows[i][1] & ~exponents) | (static_cast<std::uint64_t>(f.bias()) << f.fraction_bits);
  }
  return rows;
}

std::uint64_t finished(Format f, std::uint64_t bits, bool ftz, bool sat) {
  if (ftz) bits = f.flushed(bits);
  if (!sat) return bits;
  const double value = exact::decode(f, bits);
  return !(value > 0) ? 0 : value > 1 ? exact::encode(f, 1, Mode::nearest) : bits;
}

/// Any NaN for f64: which payload survives is not documented.
bool same_f64(const Row&, const Row& expected, const Row& got) {
  return exact::kF64.is_nan(expected[0]) ? exact::kF64.is_nan(got[0]) : expected[0] == got[0];
}

using Operation = std::uint64_t (*)(Format f, const double* x, Mode mode);

std::string check_rounding(const std::string& opcode, Format f, std::size_t count, Operation operation,
                           std::size_t mode, const std::string& modifiers, const std::vector<Row>& rows) {
  const bool ftz = modifiers.find("ftz") != std::string::npos,
             sat = modifiers.find("sat") != std::string::npos;
  const bool wide = f.fraction_bits == 52;
  const auto reference = one([=](const Row& in) {
    double x[3] = {};
    for (std::size_t i = 0; i < count; ++i) x[i] = exact::decode(f, ftz ? f.flushed(in[i]) : in[i]);
    return finished(f, operation(f, x, kModes[mode]), ftz, sat);
  });
  Form form{opcode + modifiers + (wide ? ".f64" : ".f32"),
            std::string(1, wide ? 'd' : 'r') + "=" + std::string(count, wide ? 'd' : 'r'), reference};
  if (wide) form.accept = same_f64;
  return mismatches(form, rows);
}

/// All roundings of one opcode, for f32 with .ftz and (if it may be) .sat.
std::string check_all_roundings(const std::string& opcode, std::size_t count, Operation operation,
                                bool may_saturate, std::size_t random) {
  std::string wrong;
  const std::vector<Row> f32_rows = inputs(exact::kF32, count, random),
                         f64_rows = inputs(exact::kF64, count, random);
  for (std::size_t mode = 0; mode < 4; ++mode) {
    const std::string name = opcode + "." + kModeNames[mode];
    wrong += check_rounding(name, exact::kF64, count, operation, mode, "", f64_rows);
    for (const char* modifiers : {"", ".ftz", ".sat", ".ftz.sat"})
      if (may_saturate || std::string(modifiers).find("sat") == std::string::npos)
        wrong += check_rounding(name, exact::kF32, count, operation, mode, modifiers, f32_rows);
  }
  return wrong;
}

constexpr std::size_t kRandom = 20000;

std::uint64_t add(Format f, const double* x, Mode mode) { return exact::add(f, x[0], x[1], mode); }
std::uint64_t subtract(Format f, const double* x, Mode mode) { return exact::add(f, x[0], -x[1], mode); }
std::uint64_t multiply(Format f, const double* x, Mode mode) { return exact::multiply(f, x[0], x[1], mode); }
std::uint64_t divide(Format f, const double* x, Mode mode) { return exact::divide(f, x[0], x[1], mode); }
std::uint64_t fused(Format f, const double* x, Mode mode) { return exact::fma(f, x[0], x[1], x[2], mode); }
std::uint64_t reciprocal(Format f, const double* x, Mode mode) { return exact::divide(f, 1, x[0], mode); }
std::uint64_t square_root(Format f, const double* x, Mode mode) { return exact::square_root(f, x[0], mode); }

// ---- minimum and maximum, as the pseudo-code of the PTX ISA has it ----

struct Extreme {
  bool maximum, nan, xorsign, ftz;
};

std::uint64_t extreme(Format f, Extreme e, std::uint64_t a, std::uint64_t b) {
  if (e.ftz) a = f.flushed(a), b = f.flushed(b);
  const std::uint64_t sign = (a ^ b) & f.sign();
  if (e.xorsign) a &= ~f.sign(), b &= ~f.sign();
  const bool a_nan = f.is_nan(a), b_nan = f.is_nan(b);
  if ((a_nan && b_nan) || (e.nan && (a_nan || b_nan))) return f.nan();
  std::uint64_t d = a;
  if (a_nan) {
    d = b;
  } else if (!b_nan) {
    const double x = exact::decode(f, a), y = exact::decode(f, b);
    const bool a_less = x < y || (x == y && (a & f.sign()) != 0);
    d = a_less != e.maximum ? a : b;
  }
  return e.xorsign ? (d & ~f.sign()) | sign : d;
}

}  // namespace

TEST_CASE("float: sums are rounded once in each of the four modes") {
  CHECK(check_all_roundings("add", 2, add, true, kRandom) == "");
  CHECK(check_all_roundings("sub", 2, subtract, true, kRandom) == "");
}

TEST_CASE("float: products are rounded once in each of the four modes") {
  CHECK(check_all_roundings("mul", 2, multiply, true, kRandom) == "");
}

TEST_CASE("float: fused multiply-add is rounded once in each of the four modes") {
  CHECK(check_all_roundings("fma", 3, fused, true, kRandom) == "");
  CHECK(check_rounding("mad.rn", exact::kF32, 3, fused, 0, "", inputs(exact::kF32, 3, kRandom)) == "");
  CHECK(check_rounding("mad.rz", exact::kF64, 3, fused, 1, "", inputs(exact::kF64, 3, kRandom)) == "");
}

TEST_CASE("float: quotients are rounded once in each of the four modes") {
  CHECK(check_all_roundings("div", 2, divide, false, kRandom) == "");
}

TEST_CASE("float: reciprocals and square roots are rounded once in each of the four modes") {
  CHECK(check_all_roundings("rcp", 1, reciprocal, false, kRandom) == "");
  CHECK(check_all_roundings("sqrt", 1, square_root, false, kRandom) == "");
}

TEST_CASE("float: without a rounding modifier sums and products are rounded to nearest") {
  const auto f32 = inputs(exact::kF32, 2, kRandom);
  CHECK(check_rounding("add", exact::kF32, 2, add, 0, "", f32) == "");
  CHECK(check_rounding("sub", exact::kF32, 2, subtract, 0, ".ftz", f32) == "");
  CHECK(check_rounding("mul", exact::kF32, 2, multiply, 0, ".sat", f32) == "");
  CHECK(check_rounding("mul", exact::kF64, 2, multiply, 0, "", inputs(exact::kF64, 2, kRandom)) == "");
}

TEST_CASE("float: minimum and maximum treat NaN, signed zeros and .xorsign as documented") {
  const auto rows = inputs(exact::kF32, 2, kRandom);
  for (int i = 0; i < 16; ++i) {
    const Extreme e{(i & 1) != 0, (i & 2) != 0, (i & 4) != 0, (i & 8) != 0};
    const std::string name = std::string(e.maximum ? "max" : "min") + (e.ftz ? ".ftz" : "") +
                             (e.nan ? ".NaN" : "") + (e.xorsign ? ".xorsign.abs" : "") + ".f32";
    CHECK(
        mismatches({name, "r=rr", one([e](const Row& in) { return extreme(exact::kF32, e, in[0], in[1]); })},
                   rows) == "");
  }
  for (const bool maximum : {false, true}) {
    const Extreme e{maximum, false, false, false};
    CHECK(mismatches({maximum ? "max.f64" : "min.f64", "d=dd",
                      one([e](const Row& in) { return extreme(exact::kF64, e, in[0], in[1]); }), same_f64},
                     inputs(exact::kF64, 2, kRandom)) == "");
  }
}

TEST_CASE("float: abs, neg and copysign change the sign bit alone") {
  const auto f32 = inputs(exact::kF32, 2, 1000), f64 = inputs(exact::kF64, 2, 1000);
  constexpr std::uint64_t sign = 0x80000000u, wide_sign = std::uint64_t(1) << 63;
  CHECK(mismatches({"abs.f32", "r=r", one([](const Row& in) { return in[0] & ~sign; })}, f32) == "");
  CHECK(mismatches(
            {"abs.ftz.f32", "r=r", one([](const Row& in) { return exact::kF32.flushed(in[0]) & ~sign; })},
            f32) == "");
  CHECK(mismatches({"neg.f32", "r=r", one([](const Row& in) { return in[0] ^ sign; })}, f32) == "");
  CHECK(
      mismatches({"neg.ftz.f32", "r=r", one([](const Row& in) { return exact::kF32.flushed(in[0]) ^ sign; })},
                 f32) == "");
  CHECK(mismatches({"abs.f64", "d=d", one([](const Row& in) { return in[0] & ~wide_sign; })}, f64) == "");
  CHECK(mismatches({"neg.f64", "d=d", one([](const Row& in) { return in[0] ^ wide_sign; })}, f64) == "");
  CHECK(mismatches(
            {"copysign.f32", "r=rr", one([](const Row& in) { return (in[0] & sign) | (in[1] & ~sign); })},
            f32) == "");
  CHECK(mismatches({"copysign.f64", "d=dd",
                    one([](const Row& in) { return (in[0] & wide_sign) | (in[1] & ~wide_sign); })},
                   f64) == "");
}

TEST_CASE("float: testp tells the classes of numbers, zero being a normal one") {
  struct {
    const char* name;
    std::function<bool(Format, std::uint64_t)> holds;
  } const properties[] = {
      {"finite", [](Format f, std::uint64_t x) { return std::isfinite(exact::decode(f, x)); }},
      {"infinite", [](Format f, std::uint64_t x) { return std::isinf(exact::decode(f, x)); }},
      {"number", [](Format f, std::uint64_t x) { return !std::isnan(exact::decode(f, x)); }},
      {"notanumber", [](Format f, std::uint64_t x) { return std::isnan(exact::decode(f, x)); }},
      {"normal",
       [](Format f, std::uint64_t x) { return std::isfinite(exact::decode(f, x)) && !f.is_subnormal(x); }},
      {"subnormal", [](Format f, std::uint64_t x) { return f.is_subnormal(x); }},
  };
  for (const auto& property : properties) {
    const auto reference = [&](Format f) {
      return one([f, holds = property.holds](const Row& in) { return holds(f, in[0]); });
    };
    CHECK(mismatches({std::string("testp.") + property.name + ".f32", "p=r", reference(exact::kF32)},
                     inputs(exact::kF32, 1, 500)) == "");
    CHECK(mismatches({std::string("testp.") + property.name + ".f64", "p=d", reference(exact::kF64)},
                     inputs(exact::kF64, 1, 500)) == "");
  }
}

TEST_CASE("float: a form that the ISA does not have is refused") {
  CHECK(refusal("add.rn.f32", "r=rr") == "");
  CHECK(refusal("add.rn.ftz.f64", "d=dd") != "");
  CHECK(refusal("fma.f32", "r=rrr") != "");
  CHECK(refusal("div.f32", "r=rr") != "");
  CHECK(refusal("sqrt.f32", "r=r") != "");
  CHECK(refusal("add.rn.relu.f32", "r=rr") != "");
  CHECK(refusal("add.f32", "r=rd") != "");
}
