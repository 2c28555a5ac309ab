#include "check/race.h"

#include "check/race_state.h"

/// The synchronisation side of the race check: who knows whose past.
namespace emulator {

GlobalRaces::GlobalRaces() : state_(std::make_unique<State>()) {}
GlobalRaces::~GlobalRaces() = default;

RaceCheck::RaceCheck(Block& block, GlobalRaces& global)
    : state_(std::make_unique<State>(block, global.state())) {
  State& state = *state_;
  state.full = state.all.now++;
  state.warps.resize((block.threads + kLanes - 1) / kLanes);
  if (state.all.spare_shared.empty()) {
    state.shared = std::make_unique<SharedShadow>();
  } else {
    state.shared = std::move(state.all.spare_shared.back());
    state.all.spare_shared.pop_back();
  }
}

RaceCheck::~RaceCheck() { state_->all.spare_shared.push_back(std::move(state_->shared)); }

Mask BlockRaces::started_lanes(std::uint32_t warp) const {
  const std::uint32_t rest = block.threads - warp * kLanes;
  return rest >= kLanes ? ~0u : (1u << rest) - 1;
}

std::uint32_t BlockRaces::exited_warps() const {
  std::uint32_t mask = 0;
  for (std::size_t i = 0; i < warps.size(); ++i) {
    if (i < block.warps.size() && block.warps[i] && block.warps[i]->live == 0) mask |= 1u << i;
  }
  return mask;
}

BlockPast BlockRaces::past(const WarpClock& clock, std::uint32_t warp, Mask lanes) const {
  BlockPast past;
  for (std::size_t i = 0; i < past.warps.size(); ++i) past.warps[i] = std::max(clock.known[i], full);
  past.warps[warp] = std::max(clock.full, full);
  if (lanes == started_lanes(warp)) {
    past.warps[warp] = all.now;
    return past;
  }
  each_lane(lanes, [&](int lane) {
    if (clock.seen) {
      for (unsigned other = 0; other < kLanes; ++other)
        past.add(warp * kLanes + other, (*clock.seen)[static_cast<unsigned>(lane)][other]);
    }
    past.add(warp * kLanes + static_cast<unsigned>(lane), all.now);
  });
  return past;
}

Knowledge::Pointer BlockRaces::knowledge(const WarpClock& clock, std::uint32_t warp, Mask lanes) const {
  return Knowledge::with(clock.acquired, past_of(number), past(clock, warp, lanes));
}

/// "Everyone writes, fences; barrier; one thread sets the flag" is as good as a fence of that thread after
/// the barrier.
void BlockRaces::share_fences(std::uint32_t mask) {
  Knowledge::Pointer gpu, cta;
  bool any = false;
  each_lane(mask, [&](int warp) {
    settle_fence(static_cast<std::uint32_t>(warp));
    const auto& fences = warps[static_cast<std::size_t>(warp)].fences;
    if (!fences) return;
    any = true;
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto i = static_cast<std::size_t>(lane);
      gpu = Knowledge::join(gpu, fences->gpu[i]);
      cta = Knowledge::join(cta, fences->block[i]);
    }
  });
  if (!any) return;
  each_lane(mask, [&](int warp) {
    auto& fences = warps[static_cast<std::size_t>(warp)].fences;
    if (!fences) fences = std::make_unique<WarpClock::Fences>();
    fences->gpu.fill(gpu);
    fences->block.fill(cta);
  });
}

void RaceCheck::barrier(std::uint32_t mask) { barrier(mask, mask); }

void RaceCheck::barrier(std::uint32_t arriving, std::uint32_t receiving) {
  State& state = *state_;
  const Time time = state.all.now++;
  if (receiving == 0) {  // bar.arrive as it executes: what it hands over is fixed here
    each_lane(arriving, [&](int warp) {
      WarpClock& clock = state.warps[static_cast<std::size_t>(warp)];
      clock.arrived = clock.known;
      clock.arrived[static_cast<std::size_t>(warp)] = time;
      ++clock.arrivals;
    });
    return;
  }
  // The past of a warp that has exited counts as known: nothing can wait for it any more.
  const std::uint32_t everyone = state.warps.size() == 32 ? ~0u : (1u << state.warps.size()) - 1;
  const std::uint32_t exited = (arriving | receiving) == everyone ? 0 : state.exited_warps();
  std::array<Time, 32> joined{};
  Knowledge::Pointer acquired;
  each_lane(arriving | receiving | exited, [&](int warp) {
    const auto index = static_cast<std::size_t>(warp);
    WarpClock& clock = state.warps[index];
    const bool early = clock.arrivals > 0 && (receiving >> warp & 1u) == 0 && (exited >> warp & 1u) == 0;
    const std::array<Time, 32>& known = early ? clock.arrived : clock.known;
    for (std::size_t i = 0; i < joined.size(); ++i) joined[i] = std::max(joined[i], known[i]);
    joined[index] = std::max(joined[index], early ? clock.arrived[index] : time);
    if (early) --clock.arrivals;
    acquired = Knowledge::join(acquired, clock.acquired);
  });
  each_lane(receiving, [&](int warp) {
    WarpClock& clock = state.warps[static_cast<std::size_t>(warp)];
    clock.known = joined;
    clock.full = time;
    clock.seen.reset();
    clock.acquired = acquired;
  });
  state.share_fences(receiving);
  if ((receiving | exited) == everyone) state.full = time;
}

void RaceCheck::warp_sync(Warp& warp, Mask lanes) {
  State& state = *state_;
  WarpClock& clock = state.warps[warp.index];
  const Time time = state.all.now++;
  if (lanes == state.started_lanes(warp.index)) {
    clock.full = time;
    clock.seen.reset();
  } else {
    if (!clock.seen) clock.seen = std::make_unique<WarpClock::Seen>();
    std::array<Time, kLanes> joined{};
    each_lane(lanes, [&](int lane) {
      const auto& row = (*clock.seen)[static_cast<std::size_t>(lane)];
      for (std::size_t i = 0; i < joined.size(); ++i) joined[i] = std::max(joined[i], row[i]);
    });
    each_lane(lanes, [&](int lane) { joined[static_cast<std::size_t>(lane)] = time; });
    each_lane(lanes, [&](int lane) { (*clock.seen)[static_cast<std::size_t>(lane)] = joined; });
  }
  state.settle_fence(warp.index);
  if (!clock.fences) return;
  Knowledge::Pointer gpu, cta;
  each_lane(lanes, [&](int lane) {
    gpu = Knowledge::join(gpu, clock.fences->gpu[static_cast<std::size_t>(lane)]);
    cta = Knowledge::join(cta, clock.fences->block[static_cast<std::size_t>(lane)]);
  });
  each_lane(lanes, [&](int lane) {
    clock.fences->gpu[static_cast<std::size_t>(lane)] = gpu;
    clock.fences->block[static_cast<std::size_t>(lane)] = cta;
  });
}

void BlockRaces::release_fence(WarpClock& clock, Mask lanes, const Knowledge::Pointer& now, bool gpu_scope) {
  if (!clock.fences) clock.fences = std::make_unique<WarpClock::Fences>();
  // Joined: what came through a barrier or a __syncwarp from fences of others stays released. Lanes mostly
  // hold the same knowledge, which is joined once.
  const auto join_all = [&](std::array<Knowledge::Pointer, kLanes>& held) {
    Knowledge::Pointer before, joined;
    each_lane(lanes, [&](int lane) {
      Knowledge::Pointer& mine = held[static_cast<std::size_t>(lane)];
      if (!joined || mine != before) {
        before = mine;
        joined = Knowledge::join(mine, now);
      }
      mine = joined;
    });
  };
  join_all(clock.fences->block);
  if (gpu_scope) join_all(clock.fences->gpu);
}

void BlockRaces::settle_fence(std::uint32_t warp) {
  WarpClock& clock = warps[warp];
  if (!clock.pending) return;
  const WarpClock::PendingFence fence = std::move(*clock.pending);
  clock.pending.reset();
  release_fence(clock, started_lanes(warp), Knowledge::with(fence.acquired, past_of(number), fence.past),
                fence.gpu_scope);
}

void RaceCheck::fence(Warp& warp, Mask lanes, bool gpu_scope) {
  State& state = *state_;
  WarpClock& clock = state.warps[warp.index];
  // A later fence of the whole warp knows all that an earlier one knew.
  const bool whole = lanes == state.started_lanes(warp.index);
  if (!whole || (clock.pending && clock.pending->gpu_scope && !gpu_scope)) state.settle_fence(warp.index);
  if (whole)
    clock.pending = {state.past(clock, warp.index, lanes), clock.acquired, gpu_scope};
  else
    state.release_fence(clock, lanes, state.knowledge(clock, warp.index, lanes), gpu_scope);
  ++state.all.now;
}

void RaceCheck::mbarrier_arrive(Warp& warp, std::uint32_t offset) {
  State& state = *state_;
  const WarpClock& clock = state.warps[warp.index];
  Handed& handed = state.mbarriers[offset];
  for (std::size_t i = 0; i < handed.known.size(); ++i)
    handed.known[i] = std::max(handed.known[i], clock.known[i]);
  handed.known[warp.index] = state.all.now++;
  handed.acquired = Knowledge::join(handed.acquired, clock.acquired);
}

void RaceCheck::mbarrier_wait(Warp& warp, std::uint32_t offset) {
  State& state = *state_;
  const auto found = state.mbarriers.find(offset);
  if (found == state.mbarriers.end()) return;
  WarpClock& clock = state.warps[warp.index];
  for (std::size_t i = 0; i < clock.known.size(); ++i)
    clock.known[i] = std::max(clock.known[i], found->second.known[i]);
  clock.full = std::max(clock.full, clock.known[warp.index]);
  clock.acquired = Knowledge::join(clock.acquired, found->second.acquired);
}

void BlockRaces::acquire(WarpClock& clock, std::uint64_t address, bool is_shared) {
  const auto learn = [&](const auto& from, std::uint64_t key) {
    if (from.empty()) return;
    const auto found = from.find(key);
    if (found == from.end() || found->second == clock.learned)
      return;  // whoever spins learns the same thing again and again
    clock.learned = found->second;
    clock.acquired = Knowledge::join(clock.acquired, found->second);
  };
  if (!is_shared) learn(all.released, address);
  learn(released, is_shared ? address | 1ull << 63 : address);
}

void BlockRaces::release(Warp& warp, WarpClock& clock, int lane, const Access& access,
                         std::uint64_t address) {
  const bool is_shared = access.where == Access::Where::shared;
  Knowledge::Pointer gpu, cta;
  settle_fence(warp.index);
  if (clock.fences) {
    gpu = clock.fences->gpu[static_cast<std::size_t>(lane)];
    cta = clock.fences->block[static_cast<std::size_t>(lane)];
  }
  if (access.order == Access::Order::release || access.order == Access::Order::acquire_release) {
    cta = Knowledge::join(cta, knowledge(clock, warp.index, 1u << lane));
    if (access.system_or_gpu_scope) gpu = Knowledge::join(gpu, cta);
  }
  // Who observes this access knows it, though it comes after the fence: the last block may reset the counter
  // that it found complete.
  BlockPast itself;
  itself.add(warp.index * kLanes + static_cast<unsigned>(lane), all.now);
  if (gpu) gpu = Knowledge::with(gpu, strong_past_of(number), itself);
  if (cta) cta = Knowledge::with(cta, strong_past_of(number), itself);
  const auto hand_over = [&](auto& to, std::uint64_t key, const Knowledge::Pointer& what) {
    if (!what) return;
    Knowledge::Pointer& at = to[key];
    at = Knowledge::join(at, what);
  };
  if (!is_shared && access.system_or_gpu_scope) hand_over(all.released, address, gpu);
  hand_over(released, is_shared ? address | 1ull << 63 : address, cta);
}

}  // namespace emulator
