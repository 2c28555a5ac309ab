// Barriers, and the turns that the warps of a block take.
#include <algorithm>
#include <numeric>
#include <random>

#include "check/race.h"
#include "count/counters.h"
#include "exec/barrier.h"
#include "exec/schedule.h"

namespace emulator {
namespace {

Mask lanes_at(const Warp& warp, std::uint32_t id) {
  Mask lanes = 0;
  for (const Group& group : warp.groups)
    if (group.state == Group::State::at_barrier && group.barrier == id) lanes |= group.mask;
  return lanes;
}

bool has_arrived(const Warp& warp, std::uint32_t id) {
  return warp.live != 0 && lanes_at(warp, id) == warp.live;
}

// All lanes of the warp have come, but at different instructions: what an aligned barrier does then is
// undefined.
void check_aligned(Warp& warp, std::uint32_t id) {
  std::uint32_t where = ~0u;
  for (const Group& group : warp.groups) {
    if (group.state != Group::State::at_barrier || group.barrier != id) continue;
    if (where == ~0u) where = group.sync_pc;
    const Ins& ins = group.frame->program->code[group.sync_pc];
    if (where == group.sync_pc || (ins.aux & kAlignedBarrier) == 0) continue;
    use_frame(warp, group.frame);
    warp.pc = group.sync_pc + 1;
    report(warp, FindingKind::barrier, __builtin_ctz(group.mask), 0,
           "lanes of one warp wait at different instructions of barrier " + std::to_string(id));
    return;
  }
}

void write_reduction(const Barrier& barrier, const Group& group) {
  const Ins& ins = group.frame->program->code[group.sync_pc];
  const auto kind = static_cast<BarrierReduction>(ins.aux & kReductionMask);
  if (kind == BarrierReduction::none) return;
  std::uint8_t* d = group.frame->registers.data() + ins.d;
  if (kind == BarrierReduction::count) {
    each_lane(group.mask,
              [&](int lane) { reinterpret_cast<std::uint32_t*>(d)[lane] = barrier.reduction_count; });
    return;
  }
  const bool value = kind == BarrierReduction::all ? barrier.reduction_and != 0 : barrier.reduction_or != 0;
  auto& predicate = *reinterpret_cast<Mask*>(d);
  predicate = (predicate & ~group.mask) | (value ? group.mask : 0);
}

void wake(Block& block, std::uint32_t id, std::uint32_t waiting, std::uint32_t arrived) {
  Barrier& barrier = block.barriers[id];
  if (block.race != nullptr) block.race->barrier(waiting | arrived, waiting);
  for (auto& warp : block.warps) {
    if ((waiting >> warp->index & 1u) == 0) continue;
    if (options().barrier_check) check_aligned(*warp, id);
    if (warp->counts != nullptr && warp->index == 0) ++warp->counts->barriers;
    for (Group& group : warp->groups) {
      if (group.state != Group::State::at_barrier || group.barrier != id) continue;
      write_reduction(barrier, group);
      group.state = Group::State::running;
    }
  }
  const std::uint32_t phase = barrier.phase + 1;
  barrier = Barrier{};
  barrier.phase = phase;
  ++block.released;
}

}  // namespace

void complete_barrier(Block& block, std::uint32_t id) {
  const Barrier& barrier = block.barriers[id];
  const std::uint32_t waiting = barrier.waiting_warps & block.live_warps;
  if (waiting == 0) return;
  const std::uint32_t threads =
      barrier.threads + static_cast<std::uint32_t>(__builtin_popcount(waiting)) * kLanes;
  if (barrier.expected == 0 ? waiting == block.live_warps : threads >= barrier.expected)
    wake(block, id, waiting, barrier.arrived_warps);
}

void wait_at_barrier(Warp& warp, Mask lanes, std::uint32_t id, std::uint32_t expected) {
  Barrier& barrier = warp.block->barriers[id];
  if (!barrier.in_use)
    barrier.expected = expected;
  else if (barrier.expected != expected && options().barrier_check)
    report(warp, FindingKind::barrier, __builtin_ctz(lanes), 0,
           "barrier " + std::to_string(id) + " is used with " + std::to_string(expected) +
               " threads here and " + std::to_string(barrier.expected) + " elsewhere");
  barrier.in_use = true;
  warp.groups.push_back(
      {Group::State::at_barrier, warp.pc, lanes, warp.frame, static_cast<std::uint8_t>(id), warp.pc - 1});
  warp.mask &= ~lanes;
  stop_after(warp);
  if (!has_arrived(warp, id)) return;
  barrier.waiting_warps |= 1u << warp.index;
  complete_barrier(*warp.block, id);
}

void arrive_at_barrier(Warp& warp, Mask, std::uint32_t id, std::uint32_t expected) {
  Barrier& barrier = warp.block->barriers[id];
  barrier.expected = expected;
  barrier.in_use = true;
  barrier.threads += kLanes;
  barrier.arrived_warps |= 1u << warp.index;
  if (warp.race != nullptr) warp.race->barrier(1u << warp.index, 0);  // what it hands over ends here
  complete_barrier(*warp.block, id);
  stop_after(warp);
}

namespace {

std::vector<std::uint32_t> warp_order(const Block& block, std::uint64_t turn) {
  std::vector<std::uint32_t> order(block.warps.size());
  std::iota(order.begin(), order.end(), 0u);
  if (options().order == Options::Order::reverse) std::reverse(order.begin(), order.end());
  if (options().order == Options::Order::random) {
    std::mt19937_64 random(options().seed * 0x9e3779b97f4a7c15u + block.linear * 1000003u + turn);
    std::shuffle(order.begin(), order.end(), random);
  }
  return order;
}

// Nobody can go on: names a thread that waits, and where.
[[noreturn]] void deadlock(Block& block) {
  std::string places;
  Warp* first = nullptr;
  const Group* where = nullptr;
  for (auto& warp : block.warps)
    for (const Group& group : warp->groups) {
      if (group.state == Group::State::running) continue;
      if (first == nullptr) first = warp.get(), where = &group;
      const ptx::Instruction* source = group.frame->program->source[group.sync_pc];
      const std::string place =
          std::to_string(__builtin_popcount(group.mask)) + " lanes of warp " + std::to_string(warp->index) +
          " at " + source->text() +
          (source->source_line != 0 ? " (line " + std::to_string(source->source_line) + ")" : "");
      if (places.size() < 300) places += (places.empty() ? "" : "; ") + place;
    }
  if (first != nullptr) {
    use_frame(*first, where->frame);
    first->pc = where->sync_pc + 1;
    report(*first, FindingKind::barrier, __builtin_ctz(where->mask), 0, "deadlock: " + places, 719);
  }
  throw KernelFault{719};
}

}  // namespace

BlockState run_block(Block& block) {
  const std::uint32_t released = block.released;
  bool progress = false, alive = false, spinning = false;
  for (const std::uint32_t index : warp_order(block, block.turn++)) {
    Warp& warp = *block.warps[index];
    if (warp.live == 0) continue;
    const std::uint64_t groups_before = warp.steps;
    const WarpState state = run_warp(warp);
    progress = progress || state != WarpState::waiting || warp.steps != groups_before;
    spinning = spinning || state == WarpState::unfinished;
    alive = alive || state != WarpState::done;
  }
  if (!alive) return BlockState::done;
  // Lanes that exited may have been the last ones that a barrier waited for.
  for (std::uint32_t id = 0; id < block.barriers.size(); ++id) {
    if (!block.barriers[id].in_use) continue;
    for (const auto& warp : block.warps)
      if (has_arrived(*warp, id)) block.barriers[id].waiting_warps |= 1u << warp->index;
    complete_barrier(block, id);
  }
  if (!progress && block.released == released) deadlock(block);
  return spinning ? BlockState::spinning : BlockState::progress;
}

}  // namespace emulator
