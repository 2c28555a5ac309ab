#include <algorithm>

#include "check/race.h"
#include "count/counters.h"
#include "exec/context.h"
#include "exec/schedule.h"

namespace emulator {
namespace {

std::uint32_t special_value(const Warp& warp, Special special, int lane) {
  const Block& block = *warp.block;
  const LaunchConfig& config = warp.launch->config;
  const std::uint32_t thread = warp.index * kLanes + static_cast<std::uint32_t>(lane);
  const std::uint32_t x = config.block[0], y = config.block[1];
  const Mask bit = Mask{1} << lane;
  switch (special) {
    case Special::tid_x:
      return thread % x;
    case Special::tid_y:
      return thread / x % y;
    case Special::tid_z:
      return thread / (x * y);
    case Special::ntid_x:
      return config.block[0];
    case Special::ntid_y:
      return config.block[1];
    case Special::ntid_z:
      return config.block[2];
    case Special::ctaid_x:
      return block.index[0];
    case Special::ctaid_y:
      return block.index[1];
    case Special::ctaid_z:
      return block.index[2];
    case Special::nctaid_x:
      return config.grid[0];
    case Special::nctaid_y:
      return config.grid[1];
    case Special::nctaid_z:
      return config.grid[2];
    case Special::laneid:
      return static_cast<std::uint32_t>(lane);
    case Special::warpid:
      return warp.index;
    case Special::nwarpid:
      return (block.threads + kLanes - 1) / kLanes;
    case Special::smid:
      return static_cast<std::uint32_t>(block.linear % (options().arch == 80 ? 108 : 132));
    case Special::nsmid:
      return options().arch == 80 ? 108 : 132;
    case Special::gridid:
      return static_cast<std::uint32_t>(warp.launch->number);
    case Special::lanemask_eq:
      return bit;
    case Special::lanemask_le:
      return bit | (bit - 1);
    case Special::lanemask_lt:
      return bit - 1;
    case Special::lanemask_ge:
      return ~(bit - 1);
    case Special::lanemask_gt:
      return ~(bit | (bit - 1));
    case Special::dynamic_smem_size:
      return static_cast<std::uint32_t>(config.dynamic_shared);
    case Special::total_smem_size:
    case Special::aggr_smem_size:
      return static_cast<std::uint32_t>(warp.launch->shared_bytes);
    // Cooperative groups find the grid barrier's workspace through these two: high and low half of its
    // address.
    case Special::envreg1:
      return static_cast<std::uint32_t>(warp.launch->grid_workspace >> 32);
    case Special::envreg2:
      return static_cast<std::uint32_t>(warp.launch->grid_workspace);
    case Special::reserved_smem_cap:
      return kReservedShared;
    case Special::one:
      return 1;
    default:
      return 0;
  }
}

void fill_specials(Warp& warp, Frame& frame) {
  for (const auto& [slot, key] : frame.program->specials) {
    const auto special = static_cast<Special>(key / 16);
    std::uint8_t* r = frame.registers.data() + slot;
    const bool differs = special <= Special::tid_z || special == Special::laneid ||
                         (special >= Special::lanemask_eq && special <= Special::lanemask_gt);
    std::uint64_t value = special_value(warp, special, 0);
    for (int lane = 0; lane < kLanes; ++lane) {
      if (differs) value = special_value(warp, special, lane);
      if (key % 16 == 8)
        std::memcpy(r + lane * 8, &value, 8);
      else
        std::memcpy(r + lane * 4, &value, 4);
    }
  }
}

}  // namespace

void make_frame(Warp& warp, Frame& frame, const Program* program) {
  frame.program = program;
  if (frame.registers.size() < program->register_bytes) frame.registers.resize(program->register_bytes);
  for (const auto& [slot, bytes] : program->poison) std::memset(frame.registers.data() + slot, 0xff, bytes);
  frame.params.assign(program->param_bytes * kLanes, 0xff);
  fill_specials(warp, frame);
}

void use_frame(Warp& warp, Frame* frame) {
  warp.frame = frame;
  warp.bank[0] = frame->registers.data();
  warp.bank[1] = const_cast<std::uint8_t*>(frame->program->constants.data());
  warp.code = frame->program->code.data();
}

void start_warp(Warp& warp, Block& block, std::uint32_t index) {
  warp.block = &block;
  warp.launch = block.launch;
  warp.index = index;
  const std::uint32_t first = index * kLanes, left = block.threads - first;
  warp.live = left >= kLanes ? ~0u : (1u << left) - 1;
  warp.mask = 0;
  warp.groups.clear();
  warp.race = block.race.get();
  warp.copies.clear();
  warp.committed_groups.fill(0);
  while (!warp.frames.empty()) {
    warp.spare_frames.push_back(std::move(warp.frames.back()));
    warp.frames.pop_back();
  }
  const Program* program = block.launch->program;
  warp.local_stride = program->stack_bytes;
  if (warp.local_stride != 0) {
    warp.local.resize(warp.local_stride * kLanes);
    warp.local_shadow.assign(warp.local_stride * kLanes / 4, 0);
  }
  Frame* frame = enter(warp, program, warp.live);
  frame->caller = nullptr;
  frame->depth = 0;
  frame->local_base = 0;
  use_frame(warp, frame);
  warp.groups.push_back({Group::State::running, 0, warp.live, frame, 0, 0});
}

Frame* enter(Warp& warp, const Program* program, Mask lanes) {
  if (warp.spare_frames.empty()) warp.spare_frames.push_back(std::make_unique<Frame>());
  warp.frames.push_back(std::move(warp.spare_frames.back()));
  warp.spare_frames.pop_back();
  Frame* frame = warp.frames.back().get();
  make_frame(warp, *frame, program);
  frame->lanes = lanes;
  frame->caller = warp.frame;
  if (warp.frame != nullptr && warp.frames.size() > 1) {
    frame->depth = warp.frame->depth + 1;
    frame->local_base = warp.frame->local_base + warp.frame->program->local_bytes;
  }
  return frame;
}

void leave(Warp& warp, Mask lanes) {
  Frame* frame = warp.frame;
  frame->lanes &= ~lanes;
  if (frame->lanes != 0) return;
  const auto found =
      std::find_if(warp.frames.begin(), warp.frames.end(), [&](const auto& f) { return f.get() == frame; });
  warp.spare_frames.push_back(std::move(*found));
  warp.frames.erase(found);
}

void split_off(Warp& warp, Mask lanes, std::uint32_t pc, Group::State state) {
  if (lanes == 0) return;
  warp.mask &= ~lanes;
  warp.groups.push_back({state, pc, lanes, warp.frame, 0, pc});
  stop_after(warp);
}

void branch(Warp& warp, Mask taken, std::uint32_t target) {
  const Mask rest = warp.mask & ~taken;
  if (--warp.budget == 0) stop_after(warp);
  if (rest == 0) {
    // A jump back may come to lanes that wait there.
    if (target < warp.pc)
      for (const Group& group : warp.groups)
        if (group.frame == warp.frame && group.state != Group::State::at_barrier && group.pc >= target)
          warp.next_stop = std::min(warp.next_stop, group.pc);
    warp.pc = target;
    return;
  }
  if (warp.counts != nullptr) ++warp.counts->divergent_branches;
  split_off(warp, rest, warp.pc);
  warp.pc = target;
}

void exit_lanes(Warp& warp, Mask lanes) {
  warp.mask &= ~lanes;
  warp.live &= ~lanes;
  if (warp.live == 0) warp.block->live_warps &= ~(1u << warp.index);
  stop_after(warp);
}

namespace {

// Deeper frames first, then lower addresses: lanes meet again as early as they can.
bool runs_before(const Group& a, const Group& b) {
  if (a.frame->depth != b.frame->depth) return a.frame->depth > b.frame->depth;
  return a.pc < b.pc;
}

// Groups at the same instruction of the same frame become one. Lanes that wait for others at a `.sync`
// instruction execute it again with them.
void merge_groups(Warp& warp) {
  auto& groups = warp.groups;
  for (std::size_t i = 0; i < groups.size(); ++i)
    for (std::size_t j = i + 1; j < groups.size();) {
      Group &a = groups[i], &b = groups[j];
      const bool meet = a.pc == b.pc && a.frame == b.frame && a.state != Group::State::at_barrier &&
                        b.state != Group::State::at_barrier;
      if (!meet) {
        ++j;
        continue;
      }
      a.mask |= b.mask;
      a.state = Group::State::running;
      groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(j));
      j = i + 1;
    }
}

// The group that runs next: the first one, or, to let lanes pass that others spin on, each in turn. -1: none
// can run.
int next_group(Warp& warp, bool rotate) {
  const auto& groups = warp.groups;
  int best = -1;
  std::vector<int> running;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].state != Group::State::running) continue;
    running.push_back(static_cast<int>(i));
    if (best < 0 || runs_before(groups[i], groups[static_cast<std::size_t>(best)]))
      best = static_cast<int>(i);
  }
  return rotate && !running.empty() ? running[++warp.turns % running.size()] : best;
}

// Puts the current group back and takes the next one. False: no lane can run.
bool choose_group(Warp& warp, bool rotate) {
  if (warp.mask != 0) warp.groups.push_back({Group::State::running, warp.pc, warp.mask, warp.frame, 0, 0});
  warp.mask = 0;
  merge_groups(warp);
  auto& groups = warp.groups;
  const int best = next_group(warp, rotate);
  if (best < 0) return false;
  const Group chosen = groups[static_cast<std::size_t>(best)];
  groups.erase(groups.begin() + best);
  use_frame(warp, chosen.frame);
  warp.pc = chosen.pc;
  warp.mask = chosen.mask;
  warp.next_stop = ~0u;
  for (const Group& group : groups)
    if (group.frame == chosen.frame && group.state != Group::State::at_barrier && group.pc > chosen.pc)
      warp.next_stop = std::min(warp.next_stop, group.pc);
  return true;
}

template <bool Counting>
void run_instructions(Warp& warp) {
  const Ins* const code = warp.code;
  LaunchCounts::PerProgram* counts = nullptr;
  if constexpr (Counting) counts = &warp.counts->of(warp.frame->program);
  do {
    const Ins& ins = code[warp.pc++];
    const Mask active = warp.mask & (warp.predicate(ins.guard) ^ ins.guard_flip);
    if constexpr (Counting) {
      ++counts->executed[warp.pc - 1];
      counts->lanes[warp.pc - 1] += static_cast<std::uint64_t>(__builtin_popcount(active));
    }
    if (active != 0) ins.run(warp, ins, active);
  } while (warp.pc < warp.next_stop);
}

}  // namespace

namespace {

void run_group(Warp& warp) {
  if (warp.counts != nullptr)
    run_instructions<true>(warp);
  else
    run_instructions<false>(warp);
}

// No lane can run, but some wait for lanes of their member mask: have those exited, or do they wait
// elsewhere? Either way the program is wrong, which is reported; then the waiting lanes go on alone, as they
// do on hardware.
bool release_waiting(Warp& warp) {
  bool any = false;
  for (Group& group : warp.groups) {
    if (group.state != Group::State::at_sync) continue;
    group.state = Group::State::running;
    any = true;
  }
  warp.force_sync = any;
  return any;
}

}  // namespace

WarpState run_warp(Warp& warp) {
  warp.budget = kWarpBudget;
  bool rotate = false, last_turn = false;
  for (;;) {
    if (!choose_group(warp, rotate)) {
      if (warp.live == 0) return WarpState::done;
      if (release_waiting(warp)) continue;
      return WarpState::waiting;
    }
    ++warp.steps;
    run_group(warp);
    rotate = false;
    if (warp.budget != 0) continue;
    if (last_turn || warp.groups.empty()) return WarpState::unfinished;
    // The turn is over. Before others have theirs, lanes that these may be spinning on get a short one.
    last_turn = true;
    rotate = true;
    warp.budget = kWarpBudget / 4;
  }
}

namespace {

// The lanes whose member mask is not complete at this instruction.
Mask incomplete_lanes(Warp& warp, Mask active, const std::uint32_t* members) {
  Mask blocked = 0;
  each_lane(active, [&](int lane) {
    const Mask needed = members[lane] & warp.live;
    bool complete = (needed & ~active) == 0;
    if (complete)
      each_lane(needed, [&](int other) { complete = complete && members[other] == members[lane]; });
    if (!complete) blocked |= Mask{1} << lane;
  });
  return blocked;
}

std::string lane_list(Mask lanes) {
  std::string text;
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((lanes >> lane & 1u) == 0) continue;
    int last = lane;
    while (last + 1 < kLanes && (lanes >> (last + 1) & 1u) != 0) ++last;
    text +=
        (text.empty() ? "" : ", ") + std::to_string(lane) + (last > lane ? "-" + std::to_string(last) : "");
    lane = last;
  }
  return text;
}

void report_missing(Warp& warp, Mask blocked, const std::uint32_t* members) {
  const int lane = __builtin_ctz(blocked);
  const Mask missing = members[lane] & ~blocked;
  report(warp, FindingKind::barrier, lane, 0,
         "lanes " + lane_list(missing) + " are in the member mask but never execute this with the others");
}

}  // namespace

Mask ready_lanes(Warp& warp, const Ins&, Mask active, const std::uint32_t* members) {
  Mask same = ~0u, common = members[__builtin_ctz(active)];
  each_lane(active, [&](int lane) { same = members[lane] == common ? same : 0; });
  Mask blocked = 0;
  // Usual: everybody names the same mask, and all of it is here.
  if (same == 0 || (active & ~common) != 0 || (common & warp.live & ~active) != 0) {
    Mask outside = 0;
    each_lane(active, [&](int lane) { outside |= (members[lane] >> lane & 1u) == 0 ? Mask{1} << lane : 0; });
    if (outside != 0 && options().barrier_check)
      report(warp, FindingKind::barrier, __builtin_ctz(outside), 0,
             "lanes " + lane_list(outside) + " are not in their own member mask");
    blocked = incomplete_lanes(warp, active & ~outside, members);
  }
  if (blocked != 0 && warp.force_sync) {
    if (options().barrier_check) report_missing(warp, blocked, members);
    warp.force_sync = false;
    blocked = 0;
  }
  split_off(warp, blocked, warp.pc - 1, Group::State::at_sync);
  const Mask ready = active & ~blocked;
  if (ready == 0) return 0;
  return ready;
}

Mask ready_aligned(Warp& warp, const Ins& ins, Mask active) {
  std::uint32_t members[kLanes];
  std::fill(members, members + kLanes, warp.live);
  return ready_lanes(warp, ins, active, members);
}

}  // namespace emulator
