#pragma once

#include <cstdint>

namespace dino {

/// Everything that changes from step to step and that kernels read. It lives in the stream's memory and not in kernel
/// arguments, so that a recorded step can be replayed.
struct StepScalars {
  uint64_t seed = 0;           ///< of the run
  uint64_t step = 0;           ///< global iteration, from 0
  double learning_rate = 0;
  double weight_decay = 0;     ///< for regularized parameters
  double teacher_momentum = 1; ///< of the EMA teacher
  double teacher_temp = 0.04;
  double grad_scale = 1;       ///< 1 / number of micro-batches
};

}  // namespace dino
