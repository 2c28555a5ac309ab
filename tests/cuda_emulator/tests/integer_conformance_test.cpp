#include <catch2/catch.hpp>

#include "tests/conformance.h"

// add, sub, mul, mad, div, rem, min, max, abs, neg, sad and their forms with carry, saturation and 24 bits.
// References compute with 128 bits and cut at the end.
namespace {

using namespace emulator::conformance;

__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 Uint128;

struct Kind {
  std::string name;
  char operand;  // of signatures
  int bits;
  bool sign;
};
const Kind kKinds[] = {{"u16", 'h', 16, false}, {"s16", 'h', 16, true},  {"u32", 'r', 32, false},
                       {"s32", 'r', 32, true},  {"u64", 'd', 64, false}, {"s64", 'd', 64, true}};
const Kind& kU32 = kKinds[2];
const Kind& kS32 = kKinds[3];

std::string signature(const Kind& kind, std::size_t inputs) {
  return std::string(1, kind.operand) + "=" + std::string(inputs, kind.operand);
}

/// What the bits of an operand mean.
Int128 value(const Kind& kind, std::uint64_t bits) {
  const bool negative = kind.sign && (bits >> (kind.bits - 1) & 1u) != 0;
  return static_cast<Int128>(bits) - (negative ? static_cast<Int128>(1) << kind.bits : 0);
}
/// The exact product of two operands, modulo 2^128.
Uint128 product(const Kind& kind, const Row& in) {
  return static_cast<Uint128>(value(kind, in[0])) * static_cast<Uint128>(value(kind, in[1]));
}

std::vector<std::uint64_t> edges(const Kind& kind) {
  const std::uint64_t top = std::uint64_t(1) << (kind.bits - 1);
  return {
      0, 1, 2, 3, 10, top - 2, top - 1, top, top + 1, top / 2, 2 * top - 1, 2 * top - 2, 0x5555555555555555u};
}
std::vector<Row> inputs(const Kind& kind, std::size_t count) {
  auto rows = crossed(edges(kind), count, 0);
  // Numbers of all magnitudes, of both signs.
  std::mt19937_64 generator(5);
  for (int i = 0; i < 2000; ++i) {
    Row row{};
    for (std::size_t k = 0; k < count; ++k) {
      row[k] = generator() >> (generator() % 64);
      if (generator() % 2 != 0) row[k] = ~row[k];
    }
    rows.push_back(row);
  }
  return rows;
}

using Exact2 = Int128 (*)(Int128 a, Int128 b);

/// An operation on two numbers whose exact result is cut to the operands' width.
void check_binary(const std::string& text, const Kind& kind, Exact2 exact) {
  const auto reference =
      one([&kind, exact](const Row& in) { return exact(value(kind, in[0]), value(kind, in[1])); });
  CHECK(mismatches({text + "." + kind.name, signature(kind, 2), reference}, inputs(kind, 2)) == "");
}

/// The same on each half of 32 bits.
void check_halves(const std::string& text, const Kind& half, Exact2 exact) {
  const auto reference = one([&half, exact](const Row& in) {
    const auto low =
        static_cast<std::uint16_t>(exact(value(half, in[0] & 0xffffu), value(half, in[1] & 0xffffu)));
    const auto high = static_cast<std::uint16_t>(exact(value(half, in[0] >> 16), value(half, in[1] >> 16)));
    return low | static_cast<std::uint32_t>(high) << 16;
  });
  std::vector<std::uint64_t> specials;
  for (const std::uint64_t x : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0xffffu})
    for (const std::uint64_t y : {0x0000u, 0x7ffeu, 0x8001u, 0xffffu}) specials.push_back(x << 16 | y);
  CHECK(mismatches({text + "." + half.name + "x2", "r=rr", reference}, crossed(specials, 2, 500)) == "");
}

Int128 sum(Int128 a, Int128 b) { return a + b; }
Int128 difference(Int128 a, Int128 b) { return a - b; }
Int128 smaller(Int128 a, Int128 b) { return a < b ? a : b; }
Int128 larger(Int128 a, Int128 b) { return a < b ? b : a; }
Int128 smaller_or_zero(Int128 a, Int128 b) { return larger(smaller(a, b), 0); }
Int128 larger_or_zero(Int128 a, Int128 b) { return larger(larger(a, b), 0); }
Int128 clamped(Int128 a) {
  return a > 0x7fffffff                          ? 0x7fffffff
         : a < -static_cast<Int128>(0x80000000u) ? -static_cast<Int128>(0x80000000u)
                                                 : a;
}
Int128 clamped_sum(Int128 a, Int128 b) { return clamped(a + b); }
Int128 clamped_difference(Int128 a, Int128 b) { return clamped(a - b); }

/// Two words in two registers each, as one number of 2 * bits; and what does not fit.
struct Sum {
  Uint128 low;
  bool carry;
};
Sum add_words(int bits, Uint128 a, Uint128 b) {
  if (bits == 32) return {(a + b) & ~std::uint64_t(0), (a + b) >> 64 != 0};
  return {a + b, a + b < a};
}
Uint128 joined(int bits, std::uint64_t low, std::uint64_t high) {
  return static_cast<Uint128>(high) << bits | low;
}

void write_words(int bits, Sum s, std::uint64_t last, Row& out) {
  out[0] = static_cast<std::uint64_t>(s.low);
  out[1] = static_cast<std::uint64_t>(s.low >> bits);
  out[2] = last;
}

std::string three_of(char operand, std::size_t inputs) {
  return std::string(3, operand) + "=" + std::string(inputs, operand);
}

std::vector<Row> carry_inputs(const Kind& kind, std::size_t count) {
  const std::uint64_t ones = kind.bits == 64 ? ~std::uint64_t(0) : 0xffffffffu;
  return crossed({0, 1, ones / 2, ones / 2 + 1, ones - 1, ones}, count, 1000);
}

}  // namespace

TEST_CASE("integer: add and sub wrap around") {
  for (const Kind& kind : kKinds) {
    check_binary("add", kind, sum);
    check_binary("sub", kind, difference);
  }
  check_halves("add", kKinds[0], sum);
  check_halves("add", kKinds[1], sum);
}

TEST_CASE("integer: add.sat and sub.sat stop at the ends of s32") {
  check_binary("add.sat", kS32, clamped_sum);
  check_binary("sub.sat", kS32, clamped_difference);
}

TEST_CASE("integer: mul and mad give the low half, the high half or all of the product") {
  for (const Kind& kind : kKinds) {
    const std::string type = "." + kind.name;
    const auto low = [&kind](const Row& in) { return static_cast<std::uint64_t>(product(kind, in)); };
    const auto high = [&kind](const Row& in) {
      return static_cast<std::uint64_t>(product(kind, in) >> kind.bits);
    };
    CHECK(mismatches({"mul.lo" + type, signature(kind, 2), one(low)}, inputs(kind, 2)) == "");
    CHECK(mismatches({"mul.hi" + type, signature(kind, 2), one(high)}, inputs(kind, 2)) == "");
    CHECK(mismatches(
              {"mad.lo" + type, signature(kind, 3), one([low](const Row& in) { return low(in) + in[2]; })},
              inputs(kind, 3)) == "");
    CHECK(mismatches(
              {"mad.hi" + type, signature(kind, 3), one([high](const Row& in) { return high(in) + in[2]; })},
              inputs(kind, 3)) == "");
    if (kind.bits == 64) continue;
    const std::string wide(1, kind.bits == 16 ? 'r' : 'd'), two(2, kind.operand);
    CHECK(mismatches({"mul.wide" + type, wide + "=" + two, one(low)}, inputs(kind, 2)) == "");
    CHECK(mismatches({"mad.wide" + type, wide + "=" + two + wide,
                      one([low](const Row& in) { return low(in) + in[2]; })},
                     inputs(kind, 3)) == "");
  }
}

TEST_CASE("integer: mul24 and mad24 use the lower 24 bits of their factors") {
  for (const Kind& kind : {kU32, kS32}) {
    const Kind narrow{"", 'r', 24, kind.sign};
    const auto whole = [narrow](const Row& in) {
      return product(narrow, Row{in[0] & 0xffffffu, in[1] & 0xffffffu});
    };
    const auto low = [whole](const Row& in) { return static_cast<std::uint64_t>(whole(in)); };
    const auto high = [whole](const Row& in) { return static_cast<std::uint64_t>(whole(in) >> 16); };
    auto rows = inputs(kind, 3);
    for (const Row& row : crossed({0, 1, 0x7fffffu, 0x800000u, 0xffffffu, 0xff800000u, 0x1000000u}, 3, 0))
      rows.push_back(row);
    CHECK(mismatches({"mul24.lo." + kind.name, "r=rr", one(low)}, rows) == "");
    CHECK(mismatches({"mul24.hi." + kind.name, "r=rr", one(high)}, rows) == "");
    CHECK(
        mismatches({"mad24.lo." + kind.name, "r=rrr", one([low](const Row& in) { return low(in) + in[2]; })},
                   rows) == "");
    CHECK(mismatches(
              {"mad24.hi." + kind.name, "r=rrr", one([high](const Row& in) { return high(in) + in[2]; })},
              rows) == "");
  }
}

TEST_CASE("integer: div and rem round towards zero, and division by zero stops nobody") {
  for (const Kind& kind : kKinds) {
    const auto quotient =
        one([&kind](const Row& in) { return in[1] == 0 ? 0 : value(kind, in[0]) / value(kind, in[1]); });
    const auto remainder =
        one([&kind](const Row& in) { return in[1] == 0 ? 0 : value(kind, in[0]) % value(kind, in[1]); });
    const Accept accept = [](const Row& in, const Row& expected, const Row& got) {
      return in[1] == 0 || expected == got;
    };
    CHECK(mismatches({"div." + kind.name, signature(kind, 2), quotient, accept}, inputs(kind, 2)) == "");
    CHECK(mismatches({"rem." + kind.name, signature(kind, 2), remainder, accept}, inputs(kind, 2)) == "");
  }
}

TEST_CASE("integer: min and max compare as the type says, also by halves, and relu ends at zero") {
  for (const Kind& kind : kKinds) {
    check_binary("min", kind, smaller);
    check_binary("max", kind, larger);
  }
  for (const Kind& kind : {kKinds[0], kKinds[1]}) {
    check_halves("min", kind, smaller);
    check_halves("max", kind, larger);
  }
  check_binary("min.relu", kS32, smaller_or_zero);
  check_binary("max.relu", kS32, larger_or_zero);
  check_halves("min.relu", kKinds[1], smaller_or_zero);
  check_halves("max.relu", kKinds[1], larger_or_zero);
}

TEST_CASE("integer: abs, neg and sad") {
  for (const Kind& kind : kKinds) {
    const auto apart = one([&kind](const Row& in) {
      const Int128 d = value(kind, in[0]) - value(kind, in[1]);
      return static_cast<Int128>(in[2]) + (d < 0 ? -d : d);
    });
    CHECK(mismatches({"sad." + kind.name, signature(kind, 3), apart}, inputs(kind, 3)) == "");
    if (!kind.sign) continue;
    const auto magnitude = one(
        [&kind](const Row& in) { return value(kind, in[0]) < 0 ? -value(kind, in[0]) : value(kind, in[0]); });
    CHECK(mismatches({"abs." + kind.name, signature(kind, 1), magnitude}, inputs(kind, 1)) == "");
    CHECK(mismatches({"neg." + kind.name, signature(kind, 1),
                      one([&kind](const Row& in) { return -value(kind, in[0]); })},
                     inputs(kind, 1)) == "");
  }
}

TEST_CASE("integer: add.cc, addc and addc.cc add numbers of several words") {
  for (const Kind& kind : kKinds) {
    if (kind.bits == 16) continue;
    const std::string t = "." + kind.name;
    const Reference reference = [bits = kind.bits](const Row& in, Row& out) {
      const Sum s = add_words(bits, joined(bits, in[0], in[2]), joined(bits, in[1], in[3]));
      write_words(bits, s, s.carry ? 8 : 7, out);
    };
    const std::string text =
        "add.cc" + t + " %d0, %a0, %a1; addc.cc" + t + " %d1, %a2, %a3; addc" + t + " %d2, 3, 4;";
    CHECK(mismatches({text, three_of(kind.operand, 4), reference}, carry_inputs(kind, 4)) == "");
  }
}

TEST_CASE("integer: sub.cc, subc and subc.cc subtract numbers of several words") {
  for (const Kind& kind : kKinds) {
    if (kind.bits == 16) continue;
    const std::string t = "." + kind.name;
    const Reference reference = [bits = kind.bits](const Row& in, Row& out) {
      const Uint128 a = joined(bits, in[0], in[2]), b = joined(bits, in[1], in[3]);
      write_words(bits, {a - b, false}, a < b ? 4 : 5, out);
    };
    const std::string text =
        "sub.cc" + t + " %d0, %a0, %a1; subc.cc" + t + " %d1, %a2, %a3; subc" + t + " %d2, 9, 4;";
    CHECK(mismatches({text, three_of(kind.operand, 4), reference}, carry_inputs(kind, 4)) == "");
  }
}

TEST_CASE("integer: mad.cc and madc add a product to a number of two words") {
  for (const Kind& kind : kKinds) {
    if (kind.bits == 16) continue;
    const std::string t = "." + kind.name;
    const auto whole = [&kind](const Row& in) {
      const Uint128 p = product(kind, in);
      return kind.bits == 32 ? p & ~std::uint64_t(0) : p;
    };
    const Reference upwards = [whole, bits = kind.bits](const Row& in, Row& out) {
      const Sum s = add_words(bits, whole(in), joined(bits, in[2], in[3]));
      write_words(bits, s, s.carry ? 1 : 0, out);
    };
    const std::string end = " %d1, %a0, %a1, %a3; addc" + t + " %d2, 0, 0;";
    CHECK(mismatches({"mad.lo.cc" + t + " %d0, %a0, %a1, %a2; madc.hi.cc" + t + end,
                      three_of(kind.operand, 4), upwards},
                     carry_inputs(kind, 4)) == "");
    // The halves the other way round: a number of two words whose low one is the product's high half.
    const Reference downwards = [whole, bits = kind.bits](const Row& in, Row& out) {
      const Uint128 p = whole(in);
      const std::uint64_t ones = bits == 32 ? 0xffffffffu : ~std::uint64_t(0);
      const Sum s = add_words(
          bits,
          joined(bits, static_cast<std::uint64_t>(p >> bits) & ones, static_cast<std::uint64_t>(p) & ones),
          joined(bits, in[2], in[3]));
      write_words(bits, s, s.carry ? 1 : 0, out);
    };
    CHECK(mismatches({"mad.hi.cc" + t + " %d0, %a0, %a1, %a2; madc.lo.cc" + t + end,
                      three_of(kind.operand, 4), downwards},
                     carry_inputs(kind, 4)) == "");
  }
}

TEST_CASE("integer: a carry belongs to its lane, and instructions without .cc leave it alone") {
  const Reference reference = [](const Row& in, Row& out) { out[0] = (in[0] + in[1]) >> 32; };
  const std::string text =
      "{ .reg .b32 t; add.cc.u32 t, %a0, %a1; mul.lo.u32 t, t, 3; add.u32 t, t, 0xffffffff; mad.lo.u32 t, t, "
      "t, t; addc.u32 %d0, 0, 0; }";
  CHECK(mismatches({text, "r=rr", reference}, carry_inputs(kU32, 2)) == "");
  const std::string guarded =
      "{ .reg .b32 t; .reg .pred p; add.cc.u32 t, 0, 0; setp.gt.u32 p, %a0, 5; @p add.cc.u32 t, 0xffffffff, "
      "1; addc.u32 %d0, 0, 0; }";
  CHECK(mismatches({guarded, "r=r", one([](const Row& in) { return in[0] > 5 ? 1 : 0; })},
                   crossed({4, 5, 6, 7}, 1, 200)) == "");
}

TEST_CASE("integer: a destination may be a source, and sources may be literals") {
  CHECK(mismatches({"mov.u32 %d0, %a0; mad.lo.u32 %d0, %d0, %d0, %d0;", "r=r",
                    one([](const Row& in) { return in[0] * in[0] + in[0]; })},
                   inputs(kU32, 1)) == "");
  CHECK(mismatches(
            {"sub.s32 %d0, %a0, -2147483648;", "r=r", one([](const Row& in) { return in[0] + 0x80000000u; })},
            inputs(kS32, 1)) == "");
  CHECK(mismatches({"add.s64 %d0, %a0, -1;", "d=d", one([](const Row& in) { return in[0] - 1; })},
                   inputs(kKinds[5], 1)) == "");
  CHECK(mismatches({"add.s16 %d0, %a0, -1;", "h=h", one([](const Row& in) { return in[0] - 1; })},
                   inputs(kKinds[1], 1)) == "");
}

TEST_CASE("integer: a form that the ISA does not have is refused") {
  for (const auto& [text, operands] : {std::pair("add.sat.u32", "r=rr"),
                                       {"add.sat.s64", "d=dd"},
                                       {"add.cc.u16", "h=hh"},
                                       {"add.b32", "r=rr"},
                                       {"add.u8", "h=hh"},
                                       {"addc.cc.s16", "h=hh"},
                                       {"mul.s32", "r=rr"},
                                       {"mul.wide.u64", "d=dd"},
                                       {"mul.wide.u32", "r=rr"},
                                       {"mad.wide.s64", "d=ddd"},
                                       {"mad.wide.u32", "d=rrr"},
                                       {"mul24.lo.u64", "d=dd"},
                                       {"mad.lo.cc.u16", "h=hhh"},
                                       {"madc.wide.u32", "d=rrd"},
                                       {"div.b32", "r=rr"},
                                       {"rem.sat.s32", "r=rr"},
                                       {"min.relu.u32", "r=rr"},
                                       {"min.relu.s64", "d=dd"},
                                       {"max.relu.u16x2", "r=rr"},
                                       {"max.u16x2", "h=hh"},
                                       {"sub.u16x2", "r=rr"},
                                       {"abs.u32", "r=r"},
                                       {"neg.u64", "d=d"},
                                       {"sad.b32", "r=rrr"},
                                       {"sad.u32", "r=rr"},
                                       {"add.u32", "r=rrr"},
                                       {"add.u32", "r=rd"}})
    CHECK(refusal(text, operands) != "");
  CHECK(refusal("add.u32", "r=rr") == "");
}
