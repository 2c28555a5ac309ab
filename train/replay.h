#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "train/trainer.h"

/// What happened in one step, afterwards: for a loss or gradient that is not finite, or any other step that somebody asks about.
namespace dino {

/// How large the values of something are, and whether there are any.
struct ValueRange {
  std::string what;
  int64_t count = 0, not_finite = 0;
  int64_t first_not_finite = -1;  ///< its position among the values; -1: there is none
  double min = std::numeric_limits<double>::infinity(), max = -min;  ///< of the finite ones
  double sum_of_squares = 0;                                           ///< of the finite ones

  void add(const Tensor& values);
  double norm() const;
};

/// Everything that a step computed, in its order: crops, features, logits, targets, loss, the gradient of each parameter.
struct StepRecord {
  int64_t step = 0, start = 0;  ///< the step, and the one from which the run was repeated
  std::string state;            ///< the checkpoint that it was repeated from; empty: from the beginning of the run
  StepPlan plan;
  Trainer::Finished outcome;
  std::vector<ValueRange> ranges;
  std::string first_image;      ///< the image whose crop has the first value that is not finite; empty if none has
};

/// Repeats the run of `config` up to and with `step`, bit for bit, from the newest state in its folder that is not behind it: a checkpoint,
/// or the state before a bad step (see train/bad_step.h). Writes nothing. Throws UsageError for a step that the run does not have.
StepRecord replay(const TrainConfig& config, int64_t step);

/// `train --replay`: prints the record, as a table or as one JSON object.
void replay_step(const TrainConfig& config, int64_t step, bool json);

}  // namespace dino
