#include <catch2/catch.hpp>

#include "tests/conformance.h"
#include "tests/exact.h"

// cvt. References: 128-bit integers, and exact rounding in integers (tests/exact.h).
namespace {

using namespace emulator::conformance;
namespace exact = emulator::exact;
using exact::Format;
using exact::Mode;
__extension__ typedef __int128 Wide;

struct Kind {
  std::string name;
  int bits;
  char family;  // 's', 'u', 'f'
  Format format = {};
};
const Kind kIntegers[] = {{"s8", 8, 's'},   {"u8", 8, 'u'},   {"s16", 16, 's'}, {"u16", 16, 'u'},
                          {"s32", 32, 's'}, {"u32", 32, 'u'}, {"s64", 64, 's'}, {"u64", 64, 'u'}};
const Kind kFloats[] = {{"f16", 16, 'f', exact::kF16},
                        {"bf16", 16, 'f', exact::kBf16},
                        {"f32", 32, 'f', exact::kF32},
                        {"f64", 64, 'f', exact::kF64}};

const char* const kRoundings[] = {"rn", "rz", "rm", "rp"};
const char* const kIntegral[] = {"rni", "rzi", "rmi", "rpi"};
constexpr Mode kModes[] = {Mode::nearest, Mode::zero, Mode::down, Mode::up};

char letter(int register_bits) { return register_bits <= 16 ? 'h' : register_bits == 32 ? 'r' : 'd'; }
int bits_of(char operand) { return Signature::bits(operand); }

/// Registers that may hold a type: its own width and all wider ones.
std::vector<char> registers(const Kind& kind) {
  std::vector<char> letters;
  for (const char l : {'h', 'r', 'd'})
    if (bits_of(l) >= kind.bits) letters.push_back(l);
  return letters;
}

Wide low_of(const Kind& kind) { return kind.family == 's' ? -(static_cast<Wide>(1) << (kind.bits - 1)) : 0; }
Wide high_of(const Kind& kind) {
  return (static_cast<Wide>(1) << (kind.family == 's' ? kind.bits - 1 : kind.bits)) - 1;
}

/// The lower bits of a register as a number of the type.
Wide value_of(const Kind& kind, std::uint64_t bits) {
  const Wide modulus = static_cast<Wide>(1) << kind.bits;
  const Wide value = static_cast<Wide>(bits) % modulus;
  return value > high_of(kind) ? value - modulus : value;
}

/// What a register of 64 bits or fewer holds for a number: two's complement, which the harness cuts to the
/// register.
std::uint64_t register_of(const Kind& kind, Wide value) {
  return static_cast<std::uint64_t>(value_of(kind, static_cast<std::uint64_t>(value)));
}

std::vector<std::uint64_t> integers() {
  std::vector<std::uint64_t> values = {0, 1, 2, 5};
  for (const int bits : {7, 8, 11, 15, 16, 24, 31, 32, 53, 63}) {
    const std::uint64_t power = std::uint64_t(1) << bits;
    for (const std::uint64_t x :
         {power - 1, power, power + 1, power + (power >> 8), power + (power >> 8) + 1, power + (power >> 11),
          power + (power >> 24) + 1, power + (power >> 53) + 1})
      values.insert(values.end(), {x, 0 - x});
  }
  return values;
}
const std::vector<Row>& integer_rows() {
  static const std::vector<Row> rows = [] {
    std::vector<Row> all = crossed(integers(), 1, 20000);
    for (std::size_t i = all.size() - 15000; i < all.size(); ++i) all[i][0] = all[i][0] >> (i % 64);
    return all;
  }();
  return rows;
}

std::vector<Row> float_rows(Format f, std::size_t count = 1) {
  const std::uint64_t one = static_cast<std::uint64_t>(f.bias()) << f.fraction_bits,
                      normal = std::uint64_t(1) << f.fraction_bits;
  std::vector<std::uint64_t> positive = {0,
                                         1,
                                         2,
                                         3,
                                         normal - 1,
                                         normal,
                                         normal + 1,
                                         one - 1,
                                         one,
                                         one + 1,
                                         f.infinity() - 1,
                                         f.infinity(),
                                         f.infinity() + 1,
                                         f.nan()};
  // Numbers at and next to the borders of integer types and of narrower formats, and halves.
  for (const double x : {0.25,
                         0.5,
                         0.75,
                         1.5,
                         2.5,
                         3.5,
                         127.0,
                         127.5,
                         128.0,
                         255.0,
                         255.5,
                         256.0,
                         448.0,
                         464.0,
                         480.0,
                         32767.5,
                         32768.0,
                         57344.0,
                         61440.0,
                         65504.0,
                         65519.0,
                         65520.0,
                         65535.5,
                         65536.0,
                         0x1p31 - 1,
                         0x1p31,
                         0x1p32 - 1,
                         0x1p32,
                         0x1p63,
                         0x1p64,
                         0x1p-9,
                         0x1p-10,
                         0x1p-14,
                         0x1p-16,
                         0x1p-17,
                         0x1p-24,
                         0x1p-25,
                         0x1.8p-24,
                         0x1p-133,
                         0x1p-134,
                         0x1p-126,
                         0x1p-149,
                         0x1.fep127,
                         0x1.ffp127,
                         0x1.fffffep127,
                         0x1.ffffffp127,
                         0x1.01p0,
                         0x1.03p0,
                         0x1.002p0,
                         0x1.006p0,
                         0x1.08p0,
                         0x1.18p0,
                         0x1.001p0,
                         0x1.003p0}) {
    const std::uint64_t bits = exact::encode(f, x, Mode::zero);
    positive.insert(positive.end(), {bits - (bits != 0), bits, bits + 1});
  }
  std::vector<std::uint64_t> values;
  for (const std::uint64_t bits : positive) values.insert(values.end(), {bits, bits | f.sign()});
  if (count == 2) {
    std::vector<Row> rows = crossed(values, 1, 0);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i][1] = rows[(i * 5 + 1) % rows.size()][0];
    const std::vector<Row> random = random_rows(20000);
    rows.insert(rows.end(), random.begin(), random.end());
    return rows;
  }
  std::vector<Row> rows = crossed(values, 1, 20000);
  for (std::size_t i = rows.size() - 15000; i < rows.size(); ++i) {  // exponents that matter: 2^-30 to 2^70
    const auto exponent = static_cast<std::uint64_t>(
        std::min(std::max(1, f.bias() - 30 + static_cast<int>(i % 101)), 2 * f.bias()));
    rows[i][0] = (rows[i][0] & (f.sign() | (normal - 1))) | exponent << f.fraction_bits;
  }
  return rows;
}

std::string signature(char to, char from) { return {to, '=', from}; }

std::uint64_t flushed_input(const Kind& kind, bool ftz, std::uint64_t bits) {
  return ftz && kind.name == "f32" ? exact::kF32.flushed(bits) : bits;
}

double input(const Kind& kind, bool ftz, std::uint64_t bits) {
  return exact::decode(
      kind.format,
      flushed_input(kind, ftz, kind.bits == 64 ? bits : bits & ((std::uint64_t(1) << kind.bits) - 1)));
}

std::uint64_t output(const Kind& kind, bool ftz, bool sat, std::uint64_t bits) {
  if (ftz && kind.name == "f32") bits = exact::kF32.flushed(bits);
  if (!sat) return bits;
  const double value = exact::decode(kind.format, bits);
  return !(value > 0) ? 0 : value > 1 ? exact::encode(kind.format, 1, Mode::nearest) : bits;
}

/// Rounded to an integral number in the mode; NaN and infinities stay.
double integral(double x, std::size_t mode) {
  if (!std::isfinite(x) || std::fabs(x) >= 0x1p53) return x;
  const double below =
      std::copysign(std::fabs(static_cast<double>(static_cast<std::int64_t>(x))), x);  // toward zero
  const double rest = std::fabs(x - below), away = std::copysign(1.0, x);
  const bool odd = static_cast<std::int64_t>(below) % 2 != 0;
  const bool step = mode == 0   ? rest > 0.5 || (rest == 0.5 && odd)
                    : mode == 1 ? false
                                : rest > 0 && (mode == 3) == (x > 0);
  return step ? std::copysign(std::fabs(below + away), x) : below;
}

/// The number of an integer type nearest to an integral x; NaN as the PTX ISA says.
std::uint64_t clamped(const Kind& to, const Kind& from, double x) {
  if (std::isnan(x))
    return to.bits == 64 || from.bits == 64 ? register_of(to, static_cast<Wide>(1) << (to.bits - 1)) : 0;
  if (x >= 0x1p70) return register_of(to, high_of(to));
  if (x <= -0x1p70) return register_of(to, low_of(to));
  return register_of(to, std::min(std::max(static_cast<Wide>(x), low_of(to)), high_of(to)));
}

Accept any_nan(const Kind& to) {
  return [f = to.format](const Row&, const Row& expected, const Row& got) {
    return f.is_nan(expected[0]) ? f.is_nan(got[0]) : expected[0] == got[0];
  };
}

/// bf16 has fewer forms than the other floats.
bool is_bf16(const Kind& a, const Kind& b) { return a.name == "bf16" || b.name == "bf16"; }
bool no_such_form(const Kind& to, const Kind& from) {
  return is_bf16(to, from) && (to.bits == 8 || from.bits == 8);
}

bool needs_rounding(const Kind& to, const Kind& from) {
  return to.bits < from.bits || (to.name != from.name && to.bits == 16 && from.bits == 16);
}

}  // namespace

TEST_CASE("convert: integers are cut and extended, in registers of any sufficient width") {
  for (const Kind& to : kIntegers) {
    for (const Kind& from : kIntegers) {
      for (const char d : registers(to)) {
        for (const char a : registers(from)) {
          const auto reference = one([=](const Row& in) { return register_of(to, value_of(from, in[0])); });
          CHECK(mismatches({"cvt." + to.name + "." + from.name, signature(d, a), reference},
                           integer_rows()) == "");
        }
      }
    }
  }
}

TEST_CASE("convert: .sat clamps integers to the destination's range") {
  for (const Kind& to : kIntegers) {
    for (const Kind& from : kIntegers) {
      if (low_of(from) >= low_of(to) && high_of(from) <= high_of(to))
        continue;  // nothing to clamp: not a form
      const auto reference = one([=](const Row& in) {
        return register_of(to, std::min(std::max(value_of(from, in[0]), low_of(to)), high_of(to)));
      });
      CHECK(mismatches({"cvt.sat." + to.name + "." + from.name,
                        signature(registers(to).back(), registers(from).front()), reference},
                       integer_rows()) == "");
    }
  }
}

TEST_CASE("convert: integers become floats with one rounding in each mode") {
  for (const Kind& to : kFloats) {
    for (const Kind& from : kIntegers) {
      for (std::size_t mode = 0; mode < 4; ++mode) {
        for (const bool sat : {false, true}) {
          if (no_such_form(to, from) || (sat && is_bf16(to, from))) continue;
          const auto reference = one([=](const Row& in) {
            const Wide value = value_of(from, in[0]);
            return output(
                to, false, sat,
                exact::encode_integer(to.format, value < 0,
                                      static_cast<std::uint64_t>(value < 0 ? -value : value), kModes[mode]));
          });
          const std::string text =
              std::string("cvt.") + kRoundings[mode] + (sat ? ".sat." : ".") + to.name + "." + from.name;
          CHECK(mismatches({text, signature(letter(to.bits), registers(from).front()), reference},
                           integer_rows()) == "");
        }
      }
    }
  }
}

TEST_CASE("convert: floats become integers in each rounding, clamped, with the documented values for NaN") {
  for (const Kind& to : kIntegers) {
    for (const Kind& from : kFloats) {
      if (no_such_form(to, from)) continue;
      const std::vector<Row> rows = float_rows(from.format);
      for (std::size_t mode = 0; mode < 4; ++mode) {
        for (const bool ftz : {false, true}) {
          if (ftz && from.name != "f32") continue;
          const auto reference =
              one([=](const Row& in) { return clamped(to, from, integral(input(from, ftz, in[0]), mode)); });
          const std::string text =
              std::string("cvt.") + kIntegral[mode] + (ftz ? ".ftz." : ".") + to.name + "." + from.name;
          CHECK(mismatches({text, signature(registers(to).front(), letter(from.bits)), reference}, rows) ==
                "");
        }
      }
      const auto reference =
          one([=](const Row& in) { return clamped(to, from, integral(input(from, false, in[0]), 1)); });
      if (is_bf16(to, from)) continue;  // takes no wider registers
      CHECK(mismatches({"cvt.rzi." + to.name + "." + from.name, signature('d', 'd'), reference}, rows) == "");
    }
  }
}

TEST_CASE("convert: floats become other floats with one rounding in each mode") {
  for (const Kind& to : kFloats) {
    for (const Kind& from : kFloats) {
      const std::vector<Row> rows = float_rows(from.format);
      for (std::size_t mode = 0; mode < 4; ++mode) {
        const bool rounds = needs_rounding(to, from);
        if (!rounds && mode > 0) continue;
        for (const bool ftz : {false, true}) {
          if (ftz && from.name != "f32" && to.name != "f32") continue;
          for (const bool sat : {false, true}) {
            if (sat && is_bf16(to, from)) continue;
            const auto reference = one([=](const Row& in) {
              if (to.name == from.name && !sat) return flushed_input(from, ftz, in[0]);
              return output(to, ftz, sat, exact::encode(to.format, input(from, ftz, in[0]), kModes[mode]));
            });
            const std::string text = std::string("cvt") +
                                     (rounds ? std::string(".") + kRoundings[mode] : "") +
                                     (ftz ? ".ftz" : "") + (sat ? ".sat." : ".") + to.name + "." + from.name;
            CHECK(mismatches({text, signature(letter(to.bits), letter(from.bits)), reference, any_nan(to)},
                             rows) == "");
          }
        }
      }
    }
  }
}

TEST_CASE("convert: floats are rounded to integral floats") {
  for (const Kind& kind : kFloats) {
    for (std::size_t mode = 0; mode < 4; ++mode) {
      for (const bool ftz : {false, true}) {
        if (ftz && kind.name != "f32") continue;
        const auto reference = one([=](const Row& in) {
          return exact::encode(kind.format, integral(input(kind, ftz, in[0]), mode), Mode::nearest) |
                 (in[0] & kind.format.sign());
        });
        const std::string text =
            std::string("cvt.") + kIntegral[mode] + (ftz ? ".ftz." : ".") + kind.name + "." + kind.name;
        CHECK(mismatches({text, signature(letter(kind.bits), letter(kind.bits)), reference, any_nan(kind)},
                         float_rows(kind.format)) == "");
      }
    }
  }
}

// ---- narrow and packed forms ----

namespace {

std::uint64_t narrowed(Format f, std::uint64_t f32_bits, Mode mode, bool relu, bool satfinite) {
  double x = exact::decode(exact::kF32, f32_bits);
  if (std::isnan(x)) return f.nan();
  if (relu && x <= 0) x = 0;
  const std::uint64_t bits = exact::encode(f, x, mode);
  const std::uint64_t magnitude = bits & (f.sign() - 1);
  return satfinite && magnitude > f.largest() ? (bits & f.sign()) | f.largest() : bits;
}

struct Target {
  std::string name;
  Format format;
};

}  // namespace

TEST_CASE("convert: .relu and .satfinite of f16 and bf16, alone and in pairs") {
  for (const Target& to : {Target{"f16", exact::kF16}, Target{"bf16", exact::kBf16}}) {
    for (int i = 0; i < 8; ++i) {
      const bool zero = (i & 1) != 0, relu = (i & 2) != 0, satfinite = (i & 4) != 0;
      const Mode mode = zero ? Mode::zero : Mode::nearest;
      const std::string modifiers =
          std::string(zero ? ".rz" : ".rn") + (relu ? ".relu" : "") + (satfinite ? ".satfinite." : ".");
      const auto single =
          one([=](const Row& in) { return narrowed(to.format, in[0], mode, relu, satfinite); });
      CHECK(mismatches({"cvt" + modifiers + to.name + ".f32", "h=r", single}, float_rows(exact::kF32)) == "");
      const auto pair = one([=](const Row& in) {
        return narrowed(to.format, in[0], mode, relu, satfinite) << 16 |
               narrowed(to.format, in[1], mode, relu, satfinite);
      });
      CHECK(mismatches({"cvt" + modifiers + to.name + "x2.f32", "r=rr", pair}, float_rows(exact::kF32, 2)) ==
            "");
    }
  }
}

TEST_CASE("convert: tf32 keeps ten bits of the fraction") {
  for (const auto& [rounding, mode] :
       {std::pair<std::string, Mode>("rna", Mode::away), {"rn", Mode::nearest}, {"rz", Mode::zero}}) {
    for (int i = 0; i < 4; ++i) {
      const bool relu = (i & 1) != 0, satfinite = (i & 2) != 0;
      if (rounding == "rna" ? relu : satfinite) continue;
      const auto reference = one([=, mode = mode](const Row& in) -> std::uint64_t {
        if (exact::kF32.is_nan(in[0])) return 0x7fffffffu;
        return narrowed(exact::kTf32, in[0], mode, relu, satfinite) << 13;
      });
      CHECK(mismatches(
                {"cvt." + rounding + (satfinite ? ".satfinite" : "") + (relu ? ".relu" : "") + ".tf32.f32",
                 "r=r", reference},
                float_rows(exact::kF32)) == "");
    }
  }
}

TEST_CASE("convert: 8-bit floats saturate and come back exactly") {
  for (const Target& to : {Target{"e4m3x2", exact::kE4m3}, Target{"e5m2x2", exact::kE5m2}}) {
    for (const bool relu : {false, true}) {
      const std::string modifiers = relu ? ".relu." : ".";
      const auto pair = one([=](const Row& in) {
        return narrowed(to.format, in[0], Mode::nearest, relu, true) << 8 |
               narrowed(to.format, in[1], Mode::nearest, relu, true);
      });
      CHECK(mismatches({"cvt.rn.satfinite" + modifiers + to.name + ".f32", "h=rr", pair},
                       float_rows(exact::kF32, 2)) == "");
      const auto widened = [](std::uint64_t half) {
        return exact::encode(exact::kF32, exact::decode(exact::kF16, half), Mode::nearest);
      };
      const auto from_f16 = one([=](const Row& in) {
        return narrowed(to.format, widened(in[0] >> 16), Mode::nearest, relu, true) << 8 |
               narrowed(to.format, widened(in[0] & 0xffffu), Mode::nearest, relu, true);
      });
      CHECK(mismatches({"cvt.rn.satfinite" + modifiers + to.name + ".f16x2", "h=r", from_f16},
                       random_rows(100000)) == "");
      const auto back = one([=](const Row& in) {
        const auto element = [&](std::uint64_t bits) {
          return narrowed(exact::kF16,
                          exact::encode(exact::kF32, exact::decode(to.format, bits), Mode::nearest),
                          Mode::nearest, relu, false);
        };
        return element(in[0] >> 8) << 16 | element(in[0] & 0xffu);
      });
      std::vector<Row> all(65536);
      for (std::size_t i = 0; i < all.size(); ++i) all[i][0] = i;
      CHECK(mismatches({"cvt.rn" + modifiers + "f16x2." + to.name, "r=h", back}, all) == "");
    }
  }
}

TEST_CASE("convert: pack saturates two integers and shifts a third above them") {
  for (const Kind& to : {Kind{"s16", 16, 's'}, Kind{"u16", 16, 'u'}, Kind{"s8", 8, 's'}, Kind{"u8", 8, 'u'},
                         Kind{"s4", 4, 's'}, Kind{"u4", 4, 'u'}, Kind{"s2", 2, 's'}, Kind{"u2", 2, 'u'}}) {
    const Kind s32{"s32", 32, 's'};
    const auto element = [=](std::uint64_t x) {
      const Wide value = std::min(std::max(value_of(s32, x), low_of(to)), high_of(to));
      return static_cast<std::uint64_t>(value) & ((std::uint64_t(1) << to.bits) - 1);
    };
    const bool three = to.bits < 16;
    const auto reference = one([=](const Row& in) {
      return element(in[1]) | element(in[0]) << to.bits | (three ? in[2] << (2 * to.bits) : 0);
    });
    const std::vector<std::uint64_t> values = {
        0,           1,           2,           3,           7,           8,           15,
        16,          127,         128,         255,         256,         32767,       32768,
        65535,       65536,       0x7fffffffu, 0x80000000u, 0xffff8000u, 0xffff7fffu, 0xffffff80u,
        0xffffff7fu, 0xfffffff8u, 0xfffffffeu, 0xffffffffu};
    CHECK(mismatches({"cvt.pack.sat." + to.name + ".s32" + (three ? ".b32" : ""), three ? "r=rrr" : "r=rr",
                      reference},
                     crossed({values, values, {0, 0x12345678u}}, 1000)) == "");
  }
}

TEST_CASE("convert: a form that the ISA does not have is refused") {
  CHECK(refusal("cvt.u32.f32", "r=r") != "");
  CHECK(refusal("cvt.rn.u32.f32", "r=r") != "");
  CHECK(refusal("cvt.f32.s32", "r=r") != "");
  CHECK(refusal("cvt.f32.f64", "r=d") != "");
  CHECK(refusal("cvt.rn.f64.f32", "d=r") != "");
  CHECK(refusal("cvt.u64.u32", "r=r") != "");
  CHECK(refusal("cvt.ftz.u32.u16", "r=h") != "");
  CHECK(refusal("cvt.rn.relu.f16.f64", "h=d") != "");
  CHECK(refusal("cvt.rn.e4m3x2.f32", "h=rr") != "");
  CHECK(refusal("cvt.rna.relu.tf32.f32", "r=r") != "");
  CHECK(refusal("cvt.rn.satfinite.tf32.f32", "r=r") != "");
  CHECK(refusal("cvt.sat.s32.u16", "r=h") != "");
  CHECK(refusal("cvt.rn.sat.bf16.f32", "h=r") != "");
  CHECK(refusal("cvt.rn.bf16.f32", "r=r") != "");
  CHECK(refusal("cvt.rzi.s32.bf16", "d=h") != "");
  CHECK(refusal("cvt.rn.bf16.s8", "h=h") != "");
  CHECK(refusal("cvt.rn.relu.ftz.f16.f32", "h=r") != "");
  CHECK(refusal("cvt.rni.ftz.s32.f16", "r=h") != "");
  CHECK(refusal("cvt.rm.f16x2.f32", "r=rr") != "");
}
