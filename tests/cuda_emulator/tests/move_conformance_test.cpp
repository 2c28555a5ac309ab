#include <catch2/catch.hpp>

#include "tests/conformance.h"
#include "tests/ptx_program.h"

// mov, packing, addresses of all spaces, parameters and special registers.
namespace {

using namespace emulator;
using emulator::conformance::mismatches;
using emulator::conformance::one;
using emulator::conformance::random_rows;
using emulator::conformance::Row;
using ptx_program::Result;
using ptx_program::run;
using ptx_program::Source;
using ptx_program::U32;
using ptx_program::U64;

/// A block and a grid of three dimensions; `f` computes the words of a thread from its coordinates.
struct Thread {
  U32 t[3], b[3], lane, warp;
};
constexpr U32 kBlock[3] = {5, 3, 7}, kGrid[3] = {3, 2, 2};  // 105 threads: the last warp has 9

LaunchConfig three_dimensions() {
  LaunchConfig config;
  std::copy(kBlock, kBlock + 3, config.block);
  std::copy(kGrid, kGrid + 3, config.grid);
  return config;
}

/// The kernel stores the register into out[block][thread]; all lanes compute their place by hand from %r40,
/// the number that memory hands out.
template <class F>
void check_special(const std::string& name, F expected) {
  const std::string shape =
      "mov.u32 %r1, %tid.z; mad.lo.u32 %r1, %r1, 3, 0; mov.u32 %r2, %tid.y; add.u32 %r1, %r1, %r2; mov.u32 "
      "%r2, %tid.x; mad.lo.u32 %r1, %r1, 5, %r2;\n"
      "mov.u32 %r3, %ctaid.z; mov.u32 %r4, %ctaid.y; mad.lo.u32 %r3, %r3, 2, %r4; mov.u32 %r4, %ctaid.x; "
      "mad.lo.u32 %r3, %r3, 3, %r4; mad.lo.u32 %r1, %r3, 105, %r1;\n"
      "mul.wide.u32 %rd1, %r1, 8; add.u64 %rd1, %rd1, %out; mov.u32 %r5, " +
      name + "; mov.u32 %r6, %r5; cvt.u64.u32 %rd2, %r6; st.global.u64 [%rd1], %rd2;";
  const Result result = run(Source{shape}, {}, three_dimensions());
  CHECK(result.clean());
  std::vector<U64> want;
  for (U32 block = 0; block < 12; ++block)
    for (U32 thread = 0; thread < 105; ++thread)
      want.push_back(static_cast<U32>(expected(Thread{{thread % 5, thread / 5 % 3, thread / 15},
                                                      {block % 3, block / 3 % 2, block / 6},
                                                      thread % 32,
                                                      thread / 32})));
  INFO(name);
  CHECK(result.out == want);
}

int launch(const std::string& text, const std::vector<std::uint8_t>& params, U32 threads = 32) {
  const LoadedModule module(text);
  const Kernel* kernel = module.kernel("test");
  REQUIRE(info(*kernel).unsupported == "");
  LaunchConfig config;
  config.block[0] = threads;
  return run_kernel(*kernel, config, params).error;
}

}  // namespace

TEST_CASE("move: mov copies registers and literals of every width") {
  for (const auto& [kind, types] : {std::pair<char, std::vector<std::string>>('h', {"b16", "u16", "s16"}),
                                    {'r', {"b32", "u32", "s32", "f32"}},
                                    {'d', {"b64", "u64", "s64", "f64"}}})
    for (const std::string& type : types)
      CHECK(mismatches(
                {"mov." + type, std::string(1, kind) + "=" + kind, one([](const Row& in) { return in[0]; })},
                random_rows(200)) == "");
  CHECK(mismatches({"mov.pred", "p=p", one([](const Row& in) { return in[0]; })}, random_rows(200)) == "");
  CHECK(mismatches({"mov.pred %d0, !%a0;", "p=p", one([](const Row& in) { return in[0] ^ 1; })},
                   random_rows(200)) == "");
  for (const auto& [text, signature, value] :
       {std::tuple("mov.u16 %d0, 0xfedc;", "h=r", U64(0xfedc)),
        {"mov.s16 %d0, -2;", "h=r", 0xfffe},
        {"mov.b32 %d0, 0x89abcdef;", "r=r", 0x89abcdefu},
        {"mov.s32 %d0, -5;", "r=r", 0xfffffffbu},
        {"mov.u32 %d0, 0b101;", "r=r", 5},
        {"mov.u32 %d0, 017;", "r=r", 15},
        {"mov.u32 %d0, WARP_SZ;", "r=r", 32},
        {"mov.f32 %d0, 0f3F800001;", "r=r", 0x3f800001u},
        {"mov.b32 %d0, 0fBF800000;", "r=r", 0xbf800000u},
        {"mov.f64 %d0, 0d3FF0000000000001;", "d=r", 0x3ff0000000000001u},
        {"mov.u64 %d0, 0x8000000000000001;", "d=r", 0x8000000000000001u},
        {"mov.s64 %d0, -1;", "d=r", ~U64(0)},
        {"mov.f64 %d0, 1.5;", "d=r", 0x3ff8000000000000u},
        {"mov.pred %d0, 1;", "p=r", 1}})
    CHECK(mismatches({text, signature, one([v = value](const Row&) { return v; })}, random_rows(128)) == "");
}

TEST_CASE("move: vectors are packed into a register and unpacked, the first element lowest") {
  const auto rows = random_rows(300);
  CHECK(
      mismatches({"mov.b32 %d0, {%a0, %a1};", "r=hh", one([](const Row& in) { return in[1] << 16 | in[0]; })},
                 rows) == "");
  CHECK(
      mismatches({"mov.b64 %d0, {%a0, %a1};", "d=rr", one([](const Row& in) { return in[1] << 32 | in[0]; })},
                 rows) == "");
  CHECK(mismatches({"mov.b64 %d0, {%a0, %a1, %a2, %a3};", "d=hhhh",
                    one([](const Row& in) { return in[3] << 48 | in[2] << 32 | in[1] << 16 | in[0]; })},
                   rows) == "");
  CHECK(mismatches({"mov.b64 %d0, {%a0, 7};", "d=r", one([](const Row& in) { return U64(7) << 32 | in[0]; })},
                   rows) == "");
  CHECK(mismatches({"mov.b32 {%d0, %d1}, %a0;", "hh=r",
                    [](const Row& in, Row& out) { out[0] = in[0], out[1] = in[0] >> 16; }},
                   rows) == "");
  CHECK(mismatches({"mov.b64 {%d0, %d1}, %a0;", "rr=d",
                    [](const Row& in, Row& out) { out[0] = in[0], out[1] = in[0] >> 32; }},
                   rows) == "");
  CHECK(mismatches({"mov.b64 {%d0, %d1, %d2, %d3}, %a0;", "hhhh=d",
                    [](const Row& in, Row& out) {
                      for (std::size_t i = 0; i < 4; ++i) out[i] = in[0] >> (16 * i);
                    }},
                   rows) == "");
  CHECK(mismatches({"mov.b32 {%d0, _}, %a0;", "h=r", one([](const Row& in) { return in[0]; })}, rows) == "");
  CHECK(mismatches({"mov.b64 {_, %d0}, %a0;", "r=d", one([](const Row& in) { return in[0] >> 32; })}, rows) ==
        "");
  // Halves exchanged within one register.
  CHECK(mismatches({"{ .reg .b32 l, h; mov.b64 %d0, %a0; mov.b64 {l, h}, %d0; mov.b64 %d0, {h, l}; }", "d=d",
                    one([](const Row& in) { return in[0] << 32 | in[0] >> 32; })},
                   rows) == "");
}

TEST_CASE("move: what mov does not do is refused") {
  using conformance::refusal;
  for (const auto& [text, signature] : {std::pair("mov.b32", "r=h"),
                                        {"mov.b64", "d=r"},
                                        {"mov.u16", "r=r"},
                                        {"mov.u8", "h=h"},
                                        {"mov.pred", "p=r"},
                                        {"mov.b32", "r=rr"},
                                        {"mov.u64 %d0, {%a0, %a1};", "d=rr"},
                                        {"mov.b32 %d0, {%a0, %a1};", "r=rr"},
                                        {"mov.b64 %d0, {%a0, %a1, %a2};", "d=rrr"},
                                        {"mov.b16 %d0, {%a0, %a1};", "h=hh"},
                                        {"mov.sat.u32", "r=r"},
                                        {"mov.u32.u32", "r=r"},
                                        {"mov.u16 %d0, 0x12345;", "h=r"},
                                        {"mov.u64 %d0, %tid.x;", "d=r"},
                                        {"mov.u32 %d0, %nosuch;", "r=r"}})
    CHECK(refusal(text, signature) != "");
}

TEST_CASE(
    "move: cvta turns addresses of a space into generic ones and back, isspacep knows which space they point "
    "into") {
  // Bits of the result: isspacep of global, shared, local, const, param, shared::cta, shared::cluster.
  const std::string bits = "mov.u32 %r9, 0;\n" + [] {
    std::string text;
    int i = 0;
    for (const std::string space :
         {"global", "shared", "local", "const", "param", "shared::cta", "shared::cluster"})
      text += "isspacep." + space + " %p1, %rd4; selp.b32 %r8, " + std::to_string(1 << i++) +
              ", 0, %p1; or.b32 %r9, %r9, %r8;\n";
    return text;
  }();
  struct Case {
    std::string space, object;
    U64 expected;
  };
  for (const Case& c : {Case{"global", "word", 1},
                        {"shared", "tile", 2 | 32 | 64},
                        {"local", "own", 4},
                        {"const", "fixed", 8},
                        {"shared::cta", "tile", 2 | 32 | 64}}) {
    const std::string memory = c.space == "const" ? "" : "st." + c.space + ".u32 [%rd3+4], %r1; ";
    const Source source{
        ".local .align 8 .b8 own[16]; mov.u32 %r1, 77; mov.u64 %rd3, " + c.object + "; cvta." + c.space +
            ".u64 %rd4, %rd3; cvta.to." + c.space + ".u64 %rd5, %rd4;\n" + memory +
            "ld.u32 %r2, [%rd4+4]; ld." + c.space + ".u32 %r3, [%rd5+4]; sub.u64 %rd6, %rd5, %rd3;\n" + bits +
            "cvt.u64.u32 %rd7, %r2; cvt.u64.u32 %rd8, %r3; cvt.u64.u32 %rd9, %r9; st.global.v2.u64 [%mine], "
            "{%rd6, %rd7}; st.global.v2.u64 [%mine+16], {%rd8, %rd9};",
        ".global .align 8 .u32 word[2];\n.const .align 8 .u32 fixed[2] = {1, 77};\n", "16", 1, 4};
    const Result result = run(source, {}, 1);
    INFO(c.space);
    CHECK(result.clean());
    const U64 global_or_not = c.space == "const" ? result.out[3] & ~U64(1)
                                                 : result.out[3];  // a constant is in the global window too
    CHECK(result.out[0] == 0);
    CHECK(result.out[1] == 77);
    CHECK(result.out[2] == 77);
    CHECK(global_or_not == c.expected);
  }
  // A variable by name, and one whose initial value is a generic address.
  const Result named =
      run({"cvta.shared.u64 %rd1, tile; mov.u64 %rd2, tile; cvta.shared.u64 %rd3, %rd2; sub.u64 %rd4, %rd1, "
           "%rd3; ld.global.u64 %rd5, [pointer]; ld.u32 %r1, [%rd5]; cvt.u64.u32 %rd6, %r1;\n"
           "st.global.v2.u64 [%mine], {%rd4, %rd6};",
           ".global .align 4 .u32 words[3] = {5, 6, 7};\n.global .align 8 .u64 pointer = generic(words)+8;\n",
           "16", 1, 2},
          {}, 1);
  CHECK(named.clean());
  CHECK(named.out == std::vector<U64>{0, 7});
}

TEST_CASE("move: parameters are read by name, through registers, and through generic addresses") {
  // {u8 at 0, s16 at 2, u32 at 4, struct {u32[4]} at 16, out at 32}
  const std::string text =
      ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry test(.param .u8 a, .param .u16 b, "
      ".param .u32 c, .param .align 16 .b8 s[16], .param .u64 out)\n{\n"
      ".reg .b16 %h<4>; .reg .b32 %r<32>; .reg .b64 %rd<16>;\n"
      "ld.param.u64 %rd0, [out]; mov.u32 %r31, %tid.x; mad.wide.u32 %rd0, %r31, 48, %rd0;\n"
      "ld.param.u8 %h0, [a]; cvt.u32.u16 %r0, %h0; ld.param.s16 %r1, [b]; ld.param.u32 %r2, [c]; "
      "ld.param.v4.u32 {%r3, %r4, %r5, %r6}, [s];\n"
      "mov.b64 %rd1, s; and.b32 %r7, %r31, 3; mad.wide.u32 %rd2, %r7, 4, %rd1; ld.param.u32 %r8, [%rd2]; "
      "ld.param.u32 %r9, [%rd1+12];\n"  // each lane its own element
      "cvta.param.u64 %rd3, %rd1; mad.wide.u32 %rd4, %r7, 4, %rd3; ld.u32 %r10, [%rd4]; ld.param.u16 %r11, "
      "[s+6];\n"
      "st.global.v4.u32 [%rd0], {%r0, %r1, %r2, %r3}; st.global.v2.u32 [%rd0+16], {%r6, %r8}; "
      "st.global.v2.u32 [%rd0+24], {%r9, %r10}; st.global.u32 [%rd0+32], %r11; ret;\n}\n";
  ptx_program::Memory out(64 * 48);
  std::vector<std::uint8_t> params(40);
  const std::uint16_t b = 0x8001;
  const U32 words[] = {0xfedcba98u, 0, 0, 1000, 0x20002001u, 3000, 4000};
  params[0] = 200;
  std::memcpy(&params[2], &b, 2);
  std::memcpy(&params[4], words, 4);
  std::memcpy(&params[16], words + 3, 16);
  std::memcpy(&params[32], &out.address, 8);
  REQUIRE(launch(text, params, 64) == 0);
  for (U32 thread = 0; thread < 64; ++thread) {
    const U32* got = out.host<U32>() + 12 * thread;
    const U32 element = words[3 + thread % 4];
    CHECK(std::vector<U32>(got, got + 9) ==
          std::vector<U32>{200, 0xffff8001u, 0xfedcba98u, 1000, 4000, element, 4000, element, 0x2000});
  }
}

TEST_CASE("move: reads past the parameters, misaligned ones, and writes to them, end the kernel") {
  const auto error_of = [](const std::string& body) {
    return launch(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry test(.param .u64 a)\n{ .reg .b32 "
        "%r<4>; .reg .b64 %rd<4>;\nmov.b64 %rd1, a; cvta.param.u64 %rd2, %rd1;\n" +
            body + " ret; }\n",
        std::vector<std::uint8_t>(8));
  };
  CHECK(error_of("ld.param.u32 %r0, [%rd1+4];") == 0);
  CHECK(error_of("ld.param.u32 %r0, [%rd1+8];") == 700);
  CHECK(error_of("ld.param.u32 %r0, [%rd1+2];") == 716);
  CHECK(error_of("ld.u32 %r0, [%rd2+8];") == 700);
  CHECK(error_of("st.u32 [%rd2], %r0;") == 700);
}

TEST_CASE("move: special registers tell thread, block and lane in three dimensions") {
  const std::string axes = "xyz";
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string axis = std::string(".") + axes[i];
    check_special("%tid" + axis, [i](const Thread& t) { return t.t[i]; });
    check_special("%ctaid" + axis, [i](const Thread& t) { return t.b[i]; });
    check_special("%ntid" + axis, [i](const Thread&) { return kBlock[i]; });
    check_special("%nctaid" + axis, [i](const Thread&) { return kGrid[i]; });
  }
  check_special("%laneid", [](const Thread& t) { return t.lane; });
  check_special("%warpid", [](const Thread& t) { return t.warp; });
  check_special("%nwarpid", [](const Thread&) { return 4; });
  check_special("WARP_SZ", [](const Thread&) { return 32; });
  check_special("%lanemask_eq", [](const Thread& t) { return 1u << t.lane; });
  check_special("%lanemask_lt", [](const Thread& t) { return (U64(1) << t.lane) - 1; });
  check_special("%lanemask_le", [](const Thread& t) { return (U64(2) << t.lane) - 1; });
  check_special("%lanemask_gt", [](const Thread& t) { return 0xffffffffu - ((U64(2) << t.lane) - 1); });
  check_special("%lanemask_ge", [](const Thread& t) { return 0xffffffffu - ((U64(1) << t.lane) - 1); });
  check_special("%cluster_ctarank", [](const Thread&) { return 0; });
  check_special("%cluster_nctarank", [](const Thread&) { return 1; });
}

TEST_CASE("move: clocks move on, and shared memory has a size") {
  for (const std::string clock : {"%clock64", "%globaltimer"}) {
    const Result later = run(
        {"mov.u64 %rd0, " + clock + ";\nWAIT: mov.u64 %rd1, " + clock +
         "; sub.u64 %rd2, %rd1, %rd0; setp.eq.u64 %p0, %rd2, 0; @%p0 bra WAIT; st.global.u64 [%mine], %rd2;"},
        {}, 32);
    CHECK(later.clean());
    CHECK(later.out[3] != 0);
  }
  const Result shared = run({"mov.u32 %r0, %dynamic_smem_size; mov.u32 %r1, %total_smem_size; mov.b64 %rd0, "
                             "{%r0, %r1}; st.global.u64 [%mine], %rd0;"},
                            {}, 1);
  CHECK((shared.out[0] & 0xffffffffu) == 0);
}
