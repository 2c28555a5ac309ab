#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "check/clocks.h"
#include "check/race.h"
#include "check/race_shadow.h"

/// What the race check keeps; see race.cpp (synchronisation) and race_access.cpp (accesses).
namespace emulator {

/// Races whose writes left memory as it was, since the process started: information, not findings.
std::uint64_t same_value_races();

/// What is known of a block takes two entries: its accesses, and its strong accesses, of which an observer of
/// the last one knows more (see release()).
constexpr std::uint32_t past_of(std::uint32_t block) { return 2 * block; }
constexpr std::uint32_t strong_past_of(std::uint32_t block) { return 2 * block + 1; }

struct LaunchRaces {
  Time now = 1;
  GlobalShadow memory;
  std::unordered_map<std::uint64_t, Knowledge::Pointer>
      released;  // by address: what those who observe it learn
  std::vector<std::unique_ptr<SharedShadow>>
      spare_shared;  // of finished blocks: their records are older than any block to come
  std::unordered_map<const Program*, std::uint32_t> first_site;
  std::vector<std::pair<const Program*, std::uint32_t>> sites{{nullptr, 0}};
  const Program* last_program = nullptr;
  std::uint32_t last_first = 0;
  std::set<std::pair<std::uint32_t, std::uint32_t>> reported;  // pairs of sites

  /// A number for the warp's current instruction.
  std::uint32_t site(const Warp& warp);
  /// "kernel.cu:12" or "PTX line 34"; "" if unknown.
  std::string place(std::uint32_t site, const Launch* launch) const;
};

struct GlobalRaces::State : LaunchRaces {};

/// What a warp and its lanes know.
struct WarpClock {
  std::array<Time, 32> known{};  // of the other warps of the block
  Time full = 0;                 // of its own lanes: everything up to here is ordered for all of them
  using Seen = std::array<std::array<Time, kLanes>, kLanes>;
  std::unique_ptr<Seen>
      seen;  // [lane][other lane], beyond `full`; only after a synchronisation of some of the lanes
  Knowledge::Pointer acquired;  // from releases of other threads
  Knowledge::Pointer learned;   // the last of them that was joined
  struct Fences {               // what a strong write of the lane would release
    std::array<Knowledge::Pointer, kLanes> gpu, block;
  };
  std::unique_ptr<Fences> fences;  // null: no fence so far
  struct PendingFence {
    BlockPast past;
    Knowledge::Pointer acquired;
    bool gpu_scope = false;
  };
  std::optional<PendingFence> pending;  // the last fence of the whole warp, until somebody needs to know it
  std::array<Time, 32> arrived{};       // what bar.arrive hands over
  int arrivals = 0;                     // that have not been received

  bool lanes_ordered(unsigned lane, unsigned other, bool several, Time time) const;
};

/// What arrivals at an mbarrier hand over.
struct Handed {
  std::array<Time, 32> known{};
  Knowledge::Pointer acquired;
};

/// The state of one block.
struct BlockRaces {
  Block& block;
  LaunchRaces& all;
  std::uint32_t number;  // of the block
  Time full = 0;         // everything of this block up to here is ordered before everything later
  std::vector<WarpClock> warps;
  std::unique_ptr<SharedShadow> shared;
  std::unordered_map<std::uint32_t, Handed> mbarriers;
  std::unordered_map<std::uint64_t, Knowledge::Pointer>
      released;  // to this block only: shared addresses (with bit 63), and .cta scope

  BlockRaces(Block& owner, LaunchRaces& launch)
      : block(owner), all(launch), number(static_cast<std::uint32_t>(owner.linear)) {}

  Mask started_lanes(std::uint32_t warp) const;
  std::uint32_t exited_warps() const;
  /// What the lanes know at this moment, their own past included.
  Knowledge::Pointer knowledge(const WarpClock& clock, std::uint32_t warp, Mask lanes) const;
  BlockPast past(const WarpClock& clock, std::uint32_t warp, Mask lanes) const;  // the part about this block
  void share_fences(std::uint32_t warps);
  void release_fence(WarpClock& clock, Mask lanes, const Knowledge::Pointer& now, bool gpu_scope);
  void settle_fence(std::uint32_t warp);
  void acquire(WarpClock& clock, std::uint64_t address, bool is_shared);
  void release(Warp& warp, WarpClock& clock, int lane, const Access& access, std::uint64_t address);
};

struct RaceCheck::State : BlockRaces {
  using BlockRaces::BlockRaces;
};

}  // namespace emulator
