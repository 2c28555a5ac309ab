// bar, barrier, membar, fence: the block's barriers and the order of memory.
#include "check/race.h"
#include "exec/barrier.h"
#include "exec/lanes.h"
#include "exec/memory.h"
#include "exec/schedule.h"

namespace emulator {
namespace {

using ptx::Type;

// Which barrier, and how many threads: the same for all lanes that come together.
struct Participants {
  std::uint32_t id, expected;
};

Participants participants(Warp& warp, const Ins& ins, Mask active) {
  const int lane = __builtin_ctz(active);
  const std::uint32_t id = warp.lanes<std::uint32_t>(ins.a)[lane];
  const std::uint32_t expected =
      (ins.aux & kBarrierHasCount) != 0 ? warp.lanes<std::uint32_t>(ins.b)[lane] : 0;
  if (id > 15)
    report(warp, FindingKind::invalid_operation, lane, 0,
           "barrier " + std::to_string(id) + " does not exist; there are 0 to 15", 719);
  if (expected % kLanes != 0 && options().barrier_check)
    report(warp, FindingKind::barrier, lane, 0,
           "the barrier's number of threads, " + std::to_string(expected) + ", is no multiple of 32");
  return {id, (expected + kLanes - 1) / kLanes * kLanes};
}

void bar_sync(Warp& warp, const Ins& ins, Mask active) {
  const Participants p = participants(warp, ins, active);
  wait_at_barrier(warp, active, p.id, p.expected);
}

void bar_arrive(Warp& warp, const Ins& ins, Mask active) {
  const Participants p = participants(warp, ins, active);
  arrive_at_barrier(warp, active, p.id, p.expected);
}

void bar_red(Warp& warp, const Ins& ins, Mask active) {
  const Participants p = participants(warp, ins, active);
  Barrier& barrier = warp.block->barriers[p.id];
  const Mask value = (warp.predicate(ins.c) ^ ins.extra) & active;
  barrier.reduction_count += static_cast<std::uint32_t>(__builtin_popcount(value));
  barrier.reduction_or |= value != 0 ? 1u : 0u;
  if (value != active) barrier.reduction_and = 0;
  wait_at_barrier(warp, active, p.id, p.expected);
}

void warp_barrier(Warp& warp, const Ins& ins, Mask active);

// Calls f with each group that waits at a bar.warp.sync, wherever, all of whose lanes named this mask.
template <class F>
void each_waiting(Warp& warp, Mask members, F&& f) {
  for (Group& group : warp.groups) {
    if (group.state != Group::State::at_sync) continue;
    const Program& program = *group.frame->program;
    const Ins& ins = program.code[group.sync_pc];
    if (ins.run != warp_barrier) continue;
    const std::uint8_t* bank =
        (ins.a & kConstantBank) != 0 ? program.constants.data() : group.frame->registers.data();
    const auto* named = reinterpret_cast<const std::uint32_t*>(bank + (ins.a & ~kConstantBank));
    bool same = true;
    each_lane(group.mask, [&](int lane) { same = same && named[lane] == members; });
    if (same) f(group);
  }
}

// Lanes of one mask may come to different instructions. True if that completes the mask: those that waited
// elsewhere go on.
bool meets_elsewhere(Warp& warp, Mask active, const std::uint32_t* named) {
  const Mask members = named[__builtin_ctz(active)];
  Mask come = active;
  each_waiting(warp, members, [&](const Group& group) { come |= group.mask; });
  bool same = come != active;
  each_lane(active, [&](int lane) { same = same && named[lane] == members; });
  if (!same || (members & warp.live & ~come) != 0) return false;
  each_waiting(warp, members, [](Group& group) {
    group.state = Group::State::running;
    ++group.pc;
  });
  if (warp.race != nullptr) warp.race->warp_sync(warp, come);
  stop_after(warp);
  return true;
}

// The only warp-level instruction that orders memory; shuffles and votes do not.
void warp_barrier(Warp& warp, const Ins& ins, Mask active) {
  const std::uint32_t* members = warp.lanes<std::uint32_t>(ins.a);
  if (!warp.groups.empty() && meets_elsewhere(warp, active, members)) return;
  const Mask ready = ready_lanes(warp, ins, active, members);
  if (warp.race == nullptr) return;
  each_lane(ready, [&](int lane) {
    const Mask met = members[lane] & ready;
    if (met != 0 && lane == __builtin_ctz(met)) warp.race->warp_sync(warp, met);
  });
}

void decode_warp_sync(Decoder& decoder, Ins& ins) {
  decoder.expect("sync");
  decoder.operand_count(1);
  ins.a = decoder.read(0, Type::b32);
  ins.run = warp_barrier;
}

void decode_count(Decoder& decoder, Ins& ins, std::size_t operand) {
  if (decoder.operands() <= operand) return;
  ins.b = decoder.read(operand, Type::u32);
  ins.aux |= kBarrierHasCount;
}

void decode_reduction(Decoder& decoder, Ins& ins) {
  const int operation = decoder.expect_one_of({"popc", "and", "or"});
  if ((ins.aux & kAlignedBarrier) == 0 && decoder.take("aligned")) ins.aux |= kAlignedBarrier;
  decoder.expect(operation == 0 ? "u32" : "pred");
  decoder.operand_count(3, 4);
  ins.d = operation == 0 ? decoder.write(0, Type::u32) : decoder.write_predicate(decoder.operand(0));
  if (ins.d == kNoSlot) decoder.fail("a destination is missing");
  ins.a = decoder.read(1, Type::u32);
  if (decoder.operands() == 4) decode_count(decoder, ins, 2);
  ins.c = decoder.read_predicate(decoder.operand(decoder.operands() - 1), &ins.extra);
  const BarrierReduction kinds[] = {BarrierReduction::count, BarrierReduction::all, BarrierReduction::any};
  ins.aux = static_cast<std::uint16_t>(ins.aux | static_cast<std::uint16_t>(kinds[operation]));
  ins.run = bar_red;
}

void decode_block_barrier(Decoder& decoder, Ins& ins, bool always_aligned) {
  decoder.instruction_class = Class::barrier;
  decoder.take("cta");
  const int what = decoder.expect_one_of({"sync", "arrive", "red"});
  if (always_aligned) ins.aux |= kAlignedBarrier;
  if (what == 2) return decode_reduction(decoder, ins);
  if (!always_aligned && decoder.take("aligned")) ins.aux |= kAlignedBarrier;
  decoder.operand_count(what == 0 ? 1 : 2, 2);
  ins.a = decoder.read(0, Type::u32);
  decode_count(decoder, ins, 1);
  ins.run = what == 0 ? bar_sync : bar_arrive;
}

void decode_bar(Decoder& decoder, Ins& ins) {
  decoder.instruction_class = Class::barrier;
  if (decoder.take("warp")) return decode_warp_sync(decoder, ins);
  decode_block_barrier(decoder, ins, true);
}

// A cluster of one block: its barrier is the block's, kept apart from the sixteen by using the last.
void cluster_arrive(Warp&, const Ins&, Mask) {}

void cluster_wait(Warp& warp, const Ins&, Mask active) { wait_at_barrier(warp, active, 15, 0); }

void decode_barrier(Decoder& decoder, Ins& ins) {
  if (!decoder.take("cluster")) return decode_block_barrier(decoder, ins, false);
  decoder.instruction_class = Class::barrier;
  const bool arrive = decoder.expect_one_of({"arrive", "wait"}) == 0;
  decoder.take_one_of({"release", "relaxed", "acquire"});
  decoder.take("aligned");
  decoder.operand_count(0);
  ins.run = arrive ? cluster_arrive : cluster_wait;
}

// Blocks run on real threads of the host, so a fence is one too.
void fence(Warp& warp, const Ins& ins, Mask active) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (warp.race != nullptr) warp.race->fence(warp, active, ins.aux != 0);
}

void decode_membar(Decoder& decoder, Ins& ins) {
  decoder.instruction_class = Class::fence;
  ins.aux = decoder.expect_one_of({"cta", "gl", "sys"}) == 0 ? 0 : 1;
  decoder.operand_count(0);
  ins.run = fence;
}

void decode_fence(Decoder& decoder, Ins& ins) {
  decoder.instruction_class = Class::fence;
  decoder.operand_count(0);
  ins.run = fence;
  if (decoder.take("proxy")) {
    decoder.expect_one_of({"alias", "async", "async.global", "tensormap::generic"});
    decoder.take_one_of({"global", "shared::cta", "shared::cluster", "shared"});
    return;
  }
  if (decoder.take("mbarrier_init")) {
    decoder.expect("release");
    decoder.expect("cluster");
    return;
  }
  decoder.expect_one_of({"sc", "acq_rel", "acquire", "release"});
  ins.aux = decoder.expect_one_of({"cta", "cluster", "gpu", "sys"}) >= 2 ? 1 : 0;
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {
    {"bar", decode_bar}, {"barrier", decode_barrier}, {"membar", decode_membar}, {"fence", decode_fence}};

}  // namespace

Opcodes barrier_opcodes() { return kOpcodes; }

}  // namespace emulator
