#pragma once

#include "exec/machine.h"

/// Lane-wise loops that the compiler turns into vector instructions.
namespace emulator {

/// d[lane] = f(s[lane]…) for the active lanes. d may be one of the sources.
template <class D, class F, class... S>
[[gnu::always_inline]] inline void map_lanes(Mask active, D* d, F f, const S*... s) {
  if (active == ~0u) {
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) d[lane] = f(s[lane]...);
  } else {
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) {
      const D value = f(s[lane]...);
      d[lane] = (active >> lane & 1u) != 0 ? value : d[lane];
    }
  }
}

/// The lanes for which f(s[lane]…) holds, of the active ones.
template <class F, class... S>
[[gnu::always_inline]] inline Mask mask_of(Mask active, F f, const S*... s) {
  Mask result = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    result |= static_cast<Mask>(static_cast<bool>(f(s[lane]...))) << lane;
  return result & active;
}

/// Writes a predicate register for the active lanes.
inline void set_predicate(Warp& warp, Slot slot, Mask active, Mask value) {
  if (slot == kNoSlot) return;
  Mask& p = warp.predicate(slot);
  p = (p & ~active) | (value & active);
}

}  // namespace emulator
