#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "ptx/module.h"

namespace emulator {

/// Where the virtual registers of a function live in a warp's register memory. PTX is in static single
/// assignment form with thousands of registers; sharing storage between those that are never alive together
/// keeps a warp inside of the cache.
struct RegisterLayout {
  std::vector<std::uint32_t>
      offset;                      // per virtual register, bytes; registers that never appear share offset 0
  std::uint32_t bytes = 0;         // of all
  std::vector<int> live_at_entry;  // registers that may be read before they are written
  int peak_words = 0;  // most 32-bit registers alive at once in one thread, predicates not counted
};

/// Bytes that a register takes in a warp: 32 lanes, or one mask for predicates.
std::uint32_t register_storage(ptx::Type type);

/// Liveness analysis (backward data flow over basic blocks), then linear scan over live intervals in the
/// order of the code. Lanes that diverged may be anywhere in the code, but they write their own lanes only:
/// sharing by intervals is safe.
RegisterLayout allocate_registers(const ptx::Function& function);

}  // namespace emulator
