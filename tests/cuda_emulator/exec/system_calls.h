#pragma once

#include <cstdint>
#include <string_view>

#include "exec/machine.h"

namespace emulator {

/// Functions that nvcc declares without a body and the driver provides.
enum class SystemCall : std::uint16_t { vprintf, assertfail, malloc, free };

/// Which one a name means; -1: none.
int system_call_named(std::string_view name);

/// Runs it for one lane; arguments as 64-bit values.
std::uint64_t run_system_call(Warp& warp, int lane, SystemCall call, const std::uint64_t* arguments);

}  // namespace emulator
