#pragma once

#include "engine/ops.h"
#include "engine/run.h"

namespace dino {

/// How student and teacher are compared, and what keeps the teacher from collapsing.
struct LossConfig {
  enum class Kind { cross_entropy, mse };
  Kind kind = Kind::cross_entropy;
  bool centering = true;
  int sinkhorn = 0;              ///< Sinkhorn-Knopp iterations instead of centering; 0: none
  double student_temp = 0.1;
  double center_momentum = 0.9;
};

/// The DINO loss with its center, and the ablations of the paper.
class DinoLoss {
 public:
  /// The center [1, prototypes] starts at 0.
  DinoLoss(Context& context, const LossConfig& config, int64_t prototypes, Dtype dtype);

  const LossConfig& config() const { return config_; }
  const Tensor& center() const { return center_; }

  /// Teacher logits [2 · batch, prototypes] → targets of the same shape. Uses the center of the step before.
  Tensor targets(Context& context, const Tensor& teacher_logits) const;

  /// Student logits [crops · batch, prototypes] and targets → loss [1].
  Tensor operator()(Context& context, const Tensor& student_logits, const Tensor& targets, int64_t crops) const;

  /// Moves the center towards the mean of the teacher's raw logits, unless `healthy` [1] is 0. `sums` [1, prototypes] are
  /// sums over `rows` rows of the whole batch.
  void update_center(Context& context, const Tensor& sums, int64_t rows, const Tensor& healthy);

  bool uses_center() const { return config_.centering && config_.sinkhorn == 0; }

 private:
  LossConfig config_;
  Tensor center_;
};

}  // namespace dino
