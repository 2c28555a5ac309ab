#include "train/loss.h"

namespace dino {

DinoLoss::DinoLoss(Context& context, const LossConfig& config, int64_t prototypes, Dtype dtype)
    : config_(config), center_(context.tensor({dtype, Shape{1, prototypes}})) {
  check<UsageError>(config.kind == LossConfig::Kind::cross_entropy || config.sinkhorn == 0,
                    "--sinkhorn needs --loss ce: it makes probabilities, which MSE does not compare");
  clear(center_.view());
}

Tensor DinoLoss::targets(Context& context, const Tensor& teacher_logits) const {
  const Tensor center = uses_center() ? center_ : Tensor();
  if (config_.kind == LossConfig::Kind::mse) return run(context, CenteredUnit{}, {teacher_logits, center})[CenteredUnit::p];
  if (config_.sinkhorn > 0) return run(context, Sinkhorn{.iterations = config_.sinkhorn}, {teacher_logits})[Sinkhorn::p];
  return run(context, TeacherSoftmax{}, {teacher_logits, center})[TeacherSoftmax::p];
}

Tensor DinoLoss::operator()(Context& context, const Tensor& student_logits, const Tensor& targets, int64_t crops) const {
  if (config_.kind == LossConfig::Kind::mse) {
    const Tensor unit = run(context, L2Normalize{}, {student_logits})[L2Normalize::y];
    return run(context, CropsMse{.crops = crops}, {unit, targets})[CropsMse::loss];
  }
  const DinoCrossEntropy op{.crops = crops, .student_temp = config_.student_temp};
  return run(context, op, {student_logits, targets})[DinoCrossEntropy::loss];
}

void DinoLoss::update_center(Context& context, const Tensor& sums, int64_t rows, const Tensor& healthy) {
  const UpdateCenter op{.momentum = config_.center_momentum, .rows = rows};
  if (uses_center()) run(context, op, {center_, sums, healthy}, {center_});
}

}  // namespace dino
