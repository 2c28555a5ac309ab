#include <catch2/catch.hpp>

#include "tests/conformance.h"
#include "tests/exact.h"

// setp and set for all types, selp, slct. References compare 128-bit integers, or doubles for floats.
namespace {

using namespace emulator::conformance;
namespace exact = emulator::exact;
using exact::Format;

struct Kind {
  std::string name;
  char operand;  // of signatures
  int bits;
  char family;         // 's', 'u', 'b', 'f'
  Format format = {};  // of 'f'
  bool pair = false;
};
const Kind kKinds[] = {
    {"s16", 'h', 16, 's'},
    {"u16", 'h', 16, 'u'},
    {"b16", 'h', 16, 'b'},
    {"s32", 'r', 32, 's'},
    {"u32", 'r', 32, 'u'},
    {"b32", 'r', 32, 'b'},
    {"s64", 'd', 64, 's'},
    {"u64", 'd', 64, 'u'},
    {"b64", 'd', 64, 'b'},
    {"f32", 'r', 32, 'f', exact::kF32},
    {"f64", 'd', 64, 'f', exact::kF64},
    {"f16", 'h', 16, 'f', exact::kF16},
    {"bf16", 'h', 16, 'f', exact::kBf16},
    {"f16x2", 'r', 32, 'f', exact::kF16, true},
    {"bf16x2", 'r', 32, 'f', exact::kBf16, true},
};

std::vector<std::string> relations(char family) {
  if (family == 'b') return {"eq", "ne"};
  std::vector<std::string> names = {"eq", "ne", "lt", "le", "gt", "ge"};
  if (family == 'u') names.insert(names.end(), {"lo", "ls", "hi", "hs"});
  if (family == 'f') names.insert(names.end(), {"equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
  return names;
}

/// `order`: -1, 0, 1, or 2 for unordered.
bool holds(const std::string& relation, int order) {
  if (relation == "num") return order != 2;
  if (relation == "nan") return order == 2;
  if (order == 2) return relation.size() == 3;
  const std::string r = relation.substr(0, 2);
  if (r == "eq") return order == 0;
  if (r == "ne") return order != 0;
  if (r == "lt" || r == "lo") return order < 0;
  if (r == "le" || r == "ls") return order <= 0;
  if (r == "gt" || r == "hi") return order > 0;
  return order >= 0;
}

template <class T>
int order_of(T a, T b) {
  return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2;
}

int compare(const Kind& kind, bool ftz, std::uint64_t a, std::uint64_t b) {
  if (kind.family == 'f') {
    const Format f = kind.format;
    return order_of(exact::decode(f, ftz ? f.flushed(a) : a), exact::decode(f, ftz ? f.flushed(b) : b));
  }
  const auto value = [&](std::uint64_t x) {
    __extension__ __int128 wide = x;
    if (kind.family == 's' && (x >> (kind.bits - 1)) != 0)
      wide -= static_cast<decltype(wide)>(1) << kind.bits;
    return wide;
  };
  return order_of(value(a), value(b));
}

/// The comparison of the halves, or of the whole: bit 0 and, for pairs, bit 1.
unsigned truth(const Kind& kind, const std::string& relation, bool ftz, std::uint64_t a, std::uint64_t b) {
  if (!kind.pair) return holds(relation, compare(kind, ftz, a, b));
  return static_cast<unsigned>(holds(relation, compare(kind, ftz, a & 0xffffu, b & 0xffffu))) |
         static_cast<unsigned>(holds(relation, compare(kind, ftz, a >> 16, b >> 16))) << 1;
}

std::vector<std::uint64_t> values_of(const Kind& kind) {
  std::vector<std::uint64_t> values;
  if (kind.family == 'f') {
    const Format f = kind.format;
    const std::uint64_t one = static_cast<std::uint64_t>(f.bias()) << f.fraction_bits;
    for (const std::uint64_t x :
         {std::uint64_t(0), std::uint64_t(1), f.infinity() ^ (f.infinity() & (f.infinity() << 1)), one,
          one + 1, f.infinity(), f.nan()})
      for (const std::uint64_t sign : {std::uint64_t(0), f.sign()})
        values.push_back(kind.pair ? (x | sign) | one << 16 : x | sign);
    if (kind.pair)
      values.insert(values.end(),
                    {f.nan() << 16 | one, f.sign() << 16, std::uint64_t(1) << 16, std::uint64_t(0)});
    return values;
  }
  const std::uint64_t top = std::uint64_t(1) << (kind.bits - 1);
  return {0, 1, 2, top - 1, top, top + 1, 2 * top - 1, 2 * top - 2};
}

/// Values that are equal now and then.
std::vector<Row> inputs(const Kind& kind, bool with_predicate) {
  std::vector<std::vector<std::uint64_t>> specials(2, values_of(kind));
  if (with_predicate) specials.push_back({0, 1});
  return crossed(specials, 2000);
}

unsigned combined(const std::string& op, unsigned t, unsigned c) {
  return op == ".and" ? t & c : op == ".or" ? t | c : t ^ c;
}

std::string check_setp(const Kind& kind, const std::string& relation, bool ftz) {
  std::string wrong;
  const std::string name = "setp." + relation, type = std::string(ftz ? ".ftz." : ".") + kind.name,
                    two(2, kind.operand);
  const auto test = [&, kind, relation, ftz](const Row& in) {
    return truth(kind, relation, ftz, in[0], in[1]);
  };
  // q is the comparison of the upper halves, or the opposite of p.
  const auto split = [pair = kind.pair](unsigned t) { return std::pair(t & 1u, pair ? t >> 1 : ~t & 1u); };
  const bool half = kind.family == 'f' && kind.bits == 16;  // has no second destination
  if (!kind.pair) wrong += mismatches({name + type, "p=" + two, one(test)}, inputs(kind, false));
  if (!half)
    wrong += mismatches({name + type, "pp=" + two,
                         [=](const Row& in, Row& out) { std::tie(out[0], out[1]) = split(test(in)); }},
                        inputs(kind, false));
  for (const std::string op : {".and", ".or", ".xor"}) {
    for (const bool negated : {false, true}) {
      const std::string text =
          name + op + type + (half ? " %d0" : " %d0|%d1") + ", %a0, %a1, " + (negated ? "!%a2;" : "%a2;");
      const Reference reference = [=](const Row& in, Row& out) {
        const auto [p, q] = split(test(in));
        const auto c = static_cast<unsigned>(in[2]) ^ (negated ? 1u : 0u);
        out[0] = combined(op, p, c);
        if (!half) out[1] = combined(op, q, c);
      };
      wrong += mismatches({text, (half ? "p=" : "pp=") + two + "p", reference}, inputs(kind, true));
    }
  }
  return wrong;
}

struct Written {
  std::string name;
  char operand;
  std::uint64_t truth;
};

std::string check_set(const Kind& kind, const std::string& relation, bool ftz, const Written& written) {
  std::string wrong;
  const std::string type = (ftz ? ".ftz." : ".") + written.name + "." + kind.name, two(2, kind.operand);
  const auto value = [=](unsigned t) {
    if (!kind.pair) return t != 0 ? written.truth : 0;
    return ((t & 1u) != 0 ? written.truth & 0xffffu : 0) |
           ((t & 2u) != 0 ? (written.truth & 0xffffu) << 16 : 0);
  };
  const std::string signature = std::string(1, written.operand) + "=" + two;
  wrong += mismatches({"set." + relation + type, signature,
                       one([=](const Row& in) { return value(truth(kind, relation, ftz, in[0], in[1])); })},
                      inputs(kind, false));
  const auto anded =
      one([=](const Row& in) { return in[2] != 0 ? 0 : value(truth(kind, relation, ftz, in[0], in[1])); });
  wrong += mismatches({"set." + relation + ".and" + type + " %d0, %a0, %a1, !%a2;", signature + "p", anded},
                      inputs(kind, true));
  return wrong;
}

std::vector<Written> written_by(const Kind& kind) {
  const Written u32{"u32", 'r', 0xffffffffu}, s32{"s32", 'r', 0xffffffffu}, f32{"f32", 'r', 0x3f800000u},
      u16{"u16", 'h', 0xffffu};
  if (kind.name == "f16") return {u32, s32, u16, {"f16", 'h', 0x3c00u}};
  if (kind.name == "bf16") return {u32, u16, {"bf16", 'h', 0x3f80u}};
  if (kind.name == "f16x2") return {u32, {"f16x2", 'r', 0x3c003c00u}};
  if (kind.name == "bf16x2") return {u32, {"bf16x2", 'r', 0x3f803f80u}};
  return {u32, s32, f32};
}

}  // namespace

TEST_CASE("compare: setp compares, combines with a predicate and writes the opposite too") {
  for (const Kind& kind : kKinds) {
    for (const std::string& relation : relations(kind.family)) {
      CHECK(check_setp(kind, relation, false) == "");
      if (kind.family == 'f' && kind.format.fraction_bits != 52 && kind.format.fraction_bits != 7)
        CHECK(check_setp(kind, relation, true) == "");
    }
  }
}

TEST_CASE("compare: set writes ones or 1.0 where the comparison holds") {
  for (const Kind& kind : kKinds) {
    for (const std::string& relation : relations(kind.family)) {
      for (const Written& written : written_by(kind)) CHECK(check_set(kind, relation, false, written) == "");
    }
  }
  CHECK(check_set(kKinds[9], "lt", true, {"u32", 'r', 0xffffffffu}) == "");
}

TEST_CASE("compare: the predicate source may be a destination, and a destination may be nothing") {
  const Reference reference = [](const Row& in, Row& out) {
    out[0] = in[0] < in[1] && in[2] != 0, out[1] = in[0] >= in[1] && in[2] != 0;
  };
  const auto rows = inputs(kKinds[4], true);
  CHECK(mismatches({"{ .reg .pred c; setp.ne.u32 c, 0, 1; and.pred c, c, %a2; setp.lt.and.u32 c|%d1, %a0, "
                    "%a1, c; mov.pred %d0, c; }",
                    "pp=rrp", reference},
                   rows) == "");
  const Reference only_q = [](const Row& in, Row& out) { out[0] = in[0] >= in[1]; };
  CHECK(mismatches({"setp.lt.u32 _|%d0, %a0, %a1;", "p=rr", only_q}, rows) == "");
}

TEST_CASE("compare: selp selects by a predicate") {
  const auto rows = crossed({{1, 2}, {3, 0xffffffffffffffffu}, {0, 1}}, 500);
  const auto reference = one([](const Row& in) { return in[2] != 0 ? in[0] : in[1]; });
  for (const std::string type : {"b16", "u16", "s16"})
    CHECK(mismatches({"selp." + type, "h=hhp", reference}, rows) == "");
  for (const std::string type : {"b32", "u32", "s32", "f32"})
    CHECK(mismatches({"selp." + type, "r=rrp", reference}, rows) == "");
  for (const std::string type : {"b64", "u64", "s64", "f64"})
    CHECK(mismatches({"selp." + type, "d=ddp", reference}, rows) == "");
}

TEST_CASE("compare: slct selects by a sign, -0 being positive and NaN negative") {
  const auto f32 = [](bool ftz) {
    return one([ftz](const Row& in) {
      return exact::decode(exact::kF32, ftz ? exact::kF32.flushed(in[2]) : in[2]) >= 0 ? in[0] : in[1];
    });
  };
  const auto s32 = one([](const Row& in) { return in[2] >> 31 == 0 ? in[0] : in[1]; });
  const auto rows =
      crossed({{1, 2},
               {3, 0xffffffffffffffffu},
               {0, 1, 0x80000000u, 0x80000001u, 0x7fffffffu, 0xffffffffu, 0x3f800000u, 0xff800000u}},
              500);
  for (const auto& [type, operand] : {std::pair<std::string, std::string>("b16", "h"),
                                      {"u32", "r"},
                                      {"f32", "r"},
                                      {"s64", "d"},
                                      {"f64", "d"}}) {
    const std::string signature = operand + "=" + operand + operand + "r";
    CHECK(mismatches({"slct." + type + ".s32", signature, s32}, rows) == "");
    CHECK(mismatches({"slct." + type + ".f32", signature, f32(false)}, rows) == "");
    CHECK(mismatches({"slct.ftz." + type + ".f32", signature, f32(true)}, rows) == "");
  }
}

TEST_CASE("compare: a form that the ISA does not have is refused") {
  CHECK(refusal("setp.lt.u32", "p=rr") == "");
  CHECK(refusal("setp.ltu.u32", "p=rr") != "");
  CHECK(refusal("setp.lo.s32", "p=rr") != "");
  CHECK(refusal("setp.lt.b32", "p=rr") != "");
  CHECK(refusal("setp.lt.ftz.f64", "p=dd") != "");
  CHECK(refusal("setp.lt.f16x2", "p=rr") != "");
  CHECK(refusal("setp.lt.f16", "pp=hh") != "");
  CHECK(refusal("set.eq.u16.f32", "h=rr") != "");
  CHECK(refusal("set.eq.f32.f16", "r=hh") != "");
  CHECK(refusal("set.eq.u64.u32", "d=rr") != "");
  CHECK(refusal("selp.f16", "h=hhp") != "");
}
