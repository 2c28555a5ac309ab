#include <catch2/catch.hpp>

#include "tests/conformance.h"

// Operations on bits. References go bit by bit, or byte by byte, as the ISA's pseudo-code does.
namespace {

using namespace emulator::conformance;
using U64 = std::uint64_t;

struct Kind {
  std::string name;
  char operand;  // of signatures
  int bits;
  bool sign;
};
const Kind kBits[] = {{"b16", 'h', 16, false}, {"b32", 'r', 32, false}, {"b64", 'd', 64, false}};
const Kind kShifted[] = {{"b16", 'h', 16, false}, {"u16", 'h', 16, false}, {"s16", 'h', 16, true},
                         {"b32", 'r', 32, false}, {"u32", 'r', 32, false}, {"s32", 'r', 32, true},
                         {"b64", 'd', 64, false}, {"u64", 'd', 64, false}, {"s64", 'd', 64, true}};
const Kind kFields[] = {
    {"u32", 'r', 32, false}, {"s32", 'r', 32, true}, {"u64", 'd', 64, false}, {"s64", 'd', 64, true}};

bool bit(U64 x, int i) { return (x >> i & 1u) != 0; }

/// A number of `bits` bits, each as f says.
template <class F>
U64 from_bits(int bits, F f) {
  U64 result = 0;
  for (int i = 0; i < bits; ++i) result |= U64(f(i) ? 1 : 0) << i;
  return result;
}
/// The same of bytes.
template <class F>
U64 from_bytes(F f) {
  U64 result = 0;
  for (int i = 0; i < 4; ++i) result |= (f(i) & 0xffu) << (8 * i);
  return result;
}
U64 byte(U64 x, U64 i) { return x >> (8 * i) & 0xffu; }
std::int64_t extended(U64 x, int bits, bool sign) {
  return static_cast<std::int64_t>(x) - (sign && bit(x, bits - 1) ? std::int64_t{1} << bits : 0);
}

std::string same(const Kind& kind, std::size_t inputs) {
  return std::string(1, kind.operand) + "=" + std::string(inputs, kind.operand);
}

/// Numbers whose highest set, or highest clear, bit is anywhere.
std::vector<U64> ladder(int bits) {
  std::vector<U64> values;
  for (int i = 0; i <= bits; ++i) {
    const U64 ones = i == 64 ? ~U64(0) : (U64(1) << i) - 1;
    values.insert(values.end(), {ones, ~ones, (ones + 1) | 1});
  }
  return values;
}
const std::vector<U64> kAmounts = {0,  1,  2,  7,   8,   15,  16,  17,          31,          32,         33,
                                   63, 64, 65, 127, 255, 256, 257, 0x7fffffffu, 0x80000000u, 0xffffffffu};

}  // namespace

TEST_CASE("bits: and, or, xor, not and cnot") {
  for (const Kind& kind : kBits) {
    const auto rows = crossed({0, 1, ~U64(0), 0x8000800080008000u, 0x5555555555555555u}, 2, 1000);
    const int n = kind.bits;
    CHECK(mismatches({"and." + kind.name, same(kind, 2), one([n](const Row& in) {
                        return from_bits(n, [&](int i) { return bit(in[0], i) && bit(in[1], i); });
                      })},
                     rows) == "");
    CHECK(mismatches({"or." + kind.name, same(kind, 2), one([n](const Row& in) {
                        return from_bits(n, [&](int i) { return bit(in[0], i) || bit(in[1], i); });
                      })},
                     rows) == "");
    CHECK(mismatches({"xor." + kind.name, same(kind, 2), one([n](const Row& in) {
                        return from_bits(n, [&](int i) { return bit(in[0], i) != bit(in[1], i); });
                      })},
                     rows) == "");
    CHECK(mismatches({"not." + kind.name, same(kind, 1), one([n](const Row& in) {
                        return from_bits(n, [&](int i) { return !bit(in[0], i); });
                      })},
                     rows) == "");
    CHECK(mismatches(
              {"cnot." + kind.name, same(kind, 1), one([](const Row& in) { return in[0] == 0 ? 1 : 0; })},
              rows) == "");
  }
}

TEST_CASE("bits: predicates are combined, also negated ones and constants") {
  const auto rows = crossed({0, 1}, 2, 500);
  CHECK(mismatches({"and.pred", "p=pp", one([](const Row& in) { return in[0] != 0 && in[1] != 0; })}, rows) ==
        "");
  CHECK(mismatches({"or.pred", "p=pp", one([](const Row& in) { return in[0] != 0 || in[1] != 0; })}, rows) ==
        "");
  CHECK(mismatches({"xor.pred", "p=pp", one([](const Row& in) { return in[0] != in[1]; })}, rows) == "");
  CHECK(mismatches({"not.pred", "p=p", one([](const Row& in) { return in[0] == 0; })}, rows) == "");
  CHECK(mismatches(
            {"and.pred %d0, !%a0, %a1;", "p=pp", one([](const Row& in) { return in[0] == 0 && in[1] != 0; })},
            rows) == "");
  CHECK(mismatches(
            {"or.pred %d0, %a0, !%a1;", "p=pp", one([](const Row& in) { return in[0] != 0 || in[1] == 0; })},
            rows) == "");
  CHECK(mismatches({"xor.pred %d0, %a0, 1;", "p=p", one([](const Row& in) { return in[0] == 0; })}, rows) ==
        "");
  CHECK(mismatches({"not.pred %d0, !%a0;", "p=p", one([](const Row& in) { return in[0] != 0; })}, rows) ==
        "");
}

TEST_CASE("bits: shifts by the width or more leave nothing, or the sign") {
  for (const Kind& kind : kShifted) {
    const int n = kind.bits;
    const auto rows = crossed({{0, 1, ~U64(0), U64(1) << (n - 1), (U64(1) << (n - 1)) - 1}, kAmounts}, 1000);
    const std::string signature = std::string(1, kind.operand) + "=" + kind.operand + "r";
    const auto right = one([&kind, n](const Row& in) {
      return from_bits(n, [&](int i) {
        return in[1] < U64(n - i) ? bit(in[0], i + static_cast<int>(in[1])) : kind.sign && bit(in[0], n - 1);
      });
    });
    CHECK(mismatches({"shr." + kind.name, signature, right}, rows) == "");
    if (kind.name[0] != 'b') continue;
    const auto left = one([n](const Row& in) {
      return from_bits(n, [&](int i) { return in[1] <= U64(i) && bit(in[0], i - static_cast<int>(in[1])); });
    });
    CHECK(mismatches({"shl." + kind.name, signature, left}, rows) == "");
  }
}

TEST_CASE("bits: shf shifts two words, by amounts that wrap or are clamped") {
  const auto rows = crossed({{0, 1, 0x80000000u, 0xffffffffu, 0x12345678u},
                             {0, 1, 0x80000000u, 0xffffffffu, 0x9abcdef0u},
                             kAmounts},
                            500);
  for (const bool left : {false, true})
    for (const bool wrap : {false, true}) {
      const auto reference = one([=](const Row& in) {
        const int n = wrap ? static_cast<int>(in[2] % 32) : static_cast<int>(std::min<U64>(in[2], 32));
        const auto both = [&](int i) { return i < 32 ? bit(in[0], i) : bit(in[1], i - 32); };  // b above a
        return from_bits(32, [&](int i) { return left ? both(32 + i - n) : both(i + n); });
      });
      CHECK(mismatches({std::string("shf.") + (left ? "l" : "r") + (wrap ? ".wrap" : ".clamp") + ".b32",
                        "r=rrr", reference},
                       rows) == "");
    }
}

TEST_CASE("bits: popc, clz and brev") {
  for (const Kind& kind : {kBits[1], kBits[2]}) {
    const int n = kind.bits;
    const auto rows = crossed(ladder(n), 1, 1000);
    const std::string count = std::string("r=") + kind.operand;
    CHECK(mismatches({"popc." + kind.name, count, one([n](const Row& in) {
                        int ones = 0;
                        for (int i = 0; i < n; ++i) ones += bit(in[0], i) ? 1 : 0;
                        return ones;
                      })},
                     rows) == "");
    CHECK(mismatches({"clz." + kind.name, count, one([n](const Row& in) {
                        int zeros = 0;
                        while (zeros < n && !bit(in[0], n - 1 - zeros)) ++zeros;
                        return zeros;
                      })},
                     rows) == "");
    CHECK(mismatches({"brev." + kind.name, same(kind, 1), one([n](const Row& in) {
                        return from_bits(n, [&](int i) { return bit(in[0], n - 1 - i); });
                      })},
                     rows) == "");
  }
}

TEST_CASE("bits: bfind finds the highest bit that is not the sign") {
  for (const Kind& kind : kFields) {
    for (const bool amount : {false, true}) {
      const auto reference = one([&kind, amount](const Row& in) {
        const bool ignored = kind.sign && bit(in[0], kind.bits - 1);
        for (int i = kind.bits - 1; i >= 0; --i)
          if (bit(in[0], i) != ignored) return static_cast<U64>(amount ? kind.bits - 1 - i : i);
        return U64(0xffffffffu);
      });
      CHECK(mismatches({(amount ? "bfind.shiftamt." : "bfind.") + kind.name, std::string("r=") + kind.operand,
                        reference},
                       crossed(ladder(kind.bits), 1, 1000)) == "");
    }
  }
}

TEST_CASE("bits: bfe extracts a field, filled up with its sign or that of the number") {
  for (const Kind& kind : kFields) {
    const int last = kind.bits - 1;
    const auto reference = one([&kind, last](const Row& in) {
      const int position = static_cast<int>(in[1] & 0xffu), length = static_cast<int>(in[2] & 0xffu);
      const bool sign = kind.sign && length != 0 && bit(in[0], std::min(position + length - 1, last));
      return from_bits(kind.bits, [&](int i) {
        return i < length && position + i <= last ? bit(in[0], position + i) : sign;
      });
    });
    const auto rows = crossed(
        {{0, ~U64(0), 0x9abcdef012345678u, 0x8000000080000000u, 0x7fffffff7fffffffu}, kAmounts, kAmounts},
        1000);
    CHECK(
        mismatches({"bfe." + kind.name, std::string(1, kind.operand) + "=" + kind.operand + "rr", reference},
                   rows) == "");
  }
}

TEST_CASE("bits: bfi inserts a field") {
  for (const Kind& kind : {kBits[1], kBits[2]}) {
    const auto reference = one([&kind](const Row& in) {
      const int position = static_cast<int>(in[2] & 0xffu), length = static_cast<int>(in[3] & 0xffu);
      return from_bits(kind.bits, [&](int i) {
        return i >= position && i < position + length ? bit(in[0], i - position) : bit(in[1], i);
      });
    });
    const auto rows = crossed(
        {{0, ~U64(0), 0x9abcdef012345678u}, {0, ~U64(0), 0x0f0f0f0f0f0f0f0fu}, kAmounts, kAmounts}, 1000);
    CHECK(mismatches({"bfi." + kind.name, same(kind, 2) + "rr", reference}, rows) == "");
  }
}

TEST_CASE("bits: lop3 knows all 256 functions") {
  // 0xF0, 0xCC and 0xAA are the columns of a, b and c, by definition.
  const auto rows = crossed({0xf0f0f0f0u, 0xccccccccu, 0xaaaaaaaau}, 3, 100);
  for (unsigned table = 0; table < 256; ++table) {
    const auto reference = one([table](const Row& in) {
      return from_bits(32, [&](int i) {
        return bit(table, (bit(in[0], i) ? 4 : 0) + (bit(in[1], i) ? 2 : 0) + (bit(in[2], i) ? 1 : 0));
      });
    });
    CHECK(mismatches({"lop3.b32 %d0, %a0, %a1, %a2, " + std::to_string(table) + ";", "r=rrr", reference},
                     rows) == "");
  }
  CHECK(mismatches({"lop3.b32 %d0, %a0, %a1, %a2, 0x96;", "r=rrr",
                    one([](const Row& in) { return in[0] ^ in[1] ^ in[2]; })},
                   rows) == "");
  CHECK(mismatches({"lop3.b32 %d0, %a0, %a1, %a2, 0xe4;", "r=rrr",
                    one([](const Row& in) { return (in[1] & ~in[2]) | (in[0] & in[2]); })},
                   rows) == "");
}

TEST_CASE("bits: prmt picks bytes, or copies of their signs") {
  const auto reference = one([](const Row& in) {
    const U64 bytes = in[1] << 32 | in[0];
    return from_bytes([&](int i) {
      const U64 selector = in[2] >> (4 * i) & 15u, picked = byte(bytes, selector & 7u);
      return selector < 8 ? picked : picked >= 128 ? U64(0xff) : U64(0);
    });
  });
  std::vector<U64> selectors = {0x3210, 0x7654, 0xfedc, 0xba98, 0xffff3210u};
  for (U64 i = 0; i < 16; ++i) selectors.push_back(i << 12 | (15 - i) << 8 | (i ^ 5) << 4 | (i * 7 & 15));
  CHECK(mismatches({"prmt.b32", "r=rrr", reference},
                   crossed({{0x83028100u, 0x7f80ff00u}, {0x87068504u, 0x80017ffeu}, selectors}, 1000)) == "");
}

TEST_CASE("bits: the modes of prmt move bytes by the two lowest bits of c") {
  // Indices of the bytes of {b, a} for byte i of the result.
  const std::pair<std::string, int (*)(int c, int i)> modes[] = {
      {"f4e", [](int c, int i) { return c + i; }},
      {"b4e", [](int c, int i) { return (c + 8 - i) % 8; }},
      {"rc8", [](int c, int) { return c; }},
      {"ecl", [](int c, int i) { return std::max(c, i); }},
      {"ecr", [](int c, int i) { return std::min(c, i); }},
      {"rc16", [](int c, int i) { return c % 2 * 2 + i % 2; }}};
  for (const auto& [name, index] : modes) {
    const auto reference = one([index = index](const Row& in) {
      return from_bytes([&](int i) {
        return byte(in[1] << 32 | in[0], static_cast<U64>(index(static_cast<int>(in[2] & 3u), i)));
      });
    });
    CHECK(mismatches({"prmt.b32." + name, "r=rrr", reference},
                     crossed({{0x83028100u}, {0x87068504u}, {0, 1, 2, 3, 4, 5, 0xfffffffeu, 0xffffffffu}},
                             1000)) == "");
  }
}

TEST_CASE("bits: dp4a and dp2a add products of bytes") {
  const auto rows = crossed({{0, 0x80808080u, 0x7f7f7f7fu, 0xffffffffu, 0x80017fffu},
                             {0, 0x80808080u, 0x7f7f7f7fu, 0xffffffffu, 0x01020304u},
                             {0, 1, 0x7fffffffu, 0xffffffffu}},
                            1000);
  for (const bool sign_a : {false, true})
    for (const bool sign_b : {false, true}) {
      const std::string types = std::string(sign_a ? ".s32" : ".u32") + (sign_b ? ".s32" : ".u32");
      const auto four = one([=](const Row& in) {
        auto sum = static_cast<std::int64_t>(in[2]);
        for (U64 i = 0; i < 4; ++i)
          sum += extended(byte(in[0], i), 8, sign_a) * extended(byte(in[1], i), 8, sign_b);
        return sum;
      });
      CHECK(mismatches({"dp4a" + types, "r=rrr", four}, rows) == "");
      for (const bool high : {false, true}) {
        const auto two = one([=](const Row& in) {
          auto sum = static_cast<std::int64_t>(in[2]);
          for (U64 i = 0; i < 2; ++i)
            sum += extended(in[0] >> (16 * i) & 0xffffu, 16, sign_a) *
                   extended(byte(in[1], i + (high ? 2 : 0)), 8, sign_b);
          return sum;
        });
        CHECK(mismatches({std::string("dp2a.") + (high ? "hi" : "lo") + types, "r=rrr", two}, rows) == "");
      }
    }
}

TEST_CASE("bits: bmsk makes a run of ones") {
  const auto rows = crossed({kAmounts, kAmounts}, 1000);
  const auto run = [](U64 position, U64 length) {
    return from_bits(32, [&](int i) { return U64(i) >= position && U64(i) < position + length; });
  };
  CHECK(mismatches({"bmsk.clamp.b32", "r=rr", one([run](const Row& in) { return run(in[0], in[1]); })},
                   rows) == "");
  CHECK(
      mismatches({"bmsk.wrap.b32", "r=rr", one([run](const Row& in) { return run(in[0] % 32, in[1] % 32); })},
                 rows) == "");
}

TEST_CASE("bits: a form that the ISA does not have is refused") {
  for (const auto& [text, operands] : {std::pair("and.u32", "r=rr"),
                                       {"xor.b8", "h=hh"},
                                       {"and.pred", "p=pr"},
                                       {"not.s32", "r=r"},
                                       {"cnot.pred", "p=p"},
                                       {"cnot.pred", "h=h"},
                                       {"shl.u32", "r=rr"},
                                       {"shl.b64", "d=dd"},
                                       {"shr.f32", "r=rr"},
                                       {"shr.pred", "h=hr"},
                                       {"shf.l.b32", "r=rrr"},
                                       {"shf.l.wrap.b64", "d=ddr"},
                                       {"popc.u32", "r=r"},
                                       {"popc.b64", "d=d"},
                                       {"clz.b16", "r=h"},
                                       {"clz.pred", "r=h"},
                                       {"brev.b16", "h=h"},
                                       {"bfind.b32", "r=r"},
                                       {"bfind.s64", "d=d"},
                                       {"bfe.b32", "r=rrr"},
                                       {"bfe.u64", "d=ddd"},
                                       {"bfi.u32", "r=rrrr"},
                                       {"bfi.pred", "h=hhrr"},
                                       {"bfi.b32", "r=rrr"},
                                       {"lop3.b32 %d0, %a0, %a1, %a2, 256;", "r=rrr"},
                                       {"lop3.b32", "r=rrrr"},
                                       {"lop3.b64 %d0, %a0, %a1, %a2, 1;", "d=ddd"},
                                       {"prmt.b32.rc32", "r=rrr"},
                                       {"prmt.b64", "d=ddd"},
                                       {"dp4a.u32", "r=rrr"},
                                       {"dp4a.u32.u8", "r=rrr"},
                                       {"dp2a.u32.u32", "r=rrr"},
                                       {"bmsk.b32", "r=rr"},
                                       {"bmsk.wrap.u32", "r=rr"}})
    CHECK(refusal(text, operands) != "");
  CHECK(refusal("bfi.b32", "r=rrrr") == "");
}
