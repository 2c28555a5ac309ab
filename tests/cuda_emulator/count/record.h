#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "count/memory_counts.h"

namespace emulator {

/// Everything counted of one kernel with one shape, summed over its launches.
struct KernelRecord {
  std::string name, demangled;  // as in the PTX
  std::array<std::uint32_t, 3> grid{}, block{};
  std::uint64_t dynamic_shared = 0, static_shared = 0, local_bytes = 0;  // bytes; local: per thread
  int registers = 0;                                                     // per thread, an estimate
  std::uint64_t launches = 0;
  std::array<std::uint64_t, static_cast<std::size_t>(Class::count_)> warp_instructions{},
      thread_instructions{};
  std::uint64_t divergent_branches = 0, barriers = 0;
  std::uint64_t tensor_flops = 0;
  MemoryCounts memory;
};

/// A copy of all records, in order of first launch.
std::vector<KernelRecord> kernel_records();
/// Forgets all records: for tests.
void forget_kernel_records();

/// Writes counters_json() to options().counters, if that is set; at exit. Says on stderr if it cannot.
void write_counters_file();

}  // namespace emulator
