#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "exec/access.h"

namespace emulator {

/// What one worker thread counts during one launch; merged at its end. The run loop counts executions per
/// instruction itself (executed, lanes).
struct LaunchCounts {
  explicit LaunchCounts(const Launch& launch);
  ~LaunchCounts();
  struct PerProgram {
    const Program* program = nullptr;
    std::vector<std::uint64_t> executed;  // per instruction: warp executions
    std::vector<std::uint64_t> lanes;     // per instruction: active lanes, summed
  };
  /// The counts of a program; stays valid for the life of this object.
  PerProgram& of(const Program* program);
  std::uint64_t divergent_branches = 0;
  std::uint64_t barriers = 0;  // completed block barriers

  struct Memory;
  std::unique_ptr<Memory> memory;
  std::vector<std::unique_ptr<PerProgram>> programs;
};

/// Counts one warp request: requests, sectors, useful bytes, touched bytes, shared wavefronts, contention of
/// atomics.
void count_access(LaunchCounts& counts, const Access& access);
/// ldmatrix and stmatrix: `matrices` phases of eight 16-byte rows each; offsets[matrices * 8] in shared
/// memory.
void count_matrix_rows(LaunchCounts& counts, const std::uint32_t* offsets, int matrices, bool store);

/// Adds the workers' counts of a finished launch to the record of its kernel and shape (grid, block, dynamic
/// shared memory).
void finish_counts(const Launch& launch, const std::vector<std::unique_ptr<LaunchCounts>>& workers);
/// Everything counted so far as JSON (docs/cuda_without_a_gpu.md describes it).
std::string counters_json();

}  // namespace emulator
