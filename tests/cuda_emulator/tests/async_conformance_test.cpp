#include <catch2/catch.hpp>

#include "tests/ptx_program.h"

// cp.async, cp.async.bulk and mbarrier: what arrives when, and what is not there before.
namespace {

using namespace emulator;
using namespace emulator::ptx_program;

/// Input word i of a thread, as copies see it.
U64 word(U32 thread, U64 i) { return 0x1000000000000000u + thread * 256 + i; }
std::vector<U64> words(U32 threads, U64 count) {
  std::vector<U64> rows;
  for (U32 thread = 0; thread < threads; ++thread)
    for (U64 i = 0; i < count; ++i) rows.push_back(word(thread, i));
  return rows;
}

/// %r1: the address of the thread's 16 bytes of shared memory, %rd1 the same with 64 bits.
const std::string kMine = "mov.u32 %r1, tile; mad.lo.u32 %r1, %thread, 16, %r1; cvt.u64.u32 %rd1, %r1;\n";
const std::string kStoreMine =
    "ld.shared.v2.u64 {%rd2, %rd3}, [%r1]; st.global.v2.u64 [%mine], {%rd2, %rd3};\n";

Source copy_source(const std::string& body, const std::string& shared = "512") {
  return {kMine + body, {}, shared, 2, 2};
}

/// An mbarrier at the start of `tile`, made by thread 0 for `count` arrivals. %r2: its address.
std::string barrier_for(const std::string& count) {
  return "mov.u32 %r2, tile; setp.ne.u32 %p0, %thread, 0; @%p0 bra READY; mbarrier.init.shared.b64 [%r2], " +
         count + ";\nREADY: bar.sync 0;\n";
}
/// Puts the predicates %p1 to %p4 as bits into %r9, then into the result.
const std::string kStoreBits =
    "selp.b32 %r9, 1, 0, %p1; selp.b32 %r8, 2, 0, %p2; or.b32 %r9, %r9, %r8; selp.b32 %r8, 4, 0, %p3; or.b32 "
    "%r9, %r9, %r8; selp.b32 %r8, 8, 0, %p4; or.b32 %r9, %r9, %r8;\n"
    "cvt.u64.u32 %rd20, %r9; st.global.u64 [%mine], %rd20;\n";
const std::string kNoBits =
    "setp.ne.u32 %p1, 0, 0; setp.ne.u32 %p2, 0, 0; setp.ne.u32 %p3, 0, 0; setp.ne.u32 %p4, 0, 0;\n";

Result run_barrier(const std::string& body, U32 threads = 1) {
  return run({kNoBits + body + kStoreBits, {}, "64"}, {}, threads);
}

}  // namespace

TEST_CASE("async: cp.async copies 4, 8 or 16 bytes, and zeros beyond the source size") {
  for (const U32 bytes : {4u, 8u, 16u})
    for (U32 source_bytes = 0; source_bytes <= bytes; source_bytes += bytes / 4)
      for (const int form : {0, 1, 2, 3}) {
        const bool whole = form == 0;
        if (whole && source_bytes != bytes) continue;
        std::string copy = "cp.async." + std::string(form == 2 && bytes == 16 ? "cg" : "ca") + ".shared" +
                           (form == 3 ? "::cta" : "") + ".global" + (form == 1 ? ".L2::128B" : "") + " [" +
                           (form == 3 ? "%rd1" : "%r1") + "], [%mine_in], " + std::to_string(bytes);
        copy += whole ? ";" : form == 2 ? ", %r5;" : ", " + std::to_string(source_bytes) + ";";
        const Result result = run(copy_source("mov.u32 %r5, " + std::to_string(source_bytes) +
                                              "; mov.u64 %rd2, -1; st.shared.v2.u64 [%r1], {%rd2, %rd2};\n" +
                                              copy + "\ncp.async.wait_all;\n" + kStoreMine),
                                  words(32, 2), 32);
        INFO(copy);
        CHECK(result.clean());
        std::vector<U64> expected = words(32, 2);
        auto* p = reinterpret_cast<std::uint8_t*>(expected.data());
        for (U32 lane = 0; lane < 32; ++lane) {
          std::memset(p + 16 * lane + source_bytes, 0, bytes - source_bytes);
          std::memset(p + 16 * lane + bytes, 0xff, 16 - bytes);
        }
        CHECK(result.out == expected);
      }
}

TEST_CASE("async: the ignore-src predicate makes cp.async write zeros") {
  const Result result =
      run(copy_source("and.b32 %r5, %lane, 1; setp.eq.u32 %p1, %r5, 1; cp.async.cg.shared.global [%r1], "
                      "[%mine_in], 16, %p1; cp.async.wait_all;\n" +
                      kStoreMine),
          words(32, 2), 32);
  CHECK(result.clean());
  for (U32 lane = 0; lane < 32; ++lane) CHECK(result.out[2 * lane] == (lane % 2 != 0 ? 0 : word(lane, 0)));
}

TEST_CASE("async: a copy cannot be seen before it has been waited for") {
  for (const std::string wait : {"", "cp.async.commit_group;",
                                 "cp.async.commit_group; cp.async.wait_group 1;", "cp.async.wait_group 0;"}) {
    const Result early = run(copy_source("mov.u64 %rd2, 5; st.shared.v2.u64 [%r1], {%rd2, "
                                         "%rd2};\ncp.async.ca.shared.global [%r1], [%mine_in], 8;\n" +
                                         wait + "ld.shared.u64 %rd2, [%r1]; st.global.u64 [%mine], %rd2;"),
                             words(32, 2), 32);
    INFO(wait);
    CHECK(early.error == 0);
    CHECK(early.of(FindingKind::uninitialized) >= 1);
    CHECK(early.out[6] == ~U64(0));  // poison: neither old nor new
  }
}

TEST_CASE("async: wait_group N waits for all but the N youngest groups") {
  // Four copies into four places, a group each; the third group is empty.
  const std::string copies =
      "mov.u32 %r3, 0;\n"
      "cp.async.ca.shared.global [%r1], [%mine_in], 8; cp.async.commit_group; cp.async.ca.shared.global "
      "[%r1+8], [%mine_in+8], 8; cp.async.commit_group; cp.async.commit_group;\n"
      "cp.async.ca.shared.global [%r1+512], [%mine_in+8], 8; cp.async.commit_group;\n";
  const auto visible = [&](const std::string& wait, const std::string& address) {
    const Result result = run(
        copy_source(copies + wait + " ld.shared.u64 %rd2, [" + address + "]; st.global.u64 [%mine], %rd2;",
                    "1024"),
        words(32, 2), 32);
    CHECK(result.error == 0);
    CHECK((result.of(FindingKind::uninitialized) == 0) == (result.out[2 * 5] != ~U64(0)));
    return result.out[2 * 5];
  };
  const U64 none = ~U64(0), first = word(5, 0), second = word(5, 1);
  CHECK(visible("cp.async.wait_group 4;", "%r1") == none);
  CHECK(visible("cp.async.wait_group 3;", "%r1") == first);
  CHECK(visible("cp.async.wait_group 3;", "%r1+8") == none);
  CHECK(visible("cp.async.wait_group 2;", "%r1+8") == second);
  CHECK(visible("cp.async.wait_group 1;", "%r1+512") == none);
  CHECK(visible("cp.async.wait_group 0;", "%r1+512") == second);
  CHECK(visible("cp.async.wait_all;", "%r1+512") == second);
}

TEST_CASE("async: wait_all also waits for copies of no group, wait_group does not") {
  const std::string copy = "cp.async.ca.shared.global [%r1], [%mine_in], 16;\n";
  CHECK(run(copy_source(copy + "cp.async.wait_all;" + kStoreMine), words(32, 2), 32).clean());
  CHECK(run(copy_source(copy + "cp.async.wait_group 0;" + kStoreMine), words(32, 2), 32)
            .of(FindingKind::uninitialized) >= 1);
}

TEST_CASE("async: bad copies are reported") {
  const auto error_of = [](const std::string& body) {
    return run(copy_source(body), words(32, 2), 32).error;
  };
  CHECK(error_of("cp.async.ca.shared.global [%r1+4], [%mine_in], 8;") == 716);
  CHECK(error_of("cp.async.ca.shared.global [%r1], [%mine_in+2], 4;") == 716);
  CHECK(error_of("cp.async.cg.shared.global [%r1+512], [%mine_in], 16;") == 700);
  CHECK(error_of("mov.u64 %rd5, 0; cp.async.cg.shared.global [%r1], [%rd5], 16;") == 700);
  CHECK(error_of("mov.u32 %r5, 5; cp.async.ca.shared.global [%r1], [%mine_in], 4, %r5;") == 719);
  CHECK(error_of("mov.u64 %rd5, 0; cp.async.cg.shared.global [%r1], [%rd5], 16, 0;") == 0);  // reads nothing
}

// ---- mbarrier ----

TEST_CASE("mbarrier: a phase ends with the last arrival, and the next one begins") {
  const Result result = run_barrier(
      barrier_for("3") +
      "mbarrier.arrive.shared.b64 %rd1, [%r2]; mbarrier.arrive.shared.b64 %rd2, [%r2]; "
      "mbarrier.test_wait.shared.b64 %p1, [%r2], %rd1;\n"  // two of three
      "mbarrier.arrive.shared.b64 %rd3, [%r2]; mbarrier.test_wait.shared.b64 %p2, [%r2], %rd1;\n"  // all
                                                                                                   // three
      "mbarrier.arrive.shared.b64 %rd4, [%r2]; mbarrier.test_wait.shared.b64 %p3, [%r2], %rd4; "
      "mbarrier.test_wait.shared.b64 %p4, [%r2], %rd3;\n");
  CHECK(result.clean());
  CHECK(result.out[0] == (2 | 8));
}

TEST_CASE("mbarrier: waits by parity see the phase that has ended") {
  const Result result = run_barrier(
      barrier_for("1") +
      "mbarrier.try_wait.parity.shared.b64 %p1, [%r2], 1;\n"  // the phase before the first counts as ended
      "mbarrier.test_wait.parity.shared.b64 %p2, [%r2], 0; mbarrier.arrive.shared::cta.b64 _, [%r2];\n"
      "mbarrier.test_wait.parity.acquire.cta.shared::cta.b64 %p3, [%r2], 0; "
      "mbarrier.try_wait.parity.shared.b64 %p4, [%r2], 1, 1000;\n");
  CHECK(result.clean());
  CHECK(result.out[0] == (1 | 4));
}

TEST_CASE("mbarrier: arrivals may count more than one, and pending_count tells how many were missing") {
  const Source source{
      barrier_for("5") +
          "mbarrier.arrive.shared.b64 %rd1, [%r2]; mbarrier.arrive.noComplete.shared.b64 %rd2, [%r2], 2; "
          "mbarrier.arrive.release.cta.shared::cta.b64 %rd3, [%r2], 2; mbarrier.arrive.shared.b64 %rd4, "
          "[%r2];\n"
          "mbarrier.pending_count.b64 %r3, %rd1; mbarrier.pending_count.b64 %r4, %rd2; "
          "mbarrier.pending_count.b64 %r5, %rd3; mbarrier.pending_count.b64 %r6, %rd4;\n"
          "mov.b64 %rd5, {%r3, %r4}; mov.b64 %rd6, {%r5, %r6}; st.global.v2.u64 [%mine], {%rd5, %rd6};",
      {},
      "64",
      1,
      2};
  const Result result = run(source, {}, 1);
  CHECK(result.clean());
  CHECK(result.out == std::vector<U64>{U64(4) << 32 | 5, U64(5) << 32 | 2});
}

TEST_CASE("mbarrier: arrive_drop arrives and lowers the count of later phases") {
  const Result result = run_barrier(
      barrier_for("2") +
      "mbarrier.arrive_drop.shared.b64 %rd1, [%r2]; mbarrier.test_wait.parity.shared.b64 %p1, [%r2], 0; "
      "mbarrier.arrive.shared.b64 _, [%r2]; mbarrier.test_wait.parity.shared.b64 %p2, [%r2], 0;\n"
      "mbarrier.test_wait.parity.shared.b64 %p3, [%r2], 1; mbarrier.arrive.shared.b64 _, [%r2]; "
      "mbarrier.test_wait.parity.shared.b64 %p4, [%r2], 1;\n");
  CHECK(result.clean());
  CHECK(result.out[0] == (2 | 8));
  const Result several = run_barrier(
      barrier_for("4") +
      "mbarrier.arrive_drop.noComplete.shared.b64 %rd1, [%r2], 3; mbarrier.arrive.shared.b64 _, [%r2]; "
      "mbarrier.test_wait.parity.shared.b64 %p1, [%r2], 0;\n"
      "mbarrier.arrive.shared.b64 _, [%r2]; mbarrier.test_wait.parity.shared.b64 %p2, [%r2], 1;\n");
  CHECK(several.clean());
  CHECK(several.out[0] == (1 | 2));
}

TEST_CASE("mbarrier: a phase also waits for the bytes that it expects") {
  const Result result =
      run_barrier(barrier_for("1") +
                  "mbarrier.expect_tx.relaxed.cta.shared.b64 [%r2], 16; mbarrier.arrive.expect_tx.shared.b64 "
                  "_, [%r2], 32; mbarrier.test_wait.parity.shared.b64 %p1, [%r2], 0;\n"
                  "mbarrier.complete_tx.shared.b64 [%r2], 40; mbarrier.test_wait.parity.shared.b64 %p2, "
                  "[%r2], 0; mbarrier.complete_tx.relaxed.cta.shared.b64 [%r2], 8; "
                  "mbarrier.test_wait.parity.shared.b64 %p3, [%r2], 0;\n"
                  "mbarrier.test_wait.parity.shared.b64 %p4, [%r2], 1;\n");
  CHECK(result.clean());
  CHECK(result.out[0] == 4);
}

TEST_CASE("mbarrier: threads of all warps wait until all have come") {
  // Each thread writes before it arrives and reads a number of the opposite warp behind the wait, for three
  // phases.
  const Source source{
      barrier_for("128") +
          "mov.u32 %r3, tile; add.u32 %r3, %r3, 64; mad.lo.u32 %r4, %thread, 4, %r3; sub.u32 %r5, 127, "
          "%thread; mad.lo.u32 %r5, %r5, 4, %r3; mov.u32 %r6, 0; mov.u32 %r7, 0;\n"
          "PHASE: mad.lo.u32 %r8, %r6, 1000, %thread; st.shared.u32 [%r4], %r8; mbarrier.arrive.shared.b64 "
          "%rd1, [%r2];\nWAIT: mbarrier.try_wait.shared.b64 %p1, [%r2], %rd1; @!%p1 bra WAIT;\n"
          "ld.shared.u32 %r8, [%r5]; add.u32 %r7, %r7, %r8; bar.sync 0; add.u32 %r6, %r6, 1; setp.lt.u32 "
          "%p2, %r6, 3; @%p2 bra PHASE; cvt.u64.u32 %rd2, %r7; st.global.u64 [%mine], %rd2;",
      {},
      "1024"};
  const Result result = run(source, {}, 128);
  CHECK(result.clean());
  for (U64 thread = 0; thread < 128; ++thread) CHECK(result.out[thread] == 3 * (127 - thread) + 3000);
}

TEST_CASE("mbarrier: cp.async.mbarrier.arrive arrives when the thread's copies have") {
  for (const bool no_increment : {false, true}) {
    const std::string arrive =
        std::string("cp.async.mbarrier.arrive") + (no_increment ? ".noinc" : "") + ".shared.b64 [%r2];\n";
    // Without .noinc the thread has to arrive by itself.
    const Source source{
        barrier_for("32") +
            "mov.u32 %r1, tile; mad.lo.u32 %r1, %thread, 16, %r1; cp.async.ca.shared.global [%r1+64], "
            "[%mine_in], 16;\n" +
            arrive + (no_increment ? "" : "mbarrier.arrive.shared.b64 _, [%r2];\n") +
            "WAIT: mbarrier.test_wait.parity.shared.b64 %p1, [%r2], 0; @!%p1 bra WAIT;\nld.shared.v2.u64 "
            "{%rd2, %rd3}, [%r1+64]; st.global.v2.u64 [%mine], {%rd2, %rd3};",
        {},
        "1024",
        2,
        2};
    const Result result = run(source, words(32, 2), 32);
    CHECK(result.clean());
    CHECK(result.out == words(32, 2));
  }
}

TEST_CASE("mbarrier: bulk copies complete their bytes, and cannot be seen before") {
  const auto body = [](const std::string& wait) {
    return Source{barrier_for("1") +
                      "setp.ne.u32 %p0, %thread, 0; @%p0 bra WAIT; mbarrier.arrive.expect_tx.shared.b64 _, "
                      "[%r2], 512; mov.u64 %rd4, tile;\n"
                      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%rd4+64], [%in], "
                      "512, [%r2];\nWAIT: " +
                      wait +
                      "\nmad.lo.u32 %r1, %thread, 16, %r2; ld.shared.v2.u64 {%rd2, %rd3}, [%r1+64];\n"
                      "st.global.v2.u64 [%mine], {%rd2, %rd3};",
                  {},
                  "1024",
                  2,
                  2};
  };
  const Result result =
      run(body("mbarrier.try_wait.parity.shared.b64 %p1, [%r2], 0; @!%p1 bra WAIT;"), words(32, 2), 32);
  CHECK(result.clean());
  CHECK(result.out == words(32, 2));
  CHECK(run(body("bar.sync 0;"), words(32, 2), 32).of(FindingKind::uninitialized) >= 1);
}

TEST_CASE("mbarrier: bulk copies from shared to global memory") {
  const Source source{
      kMine +
          "ld.global.v2.u64 {%rd2, %rd3}, [%mine_in]; st.shared.v2.u64 [%r1], {%rd2, %rd3}; "
          "fence.proxy.async.shared::cta; bar.sync 0; setp.ne.u32 %p0, %thread, 0; @%p0 bra END; mov.u32 "
          "%r2, tile;\n"
          "cp.async.bulk.global.shared::cta.bulk_group [%out], [%r2], 512; cp.async.bulk.commit_group; "
          "cp.async.bulk.wait_group.read 0; cp.async.bulk.wait_group 0;\nEND:",
      {},
      "512",
      2,
      2};
  const Result result = run(source, words(32, 2), 32);
  CHECK(result.clean());
  CHECK(result.out == words(32, 2));
}

TEST_CASE("mbarrier: what breaks its rules is reported") {
  CHECK(run_barrier(barrier_for("0")).of(FindingKind::invalid_operation) == 1);
  CHECK(run_barrier(barrier_for("2") + "mbarrier.arrive.shared.b64 _, [%r2], 3;").of(FindingKind::barrier) ==
        1);
  CHECK(run_barrier(barrier_for("2") + "mbarrier.arrive.shared.b64 _, [%r2+4];").error == 716);
  CHECK(
      run_barrier("mov.u32 %r2, tile; mbarrier.arrive.shared.b64 _, [%r2];").of(FindingKind::uninitialized) >=
      1);
  CHECK(
      run_barrier(barrier_for("1") + "mbarrier.inval.shared.b64 [%r2]; mbarrier.arrive.shared.b64 _, [%r2];")
          .of(FindingKind::uninitialized) >= 1);
}
