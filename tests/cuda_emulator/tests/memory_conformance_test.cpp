#include <catch2/catch.hpp>

#include <algorithm>
#include <random>

#include "tests/ptx_program.h"

// ld and st: every space, every width, into and from registers that may be wider, vectors, strengths and
// hints; and the mistakes that are reported.
namespace {

using namespace emulator;
using namespace emulator::ptx_program;

constexpr U32 kThreads = 128, kBytes = 2048;
constexpr U64 kBefore = 0xa5a5a5a5a5a5a5a5u;

std::uint8_t data_at(U64 i) { return static_cast<std::uint8_t>(i * 37 + (i >> 3) * 101 + 11); }

std::string array_text(const std::string& head, const std::string& name) {
  std::string text = head + " .align 16 .b8 " + name + "[" + std::to_string(kBytes) + "] = {";
  for (U64 i = 0; i < kBytes; ++i) text += (i == 0 ? "" : ",") + std::to_string(data_at(i));
  return text + "};\n";
}

/// A space, and the statements that fill its memory with data_at() and put its address into %rd0.
struct Space {
  std::string modifier, fill;
  bool writable = true, own = false;  // own: each thread has one
};
const std::string kCopy =
    "cvta.global.u64 %rd9, data; ADVANCE\nFILL: mul.wide.u32 %rd8, %r8, 16; add.u64 %rd7, %rd9, %rd8; "
    "ld.v2.b64 {%rd5, %rd6}, [%rd7]; add.u64 %rd7, %rd0, %rd8;\n"
    "st.SPACE.v2.b64 [%rd7], {%rd5, %rd6}; add.u32 %r8, %r8, STEP; setp.lt.u32 %p9, %r8, 128; @%p9 bra "
    "FILL;\nbar.sync 0;\n";
std::string replaced(std::string text, const std::string& what, const std::string& with) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
    text.replace(at, what.size(), with);
  return text;
}
std::string copy_to(const std::string& space, bool own) {
  return replaced(replaced(replaced(kCopy, "SPACE", space), "STEP", own ? "1" : "128"), "ADVANCE",
                  own ? "mov.u32 %r8, 0;" : "mov.u32 %r8, %tid.x;");
}
const std::string kLocal = ".local .align 16 .b8 own[2048]; mov.u64 %rd0, own;\n";
const Space kSpaces[] = {
    {".global", "mov.u64 %rd0, data;\n"},
    {".shared", "mov.u64 %rd0, tile;\n" + copy_to("shared", false)},
    {".shared::cta", "mov.u64 %rd0, tile;\n" + copy_to("shared::cta", false)},
    {".local", kLocal + copy_to("local", true), true, true},
    {".const", "mov.u64 %rd0, constants;\n", false},
    {"", "mov.u64 %rd0, data; cvta.global.u64 %rd0, %rd0;\n"},
    {"", "mov.u64 %rd0, tile;\n" + copy_to("shared", false) + "cvta.shared.u64 %rd0, %rd0;\n"},
    {"", kLocal + copy_to("local", true) + "cvta.local.u64 %rd0, %rd0;\n", true, true},
    {"", "mov.u64 %rd0, constants; cvta.const.u64 %rd0, %rd0;\n", false},
};

struct Type {
  std::string name;
  U32 bytes;
  bool sign;
};
const Type kTypes[] = {{"b8", 1, false},  {"u8", 1, false},  {"s8", 1, true},   {"b16", 2, false},
                       {"u16", 2, false}, {"s16", 2, true},  {"b32", 4, false}, {"u32", 4, false},
                       {"s32", 4, true},  {"f32", 4, false}, {"b64", 8, false}, {"u64", 8, false},
                       {"s64", 8, true},  {"f64", 8, false}};

/// "%h1" or "{%h1, %h2}": registers of a width.
std::string registers(U32 bytes, U32 count, U32 first = 10) {
  const std::string kind = bytes == 2 ? "%h" : bytes == 4 ? "%r" : "%rd";
  std::string text;
  for (U32 i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + kind + std::to_string(first + i);
  return count == 1 ? text : "{" + text + "}";
}
std::string each_register(U32 bytes, U32 count, const std::string& statement) {
  std::string text;
  for (U32 i = 0; i < count; ++i)
    text += replaced(
                replaced(replaced(statement, "REG", registers(bytes, 1, 10 + i)), "INDEX", std::to_string(i)),
                "CELL", std::to_string(8 * i)) +
            "\n";
  return text;
}
U64 cut(U64 value, U32 bytes) { return bytes == 8 ? value : value & ((U64(1) << (8 * bytes)) - 1); }

std::string vector_of(U32 count) { return count == 1 ? "" : ".v" + std::to_string(count); }

/// Where each thread reads: side by side, all at one place, anywhere, or backwards.
std::vector<U64> offsets(int pattern, U32 size) {
  std::mt19937 generator(9);
  std::vector<U64> result(kThreads);
  const U32 cells = kBytes / size;
  for (U32 thread = 0; thread < kThreads; ++thread)
    result[thread] = U64{size} * (pattern == 0   ? thread % cells
                                  : pattern == 1 ? 5
                                  : pattern == 2 ? generator() % cells
                                                 : cells - 1 - thread % cells);
  return result;
}

void check_load(const std::string& load, const Space& space, const Type& type, U32 count, U32 width,
                int pattern, bool guarded) {
  Source source;
  source.module = array_text(".global", "data") + array_text(".const", "constants");
  source.shared = std::to_string(kBytes);
  source.outs = 4;
  const std::string bits = ".b" + std::to_string(8 * width);
  // The address is written as a register and an offset.
  source.body = space.fill +
                "ld.global.u64 %rd1, [%mine_in]; add.u64 %rd1, %rd0, %rd1; sub.u64 %rd1, %rd1, 48; and.b32 "
                "%r0, %lane, 1; setp.eq.u32 %p0, %r0, 0;\n" +
                each_register(width, count,
                              "mov" + bits + " REG, " +
                                  (width == 2   ? "0xa5a5"
                                   : width == 4 ? "0xa5a5a5a5"
                                                : "0xa5a5a5a5a5a5a5a5") +
                                  ";") +
                (guarded ? "@%p0 " : "") + load + vector_of(count) + "." + type.name + " " +
                registers(width, count) + ", [%rd1+48];\n" +
                each_register(width, count, "st.global" + bits + " [%mine+CELL], REG;");
  const auto at = offsets(pattern, type.bytes * count);
  const Result result = run(source, at, kThreads);
  CHECK(result.clean());
  std::vector<U64> expected(kThreads * 4, 0);
  for (U32 thread = 0; thread < kThreads; ++thread)
    for (U32 i = 0; i < count; ++i) {
      U64 value = 0;
      for (U32 b = 0; b < type.bytes; ++b) value |= U64{data_at(at[thread] + i * type.bytes + b)} << (8 * b);
      if (type.sign && type.bytes < 8 && (value >> (8 * type.bytes - 1)) != 0)
        value |= ~U64(0) << (8 * type.bytes);
      expected[thread * 4 + i] = cut(guarded && thread % 2 != 0 ? kBefore : value, width);
    }
  INFO(load << vector_of(count) << "." << type.name << " into " << width << " bytes, pattern " << pattern
            << (guarded ? ", odd lanes off" : ""));
  CHECK(result.out == expected);
}

void check_store(const std::string& store, const Space& space, const Type& type, U32 count, U32 width,
                 U32 stride, bool guarded) {
  Source source;
  source.module = array_text(".global", "data") + array_text(".const", "constants");
  source.shared = std::to_string(kBytes);
  source.outs = 2;
  const std::string bits = ".b" + std::to_string(8 * width);
  // Register i holds the low bits of 0x0123456789abcdef * (thread + 1) + i.
  source.body =
      space.fill + "mul.wide.u32 %rd1, %thread, " + std::to_string(space.own ? 0 : stride) +
      "; add.u64 %rd1, %rd0, %rd1; and.b32 %r0, %lane, 1; setp.eq.u32 %p0, %r0, 0; add.u32 %r1, %thread, 1;\n"
      "cvt.u64.u32 %rd2, %r1; mul.lo.u64 %rd2, %rd2, 0x0123456789abcdef;\n" +
      each_register(
          width, count,
          "add.u64 %rd3, %rd2, INDEX; " +
              (width == 8 ? "mov.b64 REG, %rd3;" : "cvt.u" + std::to_string(8 * width) + ".u64 REG, %rd3;")) +
      "bar.sync 0;\n" + (guarded ? "@%p0 " : "") + store + vector_of(count) + "." + type.name + " [%rd1], " +
      registers(width, count) + ";\nbar.sync 0;\n" + "mul.wide.u32 %rd1, %thread, " +
      (space.own ? "0" : "16") + "; add.u64 %rd1, %rd0, %rd1; ld" + space.modifier +
      ".v2.b64 {%rd2, %rd3}, [%rd1]; st.global.v2.b64 [%mine], {%rd2, %rd3};";
  const Result result = run(source, {}, kThreads);
  CHECK(result.clean());
  std::vector<U64> expected(kThreads * 2);
  auto* bytes = reinterpret_cast<std::uint8_t*>(expected.data());
  for (U64 i = 0; i < kBytes; ++i) bytes[i] = data_at(space.own ? i % 16 : i);
  for (U32 thread = 0; thread < kThreads; ++thread) {
    if (guarded && thread % 2 != 0) continue;
    for (U32 i = 0; i < count; ++i) {
      const U64 value = U64{0x0123456789abcdefu} * (thread + 1) + i;
      std::memcpy(bytes + (space.own ? 16 : stride) * thread + i * type.bytes, &value, type.bytes);
    }
  }
  INFO(store << vector_of(count) << "." << type.name << " from " << width << " bytes, every " << stride
             << " bytes" << (guarded ? ", odd lanes off" : ""));
  CHECK(result.out == expected);
}

}  // namespace

TEST_CASE("memory: ld reads every width of every space, and fills wider registers with zeros or the sign") {
  for (const Space& space : kSpaces)
    for (const Type& type : kTypes)
      for (U32 width = std::max(2u, type.bytes); width <= 8; width *= 2)
        for (const int pattern : {0, 2})
          check_load("ld" + space.modifier, space, type, 1, width, pattern, pattern == 2);
}

TEST_CASE("memory: ld reads vectors, whatever the addresses of the lanes have in common") {
  for (const Space& space : kSpaces)
    for (const Type& type : kTypes)
      for (U32 count = 1; count <= 4; count *= 2) {
        if (type.name[0] == 'u' || type.name[0] == 'f' || type.bytes * count > 16) continue;
        for (const int pattern : {0, 1, 2, 3})
          for (const bool guarded : {false, true})
            check_load("ld" + space.modifier, space, type, count, std::max(2u, type.bytes), pattern, guarded);
      }
  check_load("ld.global", kSpaces[0], kTypes[2], 4, 4, 0, false);
  check_load("ld.shared", kSpaces[1], kTypes[5], 2, 4, 0, true);
}

TEST_CASE("memory: st writes every width to every space and leaves its neighbours alone") {
  for (const Space& space : kSpaces) {
    if (!space.writable) continue;
    for (const Type& type : kTypes)
      for (U32 count = 1; count <= 4; count *= 2) {
        if (type.bytes * count > 16) continue;
        for (const bool guarded : {false, true}) {
          check_store("st" + space.modifier, space, type, count, std::max(2u, type.bytes), 16, guarded);
          check_store("st" + space.modifier, space, type, count, std::max(2u, type.bytes), type.bytes * count,
                      guarded);
        }
        if (count == 1 && type.bytes < 8) check_store("st" + space.modifier, space, type, 1, 8, 16, true);
      }
  }
}

TEST_CASE("memory: strengths, scopes and hints do not change what is read or written") {
  const Type &b32 = kTypes[6], &u8 = kTypes[1];
  for (const std::string form :
       {"ld.weak.global", "ld.volatile.global", "ld.relaxed.cta.global", "ld.relaxed.gpu.global",
        "ld.acquire.sys.global", "ld.acquire.cluster.global", "ld.global.ca", "ld.global.cg", "ld.global.cs",
        "ld.global.lu", "ld.global.cv", "ld.global.nc", "ld.global.ca.nc", "ld.global.nc.L1::no_allocate",
        "ld.global.nc.L1::evict_last.L2::128B", "ld.global.L1::evict_first", "ld.global.L2::256B",
        "ld.relaxed.gpu.global.L1::no_allocate", "ldu.global"}) {
    check_load(form, kSpaces[0], b32, 4, 4, 0, false);
    check_load(form, kSpaces[0], u8, 1, 4, 2, true);
  }
  for (const std::string form :
       {"ld.volatile.shared", "ld.relaxed.cta.shared", "ld.acquire.cta.shared::cta", "ld.weak.shared"})
    check_load(form, kSpaces[1], b32, 2, 4, 2, true);
  for (const std::string form : {"ld.volatile", "ld.relaxed.gpu", "ld.acquire.gpu", "ld.cg"})
    for (const std::size_t space : {std::size_t(5), std::size_t(6)})
      check_load(form, kSpaces[space], b32, 1, 4, 0, false);
  for (const std::string form :
       {"st.weak.global", "st.volatile.global", "st.relaxed.gpu.global", "st.release.sys.global",
        "st.release.cta.global", "st.global.wb", "st.global.cg", "st.global.cs", "st.global.wt",
        "st.global.L1::no_allocate", "st.global.L1::evict_last"}) {
    check_store(form, kSpaces[0], b32, 4, 4, 16, false);
    check_store(form, kSpaces[0], u8, 1, 4, 1, true);
  }
  for (const std::string form : {"st.volatile.shared", "st.relaxed.cta.shared", "st.release.cta.shared::cta"})
    check_store(form, kSpaces[1], b32, 2, 4, 8, true);
  for (const std::string form : {"st.volatile", "st.release.gpu"})
    check_store(form, kSpaces[6], b32, 1, 4, 4, false);
}

TEST_CASE("memory: generic addresses of one instruction may point into different spaces") {
  Source source;
  source.module = ".global .align 8 .u32 word = 100;\n.const .align 8 .u32 fixed = 200;\n";
  source.shared = "16";
  source.body =
      ".local .align 8 .b8 own[8]; mov.u64 %rd0, own; add.u32 %r0, %lane, 1000; st.local.b32 [%rd0+4], %r0; "
      "mov.u32 %r1, 300; mov.u64 %rd1, tile; st.shared.b32 [%rd1], %r1; bar.sync 0;\n"
      "cvta.local.u64 %rd0, %rd0; add.u64 %rd0, %rd0, 4; cvta.shared.u64 %rd1, %rd1; mov.u64 %rd2, word; "
      "mov.u64 %rd3, fixed; and.b32 %r2, %lane, 3;\n"
      "setp.eq.u32 %p0, %r2, 1; selp.b64 %rd4, %rd1, %rd0, %p0; setp.eq.u32 %p0, %r2, 2; selp.b64 %rd4, "
      "%rd2, %rd4, %p0; setp.eq.u32 %p0, %r2, 3; selp.b64 %rd4, %rd3, %rd4, %p0;\n"
      "ld.u32 %rd5, [%rd4]; st.global.b64 [%mine], %rd5;";
  const Result result = run(source, {}, 32);
  CHECK(result.clean());
  for (U64 lane = 0; lane < 32; ++lane)
    CHECK(result.out[lane] == std::array<U64, 4>{1000 + lane, 300, 100, 200}[lane % 4]);
}

TEST_CASE("memory: variables are addressed by name, and shared memory by 32-bit registers") {
  const Source source{
      "mov.u32 %r0, tile; mad.lo.u32 %r0, %lane, 4, %r0; st.shared.b32 [%r0], %lane; bar.sync 0; "
      "ld.shared.b32 %r1, [tile+20]; ld.global.b32 %r2, [word]; ld.const.b32 %r3, [fixed+4];\n"
      "ld.shared.b32 %r4, [%r0]; add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4; "
      "cvt.u64.u32 %rd0, %r1; st.global.b64 [%mine], %rd0;",
      ".global .align 8 .u32 word = 100;\n.const .align 8 .u32 fixed[2] = {200, 300};\n", "128"};
  const Result result = run(source, {}, 32);
  CHECK(result.clean());
  for (U64 lane = 0; lane < 32; ++lane) CHECK(result.out[lane] == 405 + lane);
}

// ---- mistakes ----

namespace {

/// Runs a body whose thread 9 has the offset `offset` in %rd0, and all others 0.
Result run_with_offset(const std::string& body, U64 offset) {
  Source source;
  source.module = ".global .align 16 .b8 data[256];\n.const .align 16 .b8 constants[256] = {1};\n";
  source.shared = "256";
  source.body =
      ".local .align 16 .b8 own[256]; ld.global.u64 %rd0, [%mine_in]; setp.eq.u32 %p0, %thread, 9; mov.u32 "
      "%r0, 7;\n" +
      body;
  std::vector<U64> rows(32, 0);
  rows[9] = offset;
  return run(source, rows);
}

struct Mistake {
  std::string address, access;  // statements: %rd1 = the address of the object; the access at %rd2
  std::string begin = {};       // what initialises the object
};
const std::string kFillShared =
    "mov.u64 %rd3, tile; mad.wide.u32 %rd3, %thread, 8, %rd3; mov.u64 %rd4, 5; st.shared.u64 [%rd3], %rd4; "
    "bar.sync 0;\n";
const std::vector<Mistake> kReads = {
    {"mov.u64 %rd1, data;", "ld.global.u32 %r0, [%rd2];"},
    {"mov.u64 %rd1, data;", "ld.u32 %r0, [%rd2];"},
    {"mov.u64 %rd1, tile;", "ld.shared.u32 %r0, [%rd2];", kFillShared},
    {"mov.u64 %rd1, tile; cvta.shared.u64 %rd1, %rd1;", "ld.u32 %r0, [%rd2];", kFillShared},
    {"mov.u64 %rd1, constants;", "ld.const.u32 %r0, [%rd2];"},
    {"mov.u64 %rd1, own; st.local.u32 [%rd1], %r0;", "ld.local.u32 %r0, [%rd2];"},
    {"mov.u64 %rd1, own; st.local.u32 [%rd1], %r0; cvta.local.u64 %rd1, %rd1;", "ld.u32 %r0, [%rd2];"}};
const std::vector<Mistake> kWrites = {
    {"mov.u64 %rd1, data;", "st.global.u32 [%rd2], %r0;"},
    {"mov.u64 %rd1, tile;", "st.shared.u32 [%rd2], %r0;"},
    {"mov.u64 %rd1, tile; cvta.shared.u64 %rd1, %rd1;", "st.u32 [%rd2], %r0;"},
    {"mov.u64 %rd1, own;", "st.local.u32 [%rd2], %r0;"},
    {"mov.u64 %rd1, data;", "atom.global.add.u32 %r0, [%rd2], 1;"},
    {"mov.u64 %rd1, tile;", "red.shared.add.u32 [%rd2], 1;", kFillShared}};
std::string body_of(const Mistake& m, const std::string& guard = "") {
  return m.begin + m.address + " add.u64 %rd2, %rd1, %rd0;\n" + guard + m.access;
}

}  // namespace

TEST_CASE("memory: addresses outside of all objects end the kernel, in every space") {
  for (const auto* list : {&kReads, &kWrites})
    for (const Mistake& m : *list) {
      INFO(m.address << " " << m.access);
      CHECK(run_with_offset(body_of(m), 0).clean());
      for (const U64 offset : {U64(256) << 20, ~U64(0) << 20}) {
        const Result result = run_with_offset(body_of(m), offset);
        CHECK(result.error == 700);
        CHECK(result.of(FindingKind::out_of_bounds) == 1);
        // The lane with the bad address may be switched off.
        CHECK(run_with_offset(body_of(m, "@!%p0 "), offset).clean());
      }
    }
  // The first byte behind an object, and an access that begins in it.
  for (const std::size_t i : {std::size_t(0), std::size_t(2), std::size_t(4), std::size_t(5)})
    CHECK(run_with_offset(body_of(kReads[i]), 256).error == 700);
  CHECK(
      run_with_offset(
          "mov.u64 %rd1, data; add.u64 %rd2, %rd1, %rd0; ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%rd2];", 256)
          .error == 700);
  CHECK(run_with_offset("mov.u64 %rd2, 0; ld.global.u32 %r0, [%rd2];", 0).error == 700);
  CHECK(run_with_offset("mov.u64 %rd2, constants; st.global.u32 [%rd2], %r0;", 0).error == 700);
}

TEST_CASE("memory: misaligned addresses end the kernel, in every space") {
  for (const auto* list : {&kReads, &kWrites})
    for (const Mistake& m : *list) {
      INFO(m.address << " " << m.access);
      const Result result = run_with_offset(body_of(m), 2);
      CHECK(result.error == 716);
      CHECK(result.of(FindingKind::misaligned) == 1);
    }
  CHECK(run_with_offset(
            "mov.u64 %rd1, data; add.u64 %rd2, %rd1, %rd0; ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%rd2];", 8)
            .error == 716);
  CHECK(
      run_with_offset("mov.u64 %rd1, data; add.u64 %rd2, %rd1, %rd0; st.global.v2.u16 [%rd2], {%h0, %h1};", 2)
          .error == 716);
  CHECK(
      run_with_offset("mov.u64 %rd1, data; add.u64 %rd2, %rd1, %rd0; ld.global.u8 %r0, [%rd2];", 3).clean());
}

TEST_CASE("memory: reads of what nobody has written are reported, in every space, and the kernel goes on") {
  const Source fresh_global{
      "ld.global.u64 %rd0, [%mine_in]; ld.global.u32 %r0, [%rd0]; cvt.u64.u32 %rd1, %r0; st.global.u64 "
      "[%mine], %rd1;"};
  const Memory fresh(64, false);
  const Result global = run(fresh_global, std::vector<U64>(32, fresh.address + 16));
  CHECK(global.error == 0);
  CHECK(global.of(FindingKind::uninitialized) >= 1);
  CHECK(global.out[7] == 0xffffffffu);  // poison
  for (const std::string body :
       {"ld.shared.u32 %r0, [tile+8];", "mov.u64 %rd1, own; ld.local.u32 %r0, [%rd1+8];",
        "mov.u64 %rd1, tile; cvta.shared.u64 %rd1, %rd1; ld.u8 %r0, [%rd1+3];",
        "mov.u64 %rd1, own; st.local.u8 [%rd1+8], %r0; ld.local.u8 %r0, [%rd1+9];"}) {
    INFO(body);
    const Result result = run_with_offset(body, 0);
    CHECK(result.error == 0);
    CHECK(result.of(FindingKind::uninitialized) >= 1);
  }
  // Bytes beside those that were written are poison too; a read that finds only a part of its bytes written
  // may be a copy of padding.
  const Result part = run({"mov.u32 %r0, 0x55; st.shared.u8 [tile+1], %r0; ld.shared.u32 %r1, [tile]; "
                           "cvt.u64.u32 %rd1, %r1; st.global.u64 [%mine], %rd1;",
                           {},
                           "16"},
                          {}, 1);
  CHECK(part.clean());
  CHECK(part.out[0] == 0xffff55ffu);
}
