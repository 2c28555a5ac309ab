#include <catch2/catch.hpp>

#include <algorithm>
#include <bit>
#include <map>

#include "tests/conformance.h"
#include "tests/exact.h"
#include "tests/ptx_program.h"

// atom and red: one thread at a time against a formula, then whole blocks at one address, where only what
// does not depend on the order is compared.
namespace {

using namespace emulator;
using namespace emulator::ptx_program;
namespace exact = emulator::exact;

struct Kind {
  std::string name;
  int bits;
  char family;  // 's', 'u', 'b', 'f'
  exact::Format format = {};
  int elements = 1;
};
const std::map<std::string, Kind> kKinds = {{"u32", {"u32", 32, 'u'}},
                                            {"s32", {"s32", 32, 's'}},
                                            {"u64", {"u64", 64, 'u'}},
                                            {"s64", {"s64", 64, 's'}},
                                            {"b16", {"b16", 16, 'b'}},
                                            {"b32", {"b32", 32, 'b'}},
                                            {"b64", {"b64", 64, 'b'}},
                                            {"f32", {"f32", 32, 'f', exact::kF32}},
                                            {"f64", {"f64", 64, 'f', exact::kF64}},
                                            {"f16", {"f16", 16, 'f', exact::kF16}},
                                            {"bf16", {"bf16", 16, 'f', exact::kBf16}},
                                            {"f16x2", {"f16x2", 32, 'f', exact::kF16, 2}},
                                            {"bf16x2", {"bf16x2", 32, 'f', exact::kBf16, 2}}};

U64 cut(int bits, U64 x) { return bits == 64 ? x : x & ((U64(1) << bits) - 1); }

std::int64_t as_signed(int bits, U64 x) { return static_cast<std::int64_t>(x << (64 - bits)) >> (64 - bits); }

/// The sum of small numbers that every format has, so that no rounding is in question.
U64 float_sum(exact::Format format, U64 a, U64 b) {
  const double sum = exact::decode(format, a) + exact::decode(format, b);
  if (format.fraction_bits == 52) return std::bit_cast<U64>(sum);
  if (format.fraction_bits == 23) return std::bit_cast<U32>(static_cast<float>(sum));
  // f16 and bf16: by search among all values of the format.
  for (U64 bits = 0; bits < 0x10000; ++bits)
    if (exact::decode(format, bits) == sum && (bits != format.sign() || sum != 0)) return bits;
  return 0xdead;
}

/// The new value.
U64 after(const std::string& op, const Kind& kind, U64 old, U64 b, U64 c) {
  if (kind.elements == 2) {
    const Kind half{"", 16, 'f', kind.format};
    return after(op, half, old & 0xffffu, b & 0xffffu, 0) | after(op, half, old >> 16, b >> 16, 0) << 16;
  }
  const bool less = kind.family == 's' ? as_signed(kind.bits, old) < as_signed(kind.bits, b) : old < b;
  if (op == "add") return kind.family == 'f' ? float_sum(kind.format, old, b) : cut(kind.bits, old + b);
  if (op == "min" || op == "max") return less == (op == "min") ? old : b;
  if (op == "and") return old & b;
  if (op == "or") return old | b;
  if (op == "xor") return old ^ b;
  if (op == "inc") return old >= b ? 0 : old + 1;
  if (op == "dec") return old == 0 || old > b ? b : old - 1;
  if (op == "cas") return old == b ? c : old;
  return b;  // exch
}

std::vector<U64> values_of(const Kind& kind) {
  if (kind.family != 'f') {
    const U64 top = U64(1) << (kind.bits - 1);
    return {0, 1, 2, 77, top - 1, top, top + 1, cut(kind.bits, ~U64(0)), cut(kind.bits, 0x123456789abcdef0u)};
  }
  // 0, ±1, ±1.5, 2, 96, -0.5: their sums are numbers of all formats.
  std::vector<U64> values;
  const exact::Format f = kind.format;
  const auto one = static_cast<U64>(f.bias()) << f.fraction_bits, half = U64(1) << (f.fraction_bits - 1),
             exponent = U64(1) << f.fraction_bits;
  for (const U64 x : {U64(0), one, one | f.sign(), one + half, (one + half) | f.sign(), one + exponent,
                      one + 6 * exponent + half, (one - exponent) | f.sign()})
    values.push_back(x);
  if (kind.elements == 2)
    for (std::size_t i = 0, n = values.size(); i < n; ++i)
      values[i] |= (values[(i * 3 + 1) % n] & 0xffffu) << 16;
  return values;
}

struct Place {
  std::string modifier, address;  // %rd1: the thread's own 16 bytes
};
const Place kPlaces[] = {
    {".global", "mov.u64 %rd1, %mine; add.u64 %rd1, %rd1, 16;\n"},
    {".shared", "mov.u64 %rd1, tile; mad.wide.u32 %rd1, %thread, 16, %rd1;\n"},
    {".shared::cta", "mov.u64 %rd1, tile; mad.wide.u32 %rd1, %thread, 16, %rd1;\n"},
    {"", "add.u64 %rd1, %mine, 16;\n"},
    {"", "mov.u64 %rd1, tile; mad.wide.u32 %rd1, %thread, 16, %rd1; cvta.shared.u64 %rd1, %rd1;\n"}};

std::string operand(int bits, const std::string& number) {
  return (bits == 16 ? "%h" : bits == 32 ? "%r" : "%rd") + number;
}

/// One thread per combination of old value and operands. Checks what is returned (atom) and what is left in
/// memory, with odd lanes off if `guarded`.
void check(const std::string& op, const std::string& type, const Place& place, bool returns, bool guarded,
           const std::string& before_space = {}, const std::string& spelled = {}) {
  const Kind& kind = kKinds.at(type);
  const auto values = values_of(kind);
  std::vector<U64> rows;
  for (const U64 old : values)
    for (const U64 b : values) rows.insert(rows.end(), {old, b, values[(old + b) % values.size()], 0});
  const auto threads = static_cast<U32>(rows.size() / 4);
  const std::string bits = ".b" + std::to_string(kind.bits),
                    noftz = kind.family == 'f' && kind.bits <= 32 && type != "f32" ? ".noftz" : "";
  const std::string form = (returns ? "atom" : "red") + before_space + place.modifier + "." +
                           (spelled.empty() ? op : spelled) + noftz + "." + type;
  Source source{
      place.address + "ld.global" + bits + " " + operand(kind.bits, "10") + ", [%mine_in]; ld.global" + bits +
          " " + operand(kind.bits, "11") + ", [%mine_in+8]; ld.global" + bits + " " +
          operand(kind.bits, "12") + ", [%mine_in+16]; st" + place.modifier + bits + " [%rd1+8], " +
          operand(kind.bits, "10") + "; and.b32 %r0, %lane, 1; setp.eq.u32 %p0, %r0, 0; mov" + bits + " " +
          operand(kind.bits, "13") + ", 0;\n" + (guarded ? "@%p0 " : "") + form + " " +
          (returns ? operand(kind.bits, "13") + ", " : "") + "[%rd1+8], " + operand(kind.bits, "11") +
          (op == "cas" ? ", " + operand(kind.bits, "12") : "") + ";\nld" + place.modifier + bits + " " +
          operand(kind.bits, "14") + ", [%rd1+8]; st.global" + bits + " [%mine], " +
          operand(kind.bits, "13") + "; st.global" + bits + " [%mine+8], " + operand(kind.bits, "14") + ";",
      {},
      std::to_string(threads * 16 + 16),
      4,
      4};
  const Result result = run(source, rows, threads);
  INFO(form << (guarded ? ", odd lanes off" : ""));
  CHECK(result.clean());
  std::size_t wrong = 0;
  for (U32 thread = 0; thread < threads; ++thread) {
    const U64 *in = &rows[4 * thread], *out = &result.out[4 * thread];
    const bool on = !guarded || thread % 2 == 0;
    const U64 left = on ? after(op, kind, in[0], in[1], in[2]) : in[0], given = on && returns ? in[0] : 0;
    if (out[0] == given && out[1] == left) continue;
    if (++wrong > 3) continue;
    UNSCOPED_INFO("old " << in[0] << ", " << in[1] << ", " << in[2] << ": returned " << out[0]
                         << " instead of " << given << ", left " << out[1] << " instead of " << left);
  }
  CHECK(wrong == 0);
}

const std::vector<std::pair<std::string, std::vector<std::string>>> kForms = {
    {"add", {"u32", "s32", "u64", "f32", "f64", "f16", "bf16", "f16x2", "bf16x2"}},
    {"min", {"u32", "s32", "u64", "s64"}},
    {"max", {"u32", "s32", "u64", "s64"}},
    {"and", {"b32", "b64"}},
    {"or", {"b32", "b64"}},
    {"xor", {"b32", "b64"}},
    {"exch", {"b32", "b64"}},
    {"cas", {"b16", "b32", "b64"}},
    {"inc", {"u32"}},
    {"dec", {"u32"}}};

}  // namespace

TEST_CASE(
    "atomics: each operation on each type returns the old value and leaves the new one, in every space") {
  for (const auto& [op, types] : kForms)
    for (const std::string& type : types)
      for (const Place& place : kPlaces)
        for (const bool guarded : {false, true}) {
          check(op, type, place, true, guarded);
          if (op != "exch" && op != "cas") check(op, type, place, false, guarded);
        }
}

TEST_CASE("atomics: orders and scopes change nothing for a lonely thread") {
  for (const std::string order : {".relaxed", ".acquire", ".release", ".acq_rel"})
    for (const std::string scope : {".cta", ".gpu", ".sys", ".cluster"}) {
      check("add", "u32", kPlaces[0], true, true, order + scope);
      check("cas", "b64", kPlaces[1], true, false, order + scope);
      if (order == ".relaxed" || order == ".release")
        check("max", "s64", kPlaces[3], false, false, order + scope);
    }
  for (const std::string scope : {".cta", ".gpu", ".sys"})
    check("add", "u32", kPlaces[0], true, false, scope);
  check("add", "u32", kPlaces[3], true, false, {}, "add.release.gpu");  // as cooperative groups write it
}

TEST_CASE(
    "atomics: sums of f32 flush subnormal numbers in global memory, but not in shared memory, nor those of "
    "f64") {
  const auto left = [](const std::string& body, U64 old, U64 b) {
    const Source source{
        "ld.global.v2.u64 {%rd1, %rd2}, [%mine_in]; cvt.u32.u64 %r1, %rd1; cvt.u32.u64 %r2, %rd2;\n" + body,
        {},
        "16",
        2};
    const Result result = run(source, {old, b}, 1);
    CHECK(result.clean());
    return result.out[0];
  };
  const std::string global = "st.global.b32 [%mine], %r1; red.global.add.f32 [%mine], %r2;",
                    generic = "st.b32 [%mine], %r1; atom.add.f32 %r3, [%mine], %r2;";
  const std::string shared =
      "st.shared.b32 [tile], %r1; red.shared.add.f32 [tile], %r2; ld.shared.b32 %r3, [tile]; st.global.b32 "
      "[%mine], %r3;";
  for (const std::string& body : {global, generic}) {
    CHECK(left(body, 5, 6) == 0);
    CHECK(left(body, 0x80000005u, 0x80000006u) == 0x80000000u);
    CHECK(left(body, 0x3f800000u, 6) == 0x3f800000u);
    CHECK(left(body, 0x00800001u, 0x80800000u) == 0);  // a subnormal difference of normal numbers
  }
  CHECK(left(shared, 5, 6) == 11);
  CHECK(left(shared, 0x00800001u, 0x80800000u) == 1);
  CHECK(left("st.global.b64 [%mine], %rd1; red.global.add.f64 [%mine], %rd2;", 5, 6) == 11);
}

TEST_CASE("atomics: vectors add to each of their elements") {
  const auto run_vector = [](const std::string& form, const std::string& kind, U32 count) {
    std::string list, olds, stores;
    for (U32 i = 0; i < count; ++i) {
      list += (i == 0 ? "" : ", ") + ("%r" + std::to_string(10 + i));
      olds += (i == 0 ? "" : ", ") + ("%r" + std::to_string(20 + i));
      stores += "cvt.u64.u32 %rd5, %r" + std::to_string(20 + i) + "; st.global.u64 [%mine+" +
                std::to_string(8 * i) + "], %rd5;\n";
    }
    const std::string load = "ld.global.v" + std::to_string(count) + ".b32 {" + list + "}, [%in];\n";
    // All threads add to the same place; afterwards thread 0 adds nothing and gets what is there.
    return Source{load + form + ".v" + std::to_string(count) + "." + kind +
                      (form[0] == 'r' ? " [%in+16], {" : " {" + olds + "}, [%in+16], {") + list +
                      "};\nbar.sync 0;\nld.global.v" + std::to_string(count) + ".b32 {" + olds +
                      "}, [%in+16];\n" + stores,
                  {},
                  {},
                  4,
                  4};
  };
  for (const std::string form : {"atom.global.add", "red.global.add", "red.relaxed.gpu.global.add"}) {
    const float terms[4] = {1, -2, 0.5f, 8};
    for (const U32 count : {2u, 4u}) {
      std::vector<U64> in(64 * 4, 0);
      std::memcpy(in.data(), terms, sizeof terms);
      const Result result = run(run_vector(form, "f32", count), in, 64);
      CHECK(result.clean());
      for (U32 i = 0; i < count; ++i)
        CHECK(std::bit_cast<float>(static_cast<U32>(result.out[i])) == 64 * terms[i]);
    }
    std::vector<U64> in(64 * 4, 0);
    in[0] = 0x3c00bc0040003800u;  // f16: 0.5, 2, -1, 1
    const Result result = run(run_vector(form + ".noftz", "f16x2", 2), in, 64);
    CHECK(result.clean());
    CHECK(result.out[0] == 0x58005000u);  // 128, 32
    CHECK(result.out[1] == 0x5400d400u);  // 64, -64
  }
}

TEST_CASE("atomics: threads of many blocks at one address lose nothing") {
  // Each thread adds its number, and counts itself; old values of the counter are all different.
  for (const std::string space : {".global", ""}) {
    const Source source{
        "add.u64 %rd0, %in, 8; atom" + space + ".add.u64 %rd1, [%in], %rd2; cvt.u64.u32 %rd2, %thread; atom" +
            space + ".add.u64 %rd1, [%in], %rd2; atom" + space + ".inc.u32 %r1, [%rd0], 0xffffffff; red" +
            space +
            ".max.u32 [%in+16], %thread; cvt.u64.u32 %rd3, %r1; st.global.u64 [%mine], %rd3;\n"
            "bar.sync 0; ld.volatile.global.u64 %rd4, [%in]; ld.volatile.global.u64 %rd5, [%in+16]; "
            "st.global.v2.u64 [%mine+16], {%rd4, %rd5};",
        {},
        {},
        1,
        4};
    Source started = source;
    started.body = "mov.u64 %rd2, 0;\n" + started.body;
    const U32 threads = 256, blocks = 32, all = threads * blocks;
    const Result result = run(started, std::vector<U64>(4, 0), threads, blocks);
    CHECK(result.clean());
    std::vector<U64> tickets;
    U64 sum = 0, most = 0;
    for (U32 i = 0; i < all; ++i) {
      tickets.push_back(result.out[4 * i]);
      sum = std::max(sum, result.out[4 * i + 2]);
      most = std::max(most, result.out[4 * i + 3]);
    }
    std::sort(tickets.begin(), tickets.end());
    for (U32 i = 0; i < all; ++i) REQUIRE(tickets[i] == i);
    CHECK(sum == U64{all} * (all - 1) / 2);
    CHECK(most == all - 1);
  }
}

TEST_CASE("atomics: a block sums exactly in shared memory, also through compare and swap") {
  const std::string start =
      "mov.u32 %r0, 0; setp.ne.u32 %p0, %thread, 0; @%p0 bra GO; st.shared.v2.u32 [tile], {%r0, %r0};\nGO: "
      "bar.sync 0;\n";
  const std::string end =
      "bar.sync 0; ld.shared.u32 %r5, [tile]; cvt.u64.u32 %rd0, %r5; st.global.u64 [%mine], %rd0;";
  const auto all_get = [&](const std::string& body, U64 expected) {
    const Result result = run({start + body + end, {}, "16"}, {}, 512);
    INFO(body);
    CHECK(result.clean());
    CHECK(result.out == std::vector<U64>(512, expected));
  };
  all_get("atom.shared.add.u32 %r1, [tile], %thread;\n", 512 * 511 / 2);
  all_get("red.shared.add.u32 [tile], 3;\n", 3 * 512);
  all_get(
      "ld.volatile.shared.u32 %r1, [tile];\nAGAIN: add.u32 %r2, %r1, %thread; atom.shared.cas.b32 %r3, "
      "[tile], %r1, %r2; setp.ne.u32 %p1, %r3, %r1; mov.u32 %r1, %r3; @%p1 bra AGAIN;\n",
      512 * 511 / 2);
  // A lock: plain reads and writes between exch and the release.
  all_get(
      "AGAIN: atom.acquire.cta.shared.exch.b32 %r1, [tile+4], 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra AGAIN; "
      "ld.volatile.shared.u32 %r2, [tile]; add.u32 %r2, %r2, 2; st.volatile.shared.u32 [tile], %r2;\n"
      "atom.release.cta.shared.exch.b32 %r1, [tile+4], 0;\n",
      2 * 512);
  all_get("atom.shared.inc.u32 %r1, [tile], 99;\n", 512 % 100);
  // f32 sums of numbers that need no rounding.
  all_get("mov.b32 %r1, 0x3f000000; red.shared.add.f32 [tile], %r1;\n", 0x43800000u);
}

TEST_CASE("atomics: local memory has none, and a form that the ISA does not have is refused") {
  CHECK(run({".local .align 8 .b8 own[8]; mov.u64 %rd0, own; mov.u32 %r0, 1; st.local.u32 [%rd0], %r0; "
             "cvta.local.u64 %rd0, %rd0; atom.add.u32 %r1, [%rd0], 1;"},
            {}, 32)
            .error == 717);
  for (const std::string wrong : {"atom.global.add.b32 %r0, [%mine], %r1;",
                                  "atom.global.add.u16 %h0, [%mine], %h1;",
                                  "atom.global.and.u32 %r0, [%mine], %r1;",
                                  "atom.global.inc.s32 %r0, [%mine], %r1;",
                                  "atom.global.inc.u64 %rd0, [%mine], %rd1;",
                                  "atom.global.min.f32 %r0, [%mine], %r1;",
                                  "atom.local.add.u32 %r0, [%mine], %r1;",
                                  "atom.const.add.u32 %r0, [%mine], %r1;",
                                  "atom.global.cas.b32 %r0, [%mine], %r1;",
                                  "atom.global.add.u32 %r0, [%mine], %r1, %r2;",
                                  "atom.global.add.u32 %rd0, [%mine], %r1;",
                                  "atom.global.add.u32 [%mine], %r1;",
                                  "red.global.exch.b32 [%mine], %r1;",
                                  "atom.global.add.s64 %rd0, [%mine], %rd1;",
                                  "atom.global.min.noftz.f16 %h0, [%mine], %h1;",
                                  "atom.global.add.noftz.u32 %r0, [%mine], %r1;",
                                  "atom.global.add.f16 %h0, [%mine], %h1;",
                                  "atom.shared.add.v2.f32 {%r0, %r1}, [%mine], {%r1, %r2};",
                                  "atom.global.exch.u32 %r0, [%mine], %r1;",
                                  "atom.weak.global.add.u32 %r0, [%mine], %r1;",
                                  "atom.volatile.global.add.u32 %r0, [%mine], %r1;",
                                  "atom.global.exch.b16 %h0, [%mine], %h1;",
                                  "red.acq_rel.gpu.global.add.u32 [%mine], %r1;",
                                  "red.global.cas.b32 [%mine], %r1, %r2;",
                                  "red.global.add.u32 %r0, [%mine], %r1;",
                                  "red.acquire.gpu.global.add.u32 [%mine], %r1;",
                                  "atom.global.sub.u32 %r0, [%mine], %r1;",
                                  "atom.global.add.v2.u32 {%r0, %r2}, [%mine], {%r1, %r1};",
                                  "atom.global.add.v2.f32 {%r0, %r2, %r3}, [%mine], {%r1, %r1};"}) {
    INFO(wrong);
    CHECK(refusal({wrong}) != "");
  }
}
