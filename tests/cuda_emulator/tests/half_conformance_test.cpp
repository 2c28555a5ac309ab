#include <catch2/catch.hpp>

#include "tests/conformance.h"
#include "tests/exact.h"

// f16, bf16 and their pairs: add, sub, mul, fma, neg, abs, min, max. References compute in integers
// (tests/exact.h).
namespace {

using namespace emulator::conformance;
namespace exact = emulator::exact;
using exact::Format;
using exact::Mode;

std::vector<std::uint64_t> specials(Format f) {
  const std::uint64_t one = static_cast<std::uint64_t>(f.bias()) << f.fraction_bits,
                      normal = std::uint64_t(1) << f.fraction_bits;
  std::vector<std::uint64_t> values;
  for (const std::uint64_t positive :
       {std::uint64_t(0), std::uint64_t(1), std::uint64_t(2), std::uint64_t(3), normal / 2, normal - 1,
        normal, normal + 1, one - 1, one, one + 1, one + normal + normal / 2,
        one - (static_cast<std::uint64_t>(f.fraction_bits) + 1) * normal, one + 8 * normal + 5,
        f.infinity() - 1, f.infinity(), f.infinity() + 1, f.nan()}) {
    values.push_back(positive);
    values.push_back(positive | f.sign());
  }
  return values;
}

/// Half of the random rows have exponents near each other, so that sums are rounded. Both halves of pairs
/// hold such values.
std::vector<Row> inputs(Format f, std::size_t count, std::size_t random) {
  std::vector<Row> rows = crossed(specials(f), count, random);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t k = 0; k < count; ++k) {
      std::uint64_t& value = rows[i][k];
      const bool is_random = i >= rows.size() - random;
      if (is_random && i % 2 == 0) {
        const std::uint64_t mask = f.infinity() << 16 | f.infinity();
        const std::uint64_t near = static_cast<std::uint64_t>(f.bias() - 6) + (value >> 32) % 13;
        value = (value & 0xffffffffu & ~mask) | near << f.fraction_bits | near << (16 + f.fraction_bits);
      }
      if (!is_random) value |= rows[(i * 7 + 3) % rows.size()][k] << 16;
    }
  }
  return rows;
}

struct Modifiers {
  bool ftz, sat, relu;
};

using Operation = std::uint64_t (*)(Format f, const double* x);
std::uint64_t add(Format f, const double* x) { return exact::add(f, x[0], x[1], Mode::nearest); }
std::uint64_t subtract(Format f, const double* x) { return exact::add(f, x[0], -x[1], Mode::nearest); }
std::uint64_t multiply(Format f, const double* x) { return exact::multiply(f, x[0], x[1], Mode::nearest); }
std::uint64_t fused(Format f, const double* x) { return exact::fma(f, x[0], x[1], x[2], Mode::nearest); }

std::uint64_t finished(Format f, std::uint64_t bits, Modifiers m) {
  if (m.ftz) bits = f.flushed(bits);
  const double value = exact::decode(f, bits);
  if (m.sat) return !(value > 0) ? 0 : value > 1 ? exact::encode(f, 1, Mode::nearest) : bits;
  return m.relu && value <= 0 ? 0 : bits;
}

/// Applies a function of 16-bit values to both halves, or to the only one.
Reference halves(bool pair, std::function<std::uint64_t(const std::uint64_t*)> f) {
  return one([=](const Row& in) {
    std::uint64_t result = 0;
    for (int shift = 0; shift <= (pair ? 16 : 0); shift += 16) {
      std::uint64_t x[3];
      for (std::size_t i = 0; i < 3; ++i) x[i] = in[i] >> shift & 0xffffu;
      result |= f(x) << shift;
    }
    return result;
  });
}

std::string signature(bool pair, std::size_t count) {
  return std::string(1, pair ? 'r' : 'h') + "=" + std::string(count, pair ? 'r' : 'h');
}

std::string check(const std::string& opcode, Format f, bool pair, std::size_t count, Operation operation) {
  const auto has = [&](const char* word) { return opcode.find(word) != std::string::npos; };
  const Modifiers m{has(".ftz"), has(".sat"), has(".relu")};
  const auto reference = halves(pair, [=](const std::uint64_t* bits) {
    double x[3] = {};
    for (std::size_t i = 0; i < count; ++i) x[i] = exact::decode(f, m.ftz ? f.flushed(bits[i]) : bits[i]);
    return finished(f, operation(f, x), m);
  });
  const std::string name = opcode + (f.fraction_bits == 7 ? ".bf16" : ".f16") + (pair ? "x2" : "");
  return mismatches({name, signature(pair, count), reference}, inputs(f, count, 30000));
}

/// f16 with .ftz and .sat, bf16 without; each alone and as a pair.
std::string check_arithmetic(const std::string& opcode, std::size_t count, Operation operation) {
  std::string wrong;
  for (const bool pair : {false, true}) {
    for (const char* modifiers : {"", ".ftz", ".sat", ".ftz.sat"})
      wrong += check(opcode + modifiers, exact::kF16, pair, count, operation);
    wrong += check(opcode, exact::kBf16, pair, count, operation);
    if (count != 3) continue;
    for (const char* modifiers : {".relu", ".ftz.relu"})
      wrong += check(opcode + modifiers, exact::kF16, pair, count, operation);
    wrong += check(opcode + ".relu", exact::kBf16, pair, count, operation);
  }
  return wrong;
}

struct Extreme {
  bool maximum, nan, xorsign, ftz;
};

std::uint64_t extreme(Format f, Extreme e, std::uint64_t a, std::uint64_t b) {
  if (e.ftz) a = f.flushed(a), b = f.flushed(b);
  const std::uint64_t sign = (a ^ b) & f.sign();
  if (e.xorsign) a &= ~f.sign(), b &= ~f.sign();
  const double x = exact::decode(f, a), y = exact::decode(f, b);
  if ((std::isnan(x) && std::isnan(y)) || (e.nan && (std::isnan(x) || std::isnan(y)))) return f.nan();
  const bool a_less = x < y || (x == y && (a & f.sign()) != 0);
  const std::uint64_t d = std::isnan(x) ? b : std::isnan(y) ? a : a_less != e.maximum ? a : b;
  return e.xorsign ? (d & ~f.sign()) | sign : d;
}

}  // namespace

TEST_CASE("half: sums are rounded once") {
  CHECK(check_arithmetic("add", 2, add) == "");
  CHECK(check_arithmetic("add.rn", 2, add) == "");
  CHECK(check_arithmetic("sub", 2, subtract) == "");
}

TEST_CASE("half: products are rounded once") { CHECK(check_arithmetic("mul", 2, multiply) == ""); }

TEST_CASE("half: fused multiply-add is rounded once") { CHECK(check_arithmetic("fma.rn", 3, fused) == ""); }

TEST_CASE("half: a bf16 product halfway between two numbers is rounded by what is added, however small") {
  // 1.0078125 * 1.5 = 1.51171875 lies halfway between 1.5078125 and 1.515625; 2^-133 is the least subnormal.
  const auto fma = [](std::uint64_t c) {
    return exact::fma(exact::kBf16, 1.0078125, 1.5, exact::decode(exact::kBf16, c), Mode::nearest);
  };
  REQUIRE(fma(0x0001) != fma(0x8001));
  const Reference reference = one([&](const Row& in) { return fma(in[2]); });
  CHECK(mismatches({"fma.rn.bf16", "h=hhh", reference},
                   crossed({{0x3f81}, {0x3fc0}, {0x0001, 0x8001, 0, 0x8000}}, 0)) == "");
}

TEST_CASE("half: minimum and maximum treat NaN, signed zeros and .xorsign as documented") {
  for (int i = 0; i < 64; ++i) {
    const Extreme e{(i & 1) != 0, (i & 2) != 0, (i & 4) != 0, (i & 8) != 0};
    const bool pair = (i & 16) != 0, bf16 = (i & 32) != 0;
    if (bf16 && e.ftz) continue;
    const Format f = bf16 ? exact::kBf16 : exact::kF16;
    const std::string name = std::string(e.maximum ? "max" : "min") + (e.ftz ? ".ftz" : "") +
                             (e.nan ? ".NaN" : "") + (e.xorsign ? ".xorsign.abs" : "") +
                             (bf16 ? ".bf16" : ".f16") + (pair ? "x2" : "");
    CHECK(mismatches({name, signature(pair, 2),
                      halves(pair, [=](const std::uint64_t* x) { return extreme(f, e, x[0], x[1]); })},
                     inputs(f, 2, 5000)) == "");
  }
}

TEST_CASE("half: abs and neg change the sign bits alone") {
  const auto rows = inputs(exact::kF16, 1, 5000);
  for (const bool pair : {false, true}) {
    const std::string x2 = pair ? "x2" : "";
    const auto absolute = halves(pair, [](const std::uint64_t* x) { return x[0] & 0x7fffu; });
    const auto negative = halves(pair, [](const std::uint64_t* x) { return x[0] ^ 0x8000u; });
    for (const std::string type : {"f16", "bf16"}) {
      CHECK(mismatches({"abs." + type + x2, signature(pair, 1), absolute}, rows) == "");
      CHECK(mismatches({"neg." + type + x2, signature(pair, 1), negative}, rows) == "");
    }
    const auto flushed =
        halves(pair, [](const std::uint64_t* x) { return exact::kF16.flushed(x[0]) ^ 0x8000u; });
    CHECK(mismatches({"neg.ftz.f16" + x2, signature(pair, 1), flushed}, rows) == "");
  }
}

TEST_CASE("half: ex2 and tanh of pairs are those of their halves") {
  const auto rows = inputs(exact::kF16, 1, 5000);
  const std::string split =
      "{ .reg .b16 low, high; mov.b32 {low, high}, %a0; OP.T low, low; OP.T high, high; mov.b32 %d1, {low, "
      "high}; OP.Tx2 %d0, %a0; }";
  for (const auto& [op, type] : {std::pair<std::string, std::string>("ex2.approx", "f16"),
                                 {"ex2.approx.ftz", "bf16"},
                                 {"tanh.approx", "f16"},
                                 {"tanh.approx", "bf16"}}) {
    std::string text = split;
    for (std::size_t at; (at = text.find("OP")) != std::string::npos;) text.replace(at, 2, op);
    for (std::size_t at; (at = text.find(".T")) != std::string::npos;) text.replace(at, 2, "." + type);
    const Accept equal = [](const Row&, const Row&, const Row& got) { return got[0] == got[1]; };
    CHECK(mismatches({text, "rr=r", [](const Row&, Row&) {}, equal}, rows) == "");
  }
}

TEST_CASE("half: a form that the ISA does not have is refused") {
  CHECK(refusal("fma.rn.bf16", "h=hhh") == "");
  CHECK(refusal("fma.bf16", "h=hhh") != "");
  CHECK(refusal("add.ftz.bf16", "h=hh") != "");
  CHECK(refusal("add.relu.f16", "h=hh") != "");
  CHECK(refusal("add.rz.f16", "h=hh") != "");
  CHECK(refusal("ex2.approx.bf16", "h=h") != "");
  CHECK(refusal("add.f16x2", "h=hh") != "");
}
