#pragma once

#include <cstddef>

#include "train/config.h"

namespace dino {

/// The memory that a run needs, in bytes.
struct MemoryPlan {
  size_t parameters = 0;  ///< of student and teacher, with gradients and copies
  size_t state = 0;       ///< of the optimizer and the center
  size_t crops = 0;       ///< of this step on a GPU; on the host, also of those that the loader makes ahead
  size_t step = 0;        ///< most that activations and their gradients take at one time
  size_t gaps = 0;        ///< that the arena leaves between these
  size_t scratch = 0;     ///< on the host, most that one op takes for itself
  size_t process = 0;     ///< on the host, what the process has before: the program, and what it keeps of the data
  size_t total() const { return parameters + state + crops + step + gaps + scratch + process; }
};

/// Goes through a step as `config` describes it without computing anything. What libraries take for themselves
/// (on a GPU some hundred MiB) is not in it. Throws what a Trainer would.
MemoryPlan plan_memory(const TrainConfig& config);

/// The memory that this process has now, and the most that it has had at one time, in bytes; 0 if the system does not tell.
size_t memory_of_process();
size_t peak_of_process();

}  // namespace dino
