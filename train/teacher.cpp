#include "train/teacher.h"

namespace dino {
namespace {

/// The teacher is built without drop path and never has the student's predictor.
NetworkConfig teacher_config(NetworkConfig config) {
  config.backbone.drop_path_rate = 0;
  config.predictor_hidden.reset();
  return config;
}

}  // namespace

Teacher::Teacher(const NetworkConfig& config, TeacherKind kind, const Placement& placement, uint64_t seed)
    : network_(teacher_config(config), placement, seed, /*gradients=*/false), kind_(kind) {}

void Teacher::copy_from(const Network& student) {
  const ParameterStore &from = student.parameters(), &to = network_.parameters();
  for (size_t i = 0; i < to.entries().size(); ++i)
    copy_elements(from.tensor(from.find(to.entries()[i].name)).view(), to.tensor(static_cast<int>(i)).view());
  to.values_changed();
}

Tensor Teacher::operator()(Context& context, const Tensor& global_crops) const {
  return network_(context, std::span(&global_crops, 1), {.training = true});
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
