#pragma once

#include <cstdint>

#include "exec/machine.h"

namespace emulator {

/// One memory request of a warp, as the race check and the counters see it.
struct Access {
  enum class Kind : std::uint8_t { read, write, atomic } kind = Kind::read;
  enum class Where : std::uint8_t { global, shared, local, constant } where = Where::global;
  /// How strong: weak; volatile and relaxed accesses; with acquire or release semantics (atomics without a
  /// qualifier are relaxed).
  enum class Order : std::uint8_t { weak, relaxed, acquire, release, acquire_release } order = Order::weak;
  bool system_or_gpu_scope = true;  // false: .cta
  bool asynchronous = false;        // cp.async and friends, recorded when they arrive
  bool speculative = false;  // a read that the compiler may have moved to where its value is not wanted:
                             // unwritten bytes are no mistake
  std::uint32_t bytes = 0;   // per lane: 1, 2, 4, 8, 16
  Mask active = 0;
  const std::uint64_t* address =
      nullptr;  // [32]: offset in shared memory, or global (device) address, or offset in local memory
  const std::uint8_t* const* value =
      nullptr;  // [32]: the bytes that a write is about to store; null for reads and atomics
  const std::uint8_t* const* memory =
      nullptr;  // [32]: host addresses of the memory (old contents), for writes
};

}  // namespace emulator
