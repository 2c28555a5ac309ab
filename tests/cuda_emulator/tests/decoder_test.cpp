#include <catch2/catch.hpp>

#include "tests/ptx_program.h"

// What the emulator does not know, or what the ISA does not have, makes a kernel unsupported, with the
// instruction and its line named: nothing is guessed.
namespace {

using namespace emulator;
using namespace emulator::ptx_program;

const std::string kModule =
    ".global .align 16 .b8 data[64];\n.const .align 16 .b8 fixed[64];\n.func (.param .b32 answer0) f(.param "
    ".b32 argument0)\n{ ret; }\n.extern .func (.param .b32 r) nobody(.param .b32 a);\n";

/// Statements in front of the instruction that may be referred to.
const std::string kBefore =
    ".local .align 16 .b8 own[64]; .param .b32 argument; .param .b32 answer; .reg .f32 %f<8>; .reg .f64 "
    "%d<8>;\nTABLE: .branchtargets HERE;\nHERE:\n";

std::string refusal_of(const std::string& instruction) {
  return refusal({kBefore + instruction, kModule, "64"});
}

/// "atom.global.add.u32" of "@%p0 atom.global.add.u32 …".
std::string mnemonic(const std::string& instruction) {
  const std::size_t begin = instruction[0] == '@' ? instruction.find(' ') + 1 : 0;
  return instruction.substr(begin, instruction.find_first_of(" ;", begin) - begin);
}

/// The first instruction of each list is taken, the others must be refused.
struct Family {
  std::string good;
  std::vector<std::string> bad;
};

void check(const std::vector<Family>& families) {
  for (const Family& family : families) {
    INFO(family.good);
    CHECK(refusal_of(family.good) == "");
    for (const std::string& bad : family.bad) {
      const std::string message = refusal_of(bad);
      const std::string text = text_of({kBefore + bad, kModule, "64"});
      const auto line =
          std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(text.find(bad)), '\n') + 1;
      INFO(bad << " => " << message);
      CHECK(message.find(mnemonic(bad)) != std::string::npos);
      CHECK(message.find("line " + std::to_string(line) + ":") != std::string::npos);
    }
  }
}

}  // namespace

TEST_CASE(
    "decoder: arithmetic with unknown modifiers, operands of wrong widths, too many or too few, is refused") {
  check({{"add.u32 %r0, %r1, %r2;",
          {"add.u32 %r0, %r1;", "add.u32 %r0, %r1, %r2, %r3;", "add.u32 %rd0, %r1, %r2;",
           "add.u32 %r0, %r1, %h2;", "add.u32.sat %r0, %r1, %r2;", "add.ftz.u32 %r0, %r1, %r2;",
           "add.b32 %r0, %r1, %r2;", "add.u32 5, %r1, %r2;", "add.u32 %r0, %r1, 0x100000000;",
           "add.u32 %r0, %r1, %p0;", "add.u32 %r0, {%r1, %r2}, %r3;", "add %r0, %r1, %r2;"}},
         {"mad.lo.s64 %rd0, %rd1, %rd2, %rd3;",
          {"mad.s64 %rd0, %rd1, %rd2, %rd3;", "mad.lo.s64 %rd0, %rd1, %rd2;",
           "mad.wide.s64 %rd0, %rd1, %rd2, %rd3;", "mad.lo.s64 %rd0, %rd1, %r2, %rd3;"}},
         {"mul.wide.u16 %r0, %h1, %h2;",
          {"mul.wide.u16 %h0, %h1, %h2;", "mul.wide.u16 %r0, %r1, %h2;", "mul.u16 %h0, %h1, %h2;",
           "mul.lo.hi.u16 %h0, %h1, %h2;"}},
         {"div.u32 %r0, %r1, %r2;",
          {"div.rn.u32 %r0, %r1, %r2;", "div.b32 %r0, %r1, %r2;", "div.u8 %h0, %h1, %h2;"}},
         {"fma.rn.f32 %r0, %r1, %r2, %r3;",
          {"fma.f32 %r0, %r1, %r2, %r3;", "fma.rn.f32 %r0, %r1, %r2;", "fma.rn.f32 %r0, %r1, %r2, %rd3;",
           "fma.rn.sat.ftz.f32 %r0, %r1, %r2, %r3;", "fma.rn.f32.ftz %r0, %r1, %r2, %r3;"}},
         {"add.f64 %rd0, %rd1, %rd2;",
          {"add.ftz.f64 %rd0, %rd1, %rd2;", "add.sat.f64 %rd0, %rd1, %rd2;", "add.rna.f64 %rd0, %rd1, %rd2;",
           "add.f64 %rd0, %rd1, 0f3F800000;", "add.f64 %rd0, %rd1, %r2;"}},
         {"rcp.approx.f32 %r0, %r1;",
          {"rcp.f32 %r0, %r1;", "rcp.approx.f64 %rd0, %rd1;", "rcp.approx.f32 %r0, %r1, %r2;",
           "rcp.approx.rn.f32 %r0, %r1;"}},
         {"ex2.approx.ftz.f32 %r0, %r1;",
          {"ex2.f32 %r0, %r1;", "ex2.approx.f64 %rd0, %rd1;", "ex2.approx.ftz.sat.f32 %r0, %r1;"}},
         {"fma.rn.f16x2 %r0, %r1, %r2, %r3;",
          {"fma.rn.f16x2 %h0, %h1, %h2, %h3;", "fma.rz.f16x2 %r0, %r1, %r2, %r3;",
           "fma.rn.sat.bf16x2 %r0, %r1, %r2, %r3;"}},
         {"cvt.rn.f32.s32 %r0, %r1;",
          {"cvt.f32.s32 %r0, %r1;", "cvt.rn.f32 %r0, %r1;", "cvt.rn.f32.s32 %h0, %r1;",
           "cvt.rni.f32.s32 %r0, %r1;", "cvt.rn.f32.s32 %r0, %r1, %r2;", "cvt.rn.f32.nosuch %r0, %r1;"}},
         {"setp.lt.u32 %p0, %r1, %r2;",
          {"setp.u32 %p0, %r1, %r2;", "setp.lt.u32 %r0, %r1, %r2;", "setp.lt.u32 %p0, %r1;",
           "setp.lt.u32 %p0, %r1, %r2, %p1;", "setp.lt.and.u32 %p0, %r1, %r2;",
           "setp.below.u32 %p0, %r1, %r2;", "setp.lt.u32 %p0, %rd1, %r2;"}},
         {"selp.b32 %r0, %r1, %r2, %p0;",
          {"selp.b32 %r0, %r1, %r2, %r3;", "selp.b32 %r0, %r1, %r2;", "selp.pred %p0, %p1, %p2, %p3;",
           "selp.b32 %r0, %r1, %rd2, %p0;"}}});
}

TEST_CASE("decoder: moves and operations on bits of the wrong width are refused") {
  check(
      {{"mov.b32 %r0, %r1;",
        {"mov.b32 %r0, %rd1;", "mov.b32 %rd0, %r1;", "mov.b32 %r0;", "mov.b32 %r0, %r1, %r2;",
         "mov.b32 %r0, [%rd1];", "mov.b64 %rd0, {%r1, %h2};", "mov.b64 {%r0, %r1, %r2}, %rd0;"}},
       {"shl.b32 %r0, %r1, %r2;",
        {"shl.u32 %r0, %r1, %r2;", "shl.b32 %r0, %r1, %rd2;", "shl.b32.wrap %r0, %r1, %r2;",
         "shl.b32 %r0, %r1;"}},
       {"lop3.b32 %r0, %r1, %r2, %r3, 0x80;",
        {"lop3.b32 %r0, %r1, %r2, %r3;", "lop3.b32 %r0, %r1, %r2, %r3, 256;",
         "lop3.b32 %r0, %r1, %r2, %r3, %r4;", "lop3.b64 %rd0, %rd1, %rd2, %rd3, 1;"}},
       {"prmt.b32 %r0, %r1, %r2, %r3;",
        {"prmt.b32.xyz %r0, %r1, %r2, %r3;", "prmt.f4e.b32 %r0, %r1, %r2, %r3;", "prmt.b32 %r0, %r1, %r2;"}},
       {"bfe.u32 %r0, %r1, %r2, %r3;",
        {"bfe.b32 %r0, %r1, %r2, %r3;", "bfe.u32 %r0, %r1, %r2;", "bfe.u16 %h0, %h1, %r2, %r3;"}},
       {"and.pred %p0, %p1, %p2;",
        {"and.pred %p0, %p1, %r2;", "and.pred %r0, %p1, %p2;", "and.u32 %r0, %r1, %r2;",
         "and.b32 %r0, %r1, !%r2;"}},
       {"cvta.to.global.u64 %rd0, %rd1;",
        {"cvta.u64 %rd0, %rd1;", "cvta.to.global.s64 %rd0, %rd1;", "cvta.from.global.u64 %rd0, %rd1;",
         "cvta.to.global.u64 %r0, %rd1;"}},
       {"isspacep.shared %p0, %rd0;",
        {"isspacep %p0, %rd0;", "isspacep.shared %r0, %rd0;", "isspacep.texture %p0, %rd0;"}}});
}

TEST_CASE(
    "decoder: memory accesses with strengths, caches, spaces or widths that do not go together are refused") {
  check({{"ld.global.u32 %r0, [%rd0];",
          {"ld.global.u32 %h0, [%rd0];", "ld.global.u32 %r0, [%rd0], %r1;", "ld.global.u32 [%rd0], %r0;",
           "ld.global %r0, [%rd0];", "ld.nowhere.u32 %r0, [%rd0];",
           "ld.global.v3.u32 {%r0, %r1, %r2}, [%rd0];", "ld.global.v2.u32 {%r0, %r1, %r2}, [%rd0];",
           "ld.global.v2.u32 %r0, [%rd0];", "ld.global.u32 %r0, [%h0];", "ld.global.u32 %r0, %rd0;",
           "ld.global.f16 %h0, [%rd0];", "ld.global.pred %p0, [%rd0];",
           "ld.global.v4.u64 {%rd0, %rd1, %rd2, %rd3}, [%rd4];", "ld.global.u32.volatile %r0, [%rd0];",
           "ld.shared.u32 %r0, [data];", "ld.global.u32 %r0, [tile];", "ld.global.u32 %r0, [nobody_knows];"}},
         {"ld.relaxed.gpu.global.u32 %r0, [%rd0];",
          {"ld.relaxed.global.u32 %r0, [%rd0];", "ld.acq_rel.gpu.global.u32 %r0, [%rd0];",
           "ld.release.gpu.global.u32 %r0, [%rd0];", "ld.relaxed.gpu.local.u32 %r0, [%rd0];",
           "ld.relaxed.gpu.global.ca.u32 %r0, [%rd0];", "ld.volatile.gpu.global.u32 %r0, [%rd0];",
           "ld.volatile.const.u32 %r0, [%rd0];", "ld.volatile.global.ca.u32 %r0, [%rd0];",
           "ld.acquire.global.u32 %r0, [%rd0];", "ld.relaxed.block.global.u32 %r0, [%rd0];"}},
         {"ld.global.nc.L1::no_allocate.u32 %r0, [%rd0];",
          {"ld.nc.u32 %r0, [%rd0];", "ld.shared.nc.u32 %r0, [%rd0];", "ld.global.wb.u32 %r0, [%rd0];",
           "ld.global.cg.ca.u32 %r0, [%rd0];", "ld.global.L1::evict_never.u32 %r0, [%rd0];",
           "ld.shared.L1::evict_last.u32 %r0, [%rd0];", "ld.volatile.global.nc.u32 %r0, [%rd0];",
           "ld.global.mmio.u32 %r0, [%rd0];"}},
         {"ldu.global.u32 %r0, [%rd0];",
          {"ldu.shared.u32 %r0, [%rd0];", "ldu.volatile.global.u32 %r0, [%rd0];",
           "ldu.global.ca.u32 %r0, [%rd0];"}},
         {"st.global.u32 [%rd0], %r0;",
          {"st.global.u32 %r0, [%rd0];", "st.global.u32 [%rd0];", "st.const.u32 [%rd0], %r0;",
           "st.global.nc.u32 [%rd0], %r0;", "st.global.ca.u32 [%rd0], %r0;",
           "st.acquire.gpu.global.u32 [%rd0], %r0;", "st.global.u64 [%rd0], %r0;",
           "st.global.L2::128B.u32 [%rd0], %r0;", "st.release.global.u32 [%rd0], %r0;",
           "st.param.u32 [p_in], %r0;"}},
         {"ld.param.u32 %r0, [p_in];",
          {"ld.param.u32 %r0, [data];", "ld.param.u32 %r0, [nobody_knows];",
           "ld.volatile.param.u32 %r0, [p_in];"}},
         {"prefetch.global.L2 [%rd0];",
          {"prefetch.global.L3 [%rd0];", "prefetch.global [%rd0];", "prefetch.global.L2 [%rd0], 5;"}}});
}

TEST_CASE("decoder: atomics on types, spaces and orders that they do not have are refused") {
  check({{"atom.global.add.u32 %r0, [%rd0], %r1;",
          {"atom.global.add.b32 %r0, [%rd0], %r1;", "atom.global.add.u32 %r0, [%rd0];",
           "atom.global.add.u32 %r0, [%rd0], %r1, %r2;", "atom.global.add.u32 %rd0, [%rd1], %r1;",
           "atom.local.add.u32 %r0, [%rd0], %r1;", "atom.global.sub.u32 %r0, [%rd0], %r1;",
           "atom.global.add.s64 %rd0, [%rd1], %rd2;", "atom.weak.global.add.u32 %r0, [%rd0], %r1;",
           "atom.global.add.noftz.u32 %r0, [%rd0], %r1;", "atom.global.add.u16 %h0, [%rd0], %h1;",
           "atom.global.u32 %r0, [%rd0], %r1;", "atom.global.add.f16 %h0, [%rd0], %h1;"}},
         {"atom.global.cas.b32 %r0, [%rd0], %r1, %r2;",
          {"atom.global.cas.b32 %r0, [%rd0], %r1;", "atom.global.cas.u32 %r0, [%rd0], %r1, %r2;",
           "atom.global.exch.u32 %r0, [%rd0], %r1;", "atom.global.inc.s32 %r0, [%rd0], %r1;"}},
         {"red.global.add.u32 [%rd0], %r1;",
          {"red.global.add.u32 %r0, [%rd0], %r1;", "red.global.exch.b32 [%rd0], %r1;",
           "red.acquire.gpu.global.add.u32 [%rd0], %r1;", "red.global.cas.b32 [%rd0], %r1, %r2;"}},
         {"atom.global.add.v2.f32 {%r0, %r1}, [%rd0], {%r2, %r3};",
          {"atom.global.add.v2.f32 {%r0, %r1}, [%rd0], {%r2, %r3, %r4};",
           "atom.shared.add.v2.f32 {%r0, %r1}, [%rd0], {%r2, %r3};",
           "atom.global.add.v2.u32 {%r0, %r1}, [%rd0], {%r2, %r3};"}}});
}

TEST_CASE("decoder: warp-level instructions without .sync, masks or destinations are refused") {
  check(
      {{"shfl.sync.up.b32 %r0|%p0, %r1, %r2, %r3, %r4;",
        {"shfl.up.b32 %r0|%p0, %r1, %r2, %r3;", "shfl.sync.up.b32 %r0, %r1, %r2, %r3;",
         "shfl.sync.left.b32 %r0, %r1, %r2, %r3, %r4;", "shfl.sync.up.b64 %rd0, %rd1, %r2, %r3, %r4;",
         "shfl.sync.up.u32 %r0, %r1, %r2, %r3, %r4;", "shfl.sync.up.b32 %rd0, %r1, %r2, %r3, %r4;",
         "shfl.sync.up.b32 %r0|%r5, %r1, %r2, %r3, %r4;"}},
       {"vote.sync.ballot.b32 %r0, %p0, %r1;",
        {"vote.ballot.b32 %r0, %p0;", "vote.sync.ballot.pred %p1, %p0, %r1;",
         "vote.sync.all.b32 %r0, %p0, %r1;", "vote.sync.most.pred %p1, %p0, %r1;",
         "vote.sync.ballot.b32 %r0, %r2, %r1;"}},
       {"match.any.sync.b32 %r0, %r1, %r2;",
        {"match.any.b32 %r0, %r1, %r2;", "match.any.sync.b32 %r0|%p0, %r1, %r2;",
         "match.any.sync.b16 %r0, %h1, %r2;", "match.some.sync.b32 %r0, %r1, %r2;",
         "match.any.sync.b64 %r0, %r1, %r2;"}},
       {"redux.sync.add.u32 %r0, %r1, %r2;",
        {"redux.add.u32 %r0, %r1, %r2;", "redux.sync.add.b32 %r0, %r1, %r2;",
         "redux.sync.mul.u32 %r0, %r1, %r2;", "redux.sync.and.u32 %r0, %r1, %r2;",
         "redux.sync.add.u64 %rd0, %rd1, %r2;"}},
       {"activemask.b32 %r0;", {"activemask.u32 %r0;", "activemask.b32 %r0, %r1;", "activemask.b32 %rd0;"}},
       {"elect.sync %r0|%p0, %r1;", {"elect.sync %r0, %r1;", "elect.sync %r0|%p0;", "elect %r0|%p0, %r1;"}}});
}

TEST_CASE("decoder: barriers, fences and asynchronous copies of forms that do not exist are refused") {
  check({{"bar.sync 0;",
          {"bar.sync;", "bar.sync 0, 32, 1;", "bar.wait 0;", "bar.arrive 0;", "bar.sync %rd0;",
           "bar.sync.gpu 0;", "bar.red.popc.u32 %r0, 0;", "bar.red.and.u32 %r0, 0, %p0;",
           "bar.red.xor.pred %p1, 0, %p0;"}},
         {"barrier.cta.sync.aligned 0, 64;",
          {"barrier.gpu.sync 0;", "barrier.cta.sync.unaligned 0;", "barrier.cta.arrive 0;",
           "bar.sync.aligned 0;"}},
         {"bar.warp.sync %r0;", {"bar.warp.sync;", "bar.warp.arrive %r0;", "bar.warp.sync %rd0;"}},
         {"membar.gl;", {"membar;", "membar.block;", "membar.gl 0;"}},
         {"fence.acq_rel.gpu;",
          {"fence;", "fence.acq_rel;", "fence.gpu;", "fence.relaxed.gpu;", "fence.acq_rel.gpu %r0;",
           "fence.proxy.nosuch;"}},
         {"cp.async.ca.shared.global [%r0], [%rd0], 8;",
          {"cp.async.ca.shared.global [%r0], [%rd0], 12;", "cp.async.cg.shared.global [%r0], [%rd0], 8;",
           "cp.async.ca.global.shared [%rd0], [%r0], 8;", "cp.async.ca.shared.global [%r0], [%rd0];",
           "cp.async.shared.global [%r0], [%rd0], 8;", "cp.async.ca.shared.global [%r0], [%rd0], %r1;",
           "cp.ca.shared.global [%r0], [%rd0], 8;"}},
         {"cp.async.wait_group 1;",
          {"cp.async.wait_group;", "cp.async.wait_group %r0;", "cp.async.wait_group -1;",
           "cp.async.commit_group 1;", "cp.async.wait_some;"}},
         {"mbarrier.init.shared.b64 [%r0], 1;",
          {"mbarrier.init.shared.b32 [%r0], 1;", "mbarrier.init.shared.b64 [%r0];",
           "mbarrier.init.global.b64 [%rd0], 1;", "mbarrier.start.shared.b64 [%r0], 1;"}},
         {"mbarrier.arrive.shared.b64 %rd0, [%r0];",
          {"mbarrier.arrive.shared.b64 %r1, [%r0];", "mbarrier.arrive.noComplete.shared.b64 %rd0, [%r0];",
           "mbarrier.arrive.expect_tx.shared.b64 %rd0, [%r0];", "mbarrier.arrive.shared.b64 [%r0];"}},
         {"mbarrier.test_wait.shared.b64 %p0, [%r0], %rd0;",
          {"mbarrier.test_wait.shared.b64 %p0, [%r0], %r1;",
           "mbarrier.test_wait.parity.shared.b64 %p0, [%r0], %rd0;",
           "mbarrier.test_wait.shared.b64 %r1, [%r0], %rd0;", "mbarrier.test_wait.shared.b64 %p0, [%r0];"}}});
}

TEST_CASE("decoder: control flow to places that do not exist is refused") {
  check({{"bra.uni HERE;", {"bra.often HERE;", "bra HERE, HERE;"}},
         {"brx.idx %r0, TABLE;", {"brx %r0, TABLE;", "brx.idx %rd0, TABLE;", "brx.idx %r0;"}},
         {"call.uni (answer), f, (argument);",
          {"call.uni (answer), nobody, (argument);", "call.uni (answer), f, (data);",
           "call.often (answer), f, (argument);"}},
         {"@%p0 exit;", {"@%p0 exit.uni;", "exit 5;", "ret %r0;", "trap 1;"}},
         {"nanosleep.u32 100;", {"nanosleep 100;", "nanosleep.u64 %rd0;", "nanosleep.u32;"}}});
}

TEST_CASE("decoder: a name that nobody knows makes the module an error, with its line") {
  for (const auto& [instruction, name] : {std::pair("mov.b32 %r0, nobody_knows;", "nobody_knows"),
                                          {"bra NOWHERE;", "NOWHERE"},
                                          {"bra %r0;", "%r0"}}) {
    const std::string message = refusal_of(instruction);
    INFO(instruction << " => " << message);
    CHECK(message.find(name) != std::string::npos);
    CHECK(message.find("line 20:") != std::string::npos);
  }
}

TEST_CASE(
    "decoder: an instruction that nobody knows makes only its own kernel, and those that call it, "
    "unsupported") {
  const std::string bad = "mma.tensor.core.v9 %r0, %r1;";
  const LoadedModule module(
      ".version 9.0\n.target sm_90\n.address_size 64\n.func broken()\n{ .reg .b32 %r<2>;\n" + bad +
      "\nret; }\n.visible .entry good()\n{ ret; }\n.visible .entry caller()\n{\ncall.uni broken;\nret; }\n"
      ".visible .entry wrong()\n{ .reg .b32 %r<2>;\nfrobnicate.u32 %r0, %r1;\nret; }\n");
  CHECK(info(*module.kernel("good")).unsupported == "");
  CHECK(info(*module.kernel("caller")).unsupported.find("line 6: mma.tensor.core.v9") != std::string::npos);
  const std::string message = info(*module.kernel("wrong")).unsupported;
  CHECK(message.find("line 16: frobnicate.u32: unknown instruction") != std::string::npos);
  // Running it all the same ends with an error.
  CHECK(run_kernel(*module.kernel("good"), LaunchConfig{}, {}).error == 0);
}
