#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "exec/access.h"

namespace emulator {

class GlobalRaces;  // of one launch

/// Finds unordered accesses of different threads to one address of which at least one writes. A write of the
/// value that is already there is not an error (it is counted as information). Order is what synchronisation
/// gives: barriers (full and named), warp-level synchronisation inside of a warp, and, between blocks, a
/// fence plus an atomic or volatile access on one side that is observed by the other. One per block; only
/// used with one worker thread.
class RaceCheck {
 public:
  RaceCheck(Block& block, GlobalRaces& global);
  ~RaceCheck();
  /// Called before the access happens.
  void access(Warp& warp, const Access& access);
  /// The warps of the bit mask have met at a barrier: everything before it in any of them is ordered before
  /// everything after it in all of them.
  void barrier(std::uint32_t warps);
  /// bar.arrive: the warps' past is handed to those that complete the barrier, but they receive nothing.
  void barrier(std::uint32_t arriving_warps, std::uint32_t receiving_warps);
  /// The lanes have met (bar.warp.sync, shfl.sync, vote.sync, …).
  void warp_sync(Warp& warp, Mask lanes);
  /// membar / fence by these lanes.
  void fence(Warp& warp, Mask lanes, bool gpu_scope);
  /// An mbarrier at a shared offset: arrive hands the warp's past over, a successful wait receives it.
  void mbarrier_arrive(Warp& warp, std::uint32_t offset);
  void mbarrier_wait(Warp& warp, std::uint32_t offset);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The state that blocks of one launch share.
class GlobalRaces {
 public:
  GlobalRaces();
  ~GlobalRaces();
  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace emulator
