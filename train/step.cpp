#include "train/step.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

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

int64_t rows_of(const Tensor& tensor) { return tensor.defined() ? tensor.shape().rows() : 0; }

std::vector<Tensor> all_crops(const Crops& crops) {
  return crops.locals.defined() ? std::vector{crops.globals, crops.locals} : std::vector{crops.globals};
}

Mode training_on(const Crops& crops) { return {.training = true, .crops = &crops.images}; }

void show(const TrainingState& state, const char* what, const Tensor& values) {
  if (state.watch && values.defined()) (*state.watch)(what, values);
}

void show_gradients(const TrainingState& state) {
  if (!state.watch) return;
  const ParameterStore& parameters = state.student.parameters();
  for (const int index : state.optimizer.tensors())
    if (const View gradient = parameters.grad(index)->value(); gradient.defined())
      (*state.watch)("gradient of " + parameters.entries()[static_cast<size_t>(index)].name, Tensor(gradient, nullptr));
}

/// `features` are those of a backbone that ran before, or undefined. The logits are as large as all prototypes times all
/// crops: only the tape holds them when this returns, until backward is through with them.
Tensor student_loss(const TrainingState& state, const Crops& crops, Tensor features, Tensor targets) {
  const Mode mode = training_on(crops);
  if (!features.defined()) features = state.student.features(state.context, all_crops(crops), mode);
  show(state, "student features", features);
  const Tensor logits = state.student.logits(state.context, features, mode);
  show(state, "student logits", logits);
  return state.loss(state.context, logits, targets, logits.shape()[0] / crops.images.images);
}

}  // namespace

StepResult train_step(TrainingState state, std::span<const Crops> micro_batches, const StepPlan& plan) {
  auto& [context, student, teacher, loss, optimizer, watch] = state;
  student.parameters().reset_gradients();

  const auto parts = static_cast<double>(micro_batches.size());
  Tensor total_loss, logit_sums, all_targets, all_features;
  int64_t teacher_rows = 0;
  for (const Crops& crops : micro_batches) {
    show(state, "global crops", crops.globals);
    show(state, "local crops", crops.locals);
    Tensor features = teacher.features(context, crops.globals);
    Tensor teacher_logits = teacher.logits(context, features);
    Tensor targets = loss.targets(context, teacher_logits);
    show(state, "teacher features", features);
    show(state, "teacher logits", teacher_logits);
    show(state, "targets", targets);
    if (plan.with_statistics) all_targets = stack(context, all_targets, targets);
    if (plan.with_statistics && rows_of(all_features) < kFeatureRows) all_features = stack(context, all_features, features);
    features = {};
    logit_sums = run(context, ColumnSums{}, {teacher_logits, logit_sums})[ColumnSums::sums];
    teacher_rows += teacher_logits.shape()[0];
    teacher_logits = {};  // large, and not needed from here on

    // What runs without a tape gets no gradient: no update, no decay, no step count.
    Tensor still;
    if (plan.backbone_frozen) still = student.features(context, all_crops(crops), training_on(crops));
    Tape tape(context);
    const Tensor part_loss = student_loss(state, crops, std::move(still), std::move(targets));
    show(state, "loss", part_loss);
    tape.backward(part_loss, 1 / parts);
    total_loss = sum(context, total_loss, part_loss);
  }

  show_gradients(state);
  const Tensor healthy = optimizer.check_health(context, student.parameters(), total_loss, plan.last_layer_frozen);
  teacher.before_update(context, student, healthy);
  optimizer.update(context, student.parameters(), healthy, teacher.averaged());
  teacher.after_update(context, student, healthy, plan.last_of_epoch);
  loss.update_center(context, logit_sums, teacher_rows, healthy);

  const auto column = [](const Tensor& tensor) { return tensor.reshaped(Shape{tensor.shape().count(), 1}); };
  StepResult result{run(context, ConcatRows{}, {column(total_loss), column(healthy)})[ConcatRows::y], {}, {}, {}};
  if (!plan.with_statistics) return result;
  if (loss.config().kind == LossConfig::Kind::cross_entropy)
    result.statistics = run(context, TargetStatistics{}, {all_targets})[TargetStatistics::statistics];
  if (loss.uses_center()) result.center = loss.center();
  result.features = all_features.rows(0, std::min(rows_of(all_features), kFeatureRows));
  return result;
}

StepReport read_report(const StepResult& result, int64_t micro_batches) {
  const std::vector<double> numbers = values_of(result.numbers);
  StepReport report;
  report.loss = numbers[0] / static_cast<double>(micro_batches);
  report.healthy = numbers[1] != 0;
  if (result.statistics.defined()) {
    const std::vector<double> targets = values_of(result.statistics);
    report.teacher_entropy = targets[0];
    report.marginal_entropy = targets[1];
    report.prototypes_used = targets[2];
  }
  if (result.center.defined()) {
    const std::vector<double> center = values_of(result.center);
    report.center_norm = std::sqrt(std::inner_product(center.begin(), center.end(), center.begin(), 0.0));
  }
  if (result.features.defined()) report.features = feature_statistics(values_of(result.features), rows_of(result.features));
  return report;
}

}  // namespace dino
