#include <catch2/catch.hpp>

#include "tests/ptx_program.h"

// Branches, calls, exits and the barriers of a block: what lanes do that go different ways, and how they meet
// again.
namespace {

using namespace emulator;
using namespace emulator::ptx_program;

const std::string kStore = "\ncvt.u64.u32 %rd60, %r0; st.global.b64 [%mine], %rd60;";  // %r0 is the result

std::vector<U64> numbers(U32 count) {
  std::vector<U64> rows(count);
  for (U32 i = 0; i < count; ++i) rows[i] = i;
  return rows;
}

/// Runs a body that puts its result into %r0; %r1 is the thread's input. All must go well and be as f says of
/// the inputs.
template <class F>
void check(const std::string& body, const std::vector<U64>& inputs, F f, const std::string& module = {},
           const std::string& shared = {}) {
  const Source source{"ld.global.b32 %r1, [%mine_in]; mov.u32 %r0, 0;\n" + body + kStore, module, shared};
  const auto threads = static_cast<U32>(inputs.size());
  const Result result = run(source, inputs, threads);
  CHECK(result.clean());
  std::vector<U64> expected;
  for (U32 thread = 0; thread < threads; ++thread)
    expected.push_back(static_cast<U32>(f(inputs[thread], thread)));
  INFO(body);
  CHECK(result.out == expected);
}

std::string call_of(const std::string& callee, const std::string& argument, const std::string& result,
                    const std::string& prototype = {}) {
  return "{ .param .b32 argument; .param .b32 answer; st.param.b32 [argument+0], " + argument + "; call" +
         (prototype.empty() ? ".uni" : "") + " (answer), " + callee + ", (argument)" +
         (prototype.empty() ? "" : ", " + prototype) + "; ld.param.b32 " + result + ", [answer+0]; }\n";
}
std::string function(const std::string& name, const std::string& body) {
  return ".func (.param .b32 answer0) " + name +
         "(.param .b32 argument0)\n{ .reg .b32 %a<16>; .reg .b64 %b<8>; .reg .pred %q<8>;\n" + body + "\n}\n";
}

U32 fibonacci(U64 n) { return n < 2 ? static_cast<U32>(n) : fibonacci(n - 1) + fibonacci(n - 2); }

}  // namespace

TEST_CASE("control: lanes leave a loop when they are done, and meet behind it") {
  const std::string loop =
      "LOOP: setp.ge.u32 %p0, %r0, %r2; @%p0 bra.uni DONE; add.u32 %r0, %r0, 3; bra LOOP;\nDONE: "
      "activemask.b32 %r3; setp.ne.u32 %p1, %r3, -1; @%p1 trap;";
  check("mul.lo.u32 %r2, %r1, 3;\n" + loop, numbers(64), [](U64 n, U32) { return 3 * n; });
  // A loop in a loop: both trip counts differ from lane to lane.
  check(
      "mov.u32 %r2, 0;\nOUTER: setp.gt.u32 %p0, %r2, %r1; @%p0 bra END; mov.u32 %r3, %r2;\nINNER: add.u32 "
      "%r0, %r0, 1; setp.eq.u32 %p1, %r3, 0; sub.u32 %r3, %r3, 1; @!%p1 bra INNER;\n"
      "add.u32 %r2, %r2, 1; bra OUTER;\nEND:",
      numbers(64), [](U64 n, U32) { return (n + 1) * (n + 2) / 2; });
}

TEST_CASE("control: brx.idx takes each lane to its own entry of the table") {
  const std::string body =
      "TABLE: .branchtargets A, B, C, A;\nbrx.idx %r1, TABLE;\nA: mov.u32 %r0, 10; bra END;\nB: mov.u32 %r0, "
      "20;\nC: add.u32 %r0, %r0, 30;\nEND:";
  std::vector<U64> inputs;
  for (U32 i = 0; i < 64; ++i) inputs.push_back(i < 32 ? i * 7 % 4 : 2);
  check(body, inputs, [](U64 i, U32) { return i == 1 ? 50u : i == 2 ? 30u : 10u; });
  const Result outside = run({"mov.u32 %r1, 4; mov.u32 %r0, 0;\n" + body}, {}, 32);
  CHECK(outside.error == 719);
  CHECK(outside.of(FindingKind::invalid_operation) == 1);
}

TEST_CASE("control: guarded exits end only their lanes") {
  const Source source{
      "rem.u32 %r0, %lane, 3; setp.eq.u32 %p0, %r0, 1; @%p0 exit;\nadd.u32 %r0, %r0, 5; setp.eq.u32 %p1, "
      "%r0, 5; @!%p1 bra NEXT; ret;\nNEXT: bar.sync 0;" +
      kStore};
  const Result result = run(source, {}, 96);
  CHECK(result.clean());
  for (U32 thread = 0; thread < 96; ++thread) CHECK(result.out[thread] == (thread % 32 % 3 == 2 ? 7u : 0u));
}

TEST_CASE("control: functions call each other, and themselves to depths that differ") {
  const std::string add_one = function(
      "add_one", "ld.param.b32 %a0, [argument0]; add.u32 %a0, %a0, 1; st.param.b32 [answer0+0], %a0; ret;");
  const std::string add_two =
      function("add_two", "ld.param.b32 %a0, [argument0];\n" + call_of("add_one", "%a0", "%a1") +
                              call_of("add_one", "%a1", "%a2") + "st.param.b32 [answer0+0], %a2; ret;");
  check(
      call_of("add_two", "%r1", "%r2") + call_of("add_two", "%r2", "%r0"), numbers(64),
      [](U64 n, U32) { return n + 4; }, add_one + add_two);
  // Only some lanes call, the others go by.
  check(
      "setp.gt.u32 %p0, %r1, 20; @%p0 bra BY;\n" + call_of("add_two", "%r1", "%r0") + "BY:", numbers(64),
      [](U64 n, U32) { return n > 20 ? 0 : n + 2; }, add_one + add_two);
  const std::string fib =
      function("fib",
               "ld.param.b32 %a0, [argument0]; setp.lt.u32 %q0, %a0, 2; st.param.b32 [answer0+0], %a0; @%q0 "
               "ret;\nsub.u32 %a1, %a0, 1; sub.u32 %a2, %a0, 2;\n" +
                   call_of("fib", "%a1", "%a3") + call_of("fib", "%a2", "%a4") +
                   "add.u32 %a5, %a3, %a4; st.param.b32 [answer0+0], %a5; ret;");
  std::vector<U64> depths;
  for (U32 i = 0; i < 64; ++i) depths.push_back(i % 10);
  check(
      call_of("fib", "%r1", "%r0"), depths, [](U64 n, U32) { return fibonacci(n); },
      ".func (.param .b32 answer0) fib(.param .b32 argument0);\n" + fib);
}

TEST_CASE("control: each call has local memory of its own") {
  // f(n) keeps n in local memory while f(n - 1) runs.
  const std::string f = function(
      "f",
      ".local .align 8 .b8 kept[8];\nmov.u64 %b0, kept; ld.param.b32 %a0, [argument0]; st.local.b32 [%b0+4], "
      "%a0; mov.u32 %a2, 0; setp.eq.u32 %q0, %a0, 0;\n"
      "@%q0 bra END; sub.u32 %a1, %a0, 1;\n" +
          call_of("f", "%a1", "%a2") +
          "END: ld.local.b32 %a3, [%b0+4]; add.u32 %a3, %a3, %a2; st.param.b32 [answer0+0], %a3; ret;");
  check(
      call_of("f", "%r1", "%r0"), numbers(32), [](U64 n, U32) { return n * (n + 1) / 2; }, f);
}

TEST_CASE("control: structures are passed and returned by value") {
  const std::string module =
      ".func (.param .align 8 .b8 answer0[16]) swap(.param .align 8 .b8 argument0[16], .param .b32 factor)\n"
      "{ .reg .b32 %a<4>; .reg .b64 %b<4>; ld.param.b64 %b0, [argument0+8]; ld.param.v2.b32 {%a0, %a1}, "
      "[argument0]; ld.param.b32 %a2, [factor]; mul.lo.u32 %a0, %a0, %a2;\n"
      "st.param.b64 [answer0+0], %b0; st.param.v2.b32 [answer0+8], {%a1, %a0}; ret; }\n";
  const Source source{
      "ld.global.b32 %r1, [%mine_in]; add.u32 %r2, %r1, 100; cvt.u64.u32 %rd0, %r1; add.u64 %rd0, %rd0, "
      "0x700000000;\n"
      "{ .param .align 8 .b8 pair[16]; .param .b32 by; .param .align 8 .b8 back[16]; st.param.v2.b32 "
      "[pair+0], {%r1, %r2}; st.param.b64 [pair+8], %rd0; st.param.b32 [by+0], 3;\n"
      "call.uni (back), swap, (pair, by); ld.param.b64 %rd1, [back+0]; ld.param.b64 %rd2, [back+8]; "
      "}\nst.global.v2.b64 [%mine], {%rd1, %rd2};",
      module,
      {},
      1,
      2};
  const Result result = run(source, numbers(40), 40);
  CHECK(result.clean());
  for (U64 n = 0; n < 40; ++n) {
    CHECK(result.out[2 * n] == n + 0x700000000u);
    CHECK(result.out[2 * n + 1] == (3 * n << 32 | (n + 100)));
  }
}

TEST_CASE("control: an indirect call takes each lane to the function that it names") {
  const std::string module =
      function("twice",
               "ld.param.b32 %a0, [argument0]; shl.b32 %a0, %a0, 1; st.param.b32 [answer0+0], %a0; ret;") +
      function(
          "square",
          "ld.param.b32 %a0, [argument0]; mul.lo.u32 %a0, %a0, %a0; st.param.b32 [answer0+0], %a0; ret;") +
      ".global .align 8 .u64 table[2] = {twice, square};\n";
  const std::string call = "PROTOTYPE: .callprototype (.param .b32 _) _ (.param .b32 _);\n" +
                           call_of("%rd4", "%r1", "%r0", "PROTOTYPE");
  const auto expected = [](U64 n, U32) { return n % 3 == 0 ? 2 * n : n * n; };
  check(
      "mov.u64 %rd0, twice; mov.u64 %rd1, square; rem.u32 %r2, %r1, 3; setp.eq.u32 %p0, %r2, 0; selp.b64 "
      "%rd4, %rd0, %rd1, %p0;\n" +
          call,
      numbers(64), expected, module);
  check(
      "rem.u32 %r2, %r1, 3; min.u32 %r2, %r2, 1; mov.u64 %rd0, table; mad.wide.u32 %rd0, %r2, 8, %rd0; "
      "ld.global.u64 %rd4, [%rd0];\n" +
          call,
      numbers(64), expected, module);
  const Result wrong = run({"mov.u64 %rd4, 16; mov.u32 %r1, 0;\n" + call}, {}, 32);
  CHECK(wrong.error == 719);
  CHECK(wrong.of(FindingKind::invalid_operation) == 1);
}

TEST_CASE("control: a lane that spins on another one of its warp lets it go on") {
  const Source source{
      "mov.u32 %r2, tile; mov.u32 %r4, 0; st.volatile.shared.b32 [%r2], %r4; bar.sync 0; setp.eq.u32 %p0, "
      "%lane, 31; @%p0 bra SET;\n"
      "WAIT: ld.volatile.shared.b32 %r0, [%r2]; setp.ne.u32 %p1, %r0, 9; @%p1 bra WAIT; bra END;\nSET: "
      "mov.u32 %r0, 9; st.volatile.shared.b32 [%r2], %r0;\nEND:" +
          kStore,
      {},
      "16"};
  const Result result = run(source, {}, 32);
  CHECK(result.clean());
  CHECK(result.out == std::vector<U64>(32, 9));
}

TEST_CASE("control: trap ends the kernel with an error") {
  const Result result = run({"setp.eq.u32 %p0, %lane, 5; @%p0 trap;"}, {}, 32);
  CHECK(result.error == 719);
  CHECK(result.of(FindingKind::assertion) == 1);
}

// ---- barriers ----

TEST_CASE("barriers: what was written before a barrier is seen behind it") {
  // Each thread hands its number to the thread of the opposite warp.
  for (const std::string barrier :
       {"bar.sync 0;", "bar.cta.sync 3;", "barrier.cta.sync 0;", "barrier.cta.sync.aligned 15, 128;",
        "barrier.sync 1;", "barrier.sync.aligned 1, 128;", "bar.sync 7, 128;",
        "mov.u32 %r9, 5; mov.u32 %r10, 128; barrier.sync %r9, %r10;", "bar.red.popc.u32 %r9, 0, 1;"})
    check(
        "mov.u32 %r2, tile; mad.lo.u32 %r3, %thread, 4, %r2; st.shared.b32 [%r3], %r1;\n" + barrier +
            "\nsub.u32 %r4, 127, %thread; mad.lo.u32 %r5, %r4, 4, %r2; ld.shared.b32 %r0, [%r5];",
        numbers(128), [](U64, U32 thread) { return 127 - thread; }, {}, "512");
}

TEST_CASE("barriers: reductions count, and, or over the block or over the threads of the barrier") {
  const std::string predicate = "setp.lt.u32 %p0, %r1, 40; ";
  for (const std::string bar : {"bar.red", "bar.cta.red", "barrier.red", "barrier.cta.red"}) {
    const std::string aligned = bar == "barrier.red" ? ".aligned" : "";
    check(predicate + bar + ".popc" + aligned + ".u32 %r0, 1, %p0;", numbers(96),
          [](U64, U32) { return 40; });
    check(predicate + bar + ".popc" + aligned + ".u32 %r0, 1, 96, !%p0;", numbers(96),
          [](U64, U32) { return 56; });
    check(predicate + bar + ".or" + aligned + ".pred %p1, 1, %p0; selp.b32 %r0, 1, 0, %p1;", numbers(96),
          [](U64, U32) { return 1; });
    check(predicate + bar + ".and" + aligned + ".pred %p1, 1, %p0; selp.b32 %r0, 1, 0, %p1;", numbers(96),
          [](U64, U32) { return 0; });
    check(
        "setp.lt.u32 %p0, %r1, 96; " + bar + ".and" + aligned + ".pred %p1, 1, %p0; selp.b32 %r0, 1, 0, %p1;",
        numbers(96), [](U64, U32) { return 1; });
    check("setp.gt.u32 %p0, %r1, 96; " + bar + ".or" + aligned +
              ".pred %p1, 1, 96, %p0; selp.b32 %r0, 1, 0, %p1;",
          numbers(96), [](U64, U32) { return 0; });
  }
  // Two pairs of warps, each with a barrier of its own, again and again.
  check(predicate +
            "shr.u32 %r2, %thread, 6; add.u32 %r2, %r2, 1; mov.u32 %r4, 0;\nAGAIN: bar.red.popc.u32 %r3, "
            "%r2, 64, %p0; add.u32 %r0, %r0, %r3; add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 5;\n"
            "@%p1 bra AGAIN;",
        numbers(128), [](U64, U32 thread) { return thread < 64 ? 5 * 40 : 0; });
}

TEST_CASE(
    "barriers: those that arrive do not wait, those that wait see what was written before the arrival") {
  for (const std::string bar : {"bar", "barrier", "barrier.cta"})
    for (const std::string first : {"ge", "lt"})  // producers are the first or the second warp
      check(
          "mov.u32 %r2, tile; shl.b32 %r3, %lane, 2; add.u32 %r3, %r3, %r2; setp." + first +
              ".u32 %p0, %thread, 32; @%p0 bra WAIT; add.u32 %r4, %r1, 1; st.shared.b32 [%r3], %r4;\n" + bar +
              ".arrive 2, 64; bra END;\nWAIT: " + bar + ".sync 2, 64; ld.shared.b32 %r0, [%r3];\nEND:",
          numbers(64),
          [&](U64 n, U32 thread) {
            return (first == "ge") == (thread >= 32) ? (first == "ge" ? n - 31 : n + 33) : 0;
          },
          {}, "128");
}

TEST_CASE("barriers: threads that have exited are not waited for") {
  const Result result =
      run({"setp.ge.u32 %p0, %thread, 40; @%p0 exit; bar.sync 0; mov.u32 %r0, 1;" + kStore}, {}, 128);
  CHECK(result.clean());
  for (U32 thread = 0; thread < 128; ++thread) CHECK(result.out[thread] == (thread < 40 ? 1u : 0u));
}

TEST_CASE("barriers: lanes of a warp may come to barrier.sync at different places, but not to bar.sync") {
  const auto at_two_places = [](const std::string& bar) {
    return run({"and.b32 %r0, %lane, 1; setp.eq.u32 %p0, %r0, 0; @%p0 bra EVEN; " + bar +
                " 0; mov.u32 %r0, 1; bra END;\nEVEN: " + bar + " 0; mov.u32 %r0, 2;\nEND:" + kStore},
               {}, 64);
  };
  const Result allowed = at_two_places("barrier.sync"), wrong = at_two_places("bar.sync");
  CHECK(allowed.clean());
  CHECK(allowed.out[6] == 2);
  CHECK(wrong.error == 0);
  CHECK(wrong.of(FindingKind::barrier) >= 1);
}

TEST_CASE("barriers: a deadlock ends the kernel with an error") {
  const Result apart =
      run({"setp.ge.u32 %p0, %thread, 32; @%p0 bra OTHER; bar.sync 0; bra END;\nOTHER: bar.sync 1;\nEND:"},
          {}, 64);
  CHECK(apart.error == 719);
  CHECK(apart.of(FindingKind::barrier) >= 1);
  const Result lonely = run({"setp.ge.u32 %p0, %thread, 32; @%p0 exit; bar.sync 0, 64;"}, {}, 64);
  CHECK(lonely.error == 719);
  CHECK(lonely.of(FindingKind::barrier) >= 1);
}

TEST_CASE(
    "barriers: counts that disagree, or are no multiple of a warp, are reported, and so is a barrier that "
    "does not exist") {
  CHECK(run({"setp.ge.u32 %p0, %thread, 32; @%p0 bra OTHER; bar.sync 0, 64; bra END;\nOTHER: bar.sync 0, "
             "32;\nEND:"},
            {}, 64)
            .of(FindingKind::barrier) >= 1);
  CHECK(run({"mov.u32 %r1, 40; bar.sync 0, %r1;"}, {}, 64).of(FindingKind::barrier) >= 1);
  const Result missing = run({"mov.u32 %r0, 16; bar.sync %r0;"}, {}, 32);
  CHECK(missing.error == 719);
  CHECK(missing.of(FindingKind::invalid_operation) == 1);
}

TEST_CASE("barriers: bar.warp.sync makes lanes of its mask meet, also at different instructions") {
  // Neighbours exchange numbers three times; odd and even lanes wait in loops of their own.
  const std::string round =
      "st.shared.b32 [%r3], %r0; bar.warp.sync -1; ld.shared.b32 %r6, [%r5]; bar.warp.sync -1; add.u32 %r0, "
      "%r6, 10; add.u32 %r7, %r7, 1; setp.lt.u32 %p1, %r7, 3;\n";
  check(
      "mov.u32 %r2, tile; mad.lo.u32 %r3, %lane, 4, %r2; xor.b32 %r5, %lane, 1; mad.lo.u32 %r5, %r5, 4, %r2; "
      "mov.u32 %r0, %r1; mov.u32 %r7, 0; and.b32 %r4, %lane, 1; setp.eq.u32 %p0, %r4, 0; @%p0 bra EVEN;\n"
      "ODD: " +
          round + "@%p1 bra ODD; bra END;\nEVEN: bar.warp.sync 0x55555555; " + round +
          "@%p1 bra EVEN;\nEND: bar.warp.sync -1;",
      numbers(32), [](U64, U32 thread) { return (thread ^ 1u) + 30; }, {}, "128");
}
