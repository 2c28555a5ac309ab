#include "train/teacher.h"

#include <cmath>
#include <limits>

namespace dino {
namespace {

/// The teacher is built without drop path and never has the student's predictor.
NetworkConfig teacher_config(NetworkConfig config) {
  config.backbone.drop_path_rate = 0;
  config.predictor_hidden.reset();
  return config;
}

}  // namespace

double teacher_half_life(TeacherKind kind, double momentum) {
  if (kind == TeacherKind::copy) return 0;
  if (kind != TeacherKind::momentum) return std::numeric_limits<double>::quiet_NaN();
  if (momentum >= 1) return std::numeric_limits<double>::infinity();
  return momentum <= 0 ? 0 : std::log(0.5) / std::log(momentum);
}

Teacher::Teacher(const NetworkConfig& config, TeacherKind kind, const Placement& placement, uint64_t seed)
    : network_(teacher_config(config), placement, seed, /*gradients=*/false), kind_(kind) {}

void Teacher::copy_from(const Network& student) {
  const ParameterStore &from = student.parameters(), &to = network_.parameters();
  for (size_t i = 0; i < to.entries().size(); ++i)
    copy_elements(from.tensor(from.find(to.entries()[i].name)).view(), to.tensor(static_cast<int>(i)).view());
  to.values_changed();
}

Tensor Teacher::features(Context& context, const Tensor& global_crops) const {
  return dino::features(context, network_.backbone(), std::span(&global_crops, 1), {.training = true});
}

Tensor Teacher::logits(Context& context, const Tensor& features) const {
  return network_.head()(context, features, {.training = true});
}

void Teacher::before_update(Context& context, const Network& student, const Tensor& healthy) {
  if (kind_ == TeacherKind::previous_step) follow(context, student, healthy, true);
}

void Teacher::after_update(Context& context, const Network& student, const Tensor& healthy, bool last_of_epoch) {
  if (kind_ == TeacherKind::copy || (kind_ == TeacherKind::previous_epoch && last_of_epoch)) follow(context, student, healthy, true);
}

void Teacher::follow(Context& context, const Network& student, const Tensor& healthy, bool copy) {
  // Parameters that only the student has, its predictor's, come last.
  const Tensor mine = network_.parameters().values();
  const Tensor its = student.parameters().values().rows(0, mine.shape().count());
  run(context, Ema{.copy = copy}, {mine, its, healthy}, {mine});
  network_.parameters().values_changed();
}

}  // namespace dino
