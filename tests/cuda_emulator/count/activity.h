#pragma once

#include <atomic>
#include <cstdint>

namespace emulator {

/// What the process asked of the run-time since it started. Nodes of graphs count when they run.
struct Activity {
  std::atomic<std::uint64_t> launches{0};  // kernels
  std::atomic<std::uint64_t> copies{0}, copied_bytes{0};
  std::atomic<std::uint64_t> memsets{0};
  std::atomic<std::uint64_t> synchronizations{0};  // calls that make the host wait
  std::atomic<std::uint64_t> allocations{0};
  std::atomic<std::uint64_t> graph_launches{0};
};
Activity& activity();

}  // namespace emulator
