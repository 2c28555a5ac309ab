#pragma once

#include "abi/device.h"
#include "abi/streams.h"

namespace emulator::abi {

struct LaunchRequest {
  dim3 grid{1, 1, 1}, block{1, 1, 1};
  std::size_t shared = 0;
  bool cooperative = false;
};

/// Checks a launch against the limits of device and kernel and packs its arguments. `arguments`: one pointer
/// per parameter.
cudaError_t prepare(const void* function, const LaunchRequest& request, void** arguments, KernelCall& call);

/// Blocks of a kernel that are resident on one multiprocessor.
int resident_blocks(const Function& function, int threads, std::uint64_t dynamic_shared);

}  // namespace emulator::abi
