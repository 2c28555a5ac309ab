#pragma once

#include <cstddef>

#include "train/config.h"

namespace dino {

/// The memory that a run needs, in bytes.
struct MemoryPlan {
  size_t parameters = 0;  ///< of student and teacher, with gradients and copies
  size_t state = 0;       ///< of the optimizer, the center, and the crops of a step
  size_t step = 0;        ///< most that activations and their gradients take at one time
  size_t total() const { return parameters + state + step; }
};

/// Goes through a step as `config` describes it without computing anything. What libraries and kernels take for themselves
/// (on a GPU some hundred MiB) is not in it. Throws what a Trainer would.
MemoryPlan plan_memory(const TrainConfig& config);

}  // namespace dino
