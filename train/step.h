#pragma once

#include <span>
#include <vector>

#include "train/loss.h"
#include "train/optimizer.h"
#include "train/teacher.h"

namespace dino {

/// Everything that one training step reads and changes.
struct TrainingState {
  Context& context;
  Network& student;
  Teacher& teacher;
  DinoLoss& loss;
  Optimizer& optimizer;
};

/// The crops of one micro-batch as NHWC tensors, crop-major.
struct Crops {
  Tensor globals;       ///< [2 · images, S, S, channels]
  Tensor locals;        ///< [L · images, s, s, channels]; undefined without local crops
  BatchPart images;     ///< which images of the batch these are
};

/// What is known of one step besides its crops.
struct StepPlan {
  StepScalars scalars;
  bool last_layer_frozen = false;
  bool last_of_epoch = false;
  bool with_statistics = false;  ///< also compute the statistics of the targets
};

/// What a step tells. Statistics are NaN if not asked for, or if the targets are no probabilities.
struct StepReport {
  double loss = 0;
  bool healthy = true;             ///< false: loss or a gradient was not finite and nothing was updated
  double teacher_entropy;          ///< mean entropy of the targets, nats
  double marginal_entropy;         ///< entropy of the mean target, nats
  double prototypes_used;          ///< share of prototypes that are somebody's largest
};

/// One iteration of algorithm 1 of Caron et al. (2021); the context must have the step's scalars. With several
/// micro-batches the result is that of the large batch: all use the same center and teacher, and there is one update of
/// student, teacher and center. Returns the numbers of the report as a tensor [2 or kStepNumbers, 1]: nothing here waits
/// for a GPU, and what is started depends on the plan's flags and not on its scalars.
Tensor train_step(TrainingState state, std::span<const Crops> micro_batches, const StepPlan& plan);

inline constexpr int64_t kStepNumbers = 5;

/// The report behind the values of what `train_step` returned.
StepReport read_report(std::span<const double> numbers, int64_t micro_batches);

}  // namespace dino
