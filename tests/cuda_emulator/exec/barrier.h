#pragma once

#include <cstdint>

/// How the block barriers' instructions are packed into Ins::aux.
namespace emulator {

enum class BarrierReduction : std::uint16_t { none = 0, count = 1, all = 2, any = 3 };
inline constexpr std::uint16_t kReductionMask = 3, kAlignedBarrier = 4, kBarrierHasCount = 8;

}  // namespace emulator
