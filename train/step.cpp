#include "train/step.h"

#include <limits>

namespace dino {
namespace {

/// total + part; the first part is the total.
Tensor sum(Context& context, const Tensor& total, const Tensor& part) {
  return total.defined() ? run(context, ResidualAdd{}, {total, part.detached()})[ResidualAdd::y] : part.detached();
}

/// The rows of both; the first part is the whole.
Tensor stack(Context& context, const Tensor& rows, const Tensor& more) {
  return rows.defined() ? run(context, ConcatRows{}, {rows, more})[ConcatRows::y] : more;
}

std::vector<Tensor> all_crops(const Crops& crops) {
  return crops.locals.defined() ? std::vector{crops.globals, crops.locals} : std::vector{crops.globals};
}

}  // namespace

Tensor train_step(TrainingState state, std::span<const Crops> micro_batches, const StepPlan& plan) {
  auto& [context, student, teacher, loss, optimizer] = state;
  student.parameters().reset_gradients();

  const auto parts = static_cast<double>(micro_batches.size());
  Tensor total_loss, logit_sums, all_targets;
  int64_t teacher_rows = 0;
  for (const Crops& crops : micro_batches) {
    const Tensor teacher_logits = teacher(context, crops.globals);
    const Tensor targets = loss.targets(context, teacher_logits);
    if (plan.with_statistics) all_targets = stack(context, all_targets, targets);

    Tape tape(context);
    const Tensor student_logits = student(context, all_crops(crops), {.training = true, .crops = &crops.images});
    const int64_t views = student_logits.shape()[0] / crops.images.images;
    const Tensor part_loss = loss(context, student_logits, targets, views);
    tape.backward(part_loss, 1 / parts);

    total_loss = sum(context, total_loss, part_loss);
    logit_sums = run(context, ColumnSums{}, {teacher_logits, logit_sums})[ColumnSums::sums];
    teacher_rows += teacher_logits.shape()[0];
  }

  const Tensor healthy = optimizer.check_health(context, student.parameters(), total_loss, plan.last_layer_frozen);
  teacher.before_update(context, student, healthy);
  optimizer.update(context, student.parameters(), healthy, teacher.averaged());
  teacher.after_update(context, student, healthy, plan.last_of_epoch);
  loss.update_center(context, logit_sums, teacher_rows, healthy);

  const auto column = [](const Tensor& tensor) { return tensor.reshaped(Shape{tensor.shape().count(), 1}); };
  std::vector<Tensor> numbers{column(total_loss), column(healthy)};
  if (plan.with_statistics && loss.config().kind == LossConfig::Kind::cross_entropy)
    numbers.push_back(column(run(context, TargetStatistics{}, {all_targets})[TargetStatistics::statistics]));
  return run(context, ConcatRows{}, numbers)[ConcatRows::y];
}

StepReport read_report(std::span<const double> numbers, int64_t micro_batches) {
  constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
  StepReport report{numbers[0] / static_cast<double>(micro_batches), numbers[1] != 0, unknown, unknown, unknown};
  if (numbers.size() == kStepNumbers) {
    report.teacher_entropy = numbers[2];
    report.marginal_entropy = numbers[3];
    report.prototypes_used = numbers[4];
  }
  return report;
}

}  // namespace dino
