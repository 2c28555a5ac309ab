#pragma once

#include <array>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "train/feature_statistics.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/teacher.h"

namespace dino {

/// Sees what a step computes, in the order in which it is computed: what it is, and its values. Micro-batches bring the same names again.
using StepWatch = std::function<void(const std::string& what, const Tensor& values)>;

/// Everything that one training step reads and changes.
struct TrainingState {
  Context& context;
  Network& student;
  Teacher& teacher;
  DinoLoss& loss;
  Optimizer& optimizer;
  const StepWatch* watch = nullptr;  ///< see train/replay.h; a step that is watched waits for the GPU
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
  bool backbone_frozen = false;  ///< of the student: it gets no gradients, and backward ends at the head
  bool last_of_epoch = false;
  bool with_statistics = false;  ///< also compute what tells collapse from learning
};

/// What a step tells. Statistics are NaN if not asked for, those of the targets also if these are no probabilities.
struct StepReport {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  double loss = 0;
  bool healthy = true;                  ///< false: loss or a gradient was not finite and nothing was updated
  double teacher_entropy = kUnknown;    ///< mean entropy of the targets, nats
  double marginal_entropy = kUnknown;   ///< entropy of the mean target, nats
  double prototypes_used = kUnknown;    ///< share of prototypes that are somebody's largest
  double center_norm = kUnknown;        ///< L2 norm of the center after the step; unknown without centering
  FeatureStatistics features;           ///< of the teacher's features of the global crops
};

/// What a step leaves behind where it ran.
struct StepResult {
  Tensor numbers;     ///< [2, 1]: loss, summed over micro-batches, and whether the step was healthy
  Tensor statistics;  ///< [3]: of the targets; see TargetStatistics. These and the rest only if the plan asks for statistics.
  Tensor center;      ///< [1, prototypes]
  Tensor features;    ///< [rows, dim]: the teacher's of the first global crops, kFeatureRows at most

  std::array<Tensor*, 4> all() { return {&numbers, &statistics, &center, &features}; }
  std::array<const Tensor*, 4> all() const { return {&numbers, &statistics, &center, &features}; }
};

/// The cost of their statistics grows with the square of the rows; the effective rank cannot be larger than these.
inline constexpr int64_t kFeatureRows = 256;

/// One iteration of algorithm 1 of Caron et al. (2021); the context must have the step's scalars. With several
/// micro-batches the result is that of the large batch: all use the same center and teacher, and there is one update of
/// student, teacher and center. Nothing here waits for a GPU, and what is started depends on the plan's flags and not on
/// its scalars.
StepResult train_step(TrainingState state, std::span<const Crops> micro_batches, const StepPlan& plan);

/// The report behind what `train_step` returned. Waits if that lies on a GPU.
StepReport read_report(const StepResult& result, int64_t micro_batches);

}  // namespace dino
