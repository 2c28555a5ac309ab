#pragma once

#include "tests/golden.h"
#include "train/step_runner.h"

/// The training runs that the reference implementation printed numbers of.
namespace dino::golden {

struct Variant {
  const char* name;
  OptimizerConfig optimizer;
  bool norm_last_layer;
};

inline const Variant kVariants[] = {
    {"train_adamw_nll_true", {OptimizerConfig::Kind::adamw, 0.3}, true},
    {"train_adamw_nll_false", {OptimizerConfig::Kind::adamw, 0.3}, false},
    {"train_sgd", {OptimizerConfig::Kind::sgd, 0.3}, true},
    {"train_lars", {OptimizerConfig::Kind::lars, 0.3}, true},
    {"train_adamw_noclip", {OptimizerConfig::Kind::adamw, 0}, true},
};

inline constexpr int64_t kEpochSteps = 3, kSteps = 6, kBatch = 3;

/// Student, teacher and the rest for the tiny network of the golden numbers.
struct Run {
  Context context;
  Network student;
  Teacher teacher;
  DinoLoss loss;
  Optimizer optimizer;
  StepRunner runner;

  Run(const Variant& variant, const Placement& placement)
      : context(2, placement.device),
        student(config(variant), placement, 0, true),
        teacher(config(variant), TeacherKind::momentum, placement, 0),
        loss(context, {}, 20, placement.dtype),
        optimizer(context, variant.optimizer, student.parameters()),
        runner({context, student, teacher, loss, optimizer}) {
    golden::fill(student.parameters());
    teacher.network().parameters().copy_from(student.parameters());
  }

  static NetworkConfig config(const Variant& variant) {
    NetworkConfig config = golden::tiny_config();
    config.head.norm_last_layer = variant.norm_last_layer;
    return config;
  }

  StepPlan plan(int64_t step) const {
    const CosineSchedule lr{0.01, 1e-4, kSteps, kEpochSteps}, decay{0.04, 0.4, kSteps}, momentum{0.9, 1, kSteps};
    const TemperatureSchedule temperature{0.04, 0.07, 1};
    StepPlan plan;
    plan.scalars = {.step = static_cast<uint64_t>(step),
                    .learning_rate = lr.at(step),
                    .weight_decay = decay.at(step),
                    .teacher_momentum = momentum.at(step),
                    .teacher_temp = temperature.at(step / kEpochSteps)};
    plan.last_layer_frozen = step < kEpochSteps;
    return plan;
  }

  StepReport step(int64_t step) {
    const Dtype dtype = student.parameters().dtype();
    const auto k = static_cast<uint64_t>(100 * (step + 1));
    const Crops crops{golden::inputs(context, dtype, k, 2, kBatch, 32), golden::inputs(context, dtype, k + 2, 3, kBatch, 16),
                      {.images = kBatch, .batch = kBatch}};
    const auto now = runner.start(std::span(&crops, 1), plan(step)), later = runner.finish();
    return (later ? later : now)->report;
  }

  double grad_norm(const char* name) {
    const View grad = student.parameters().grad(student.parameters().find(name))->value();
    return golden::l2(Tensor(grad, nullptr));
  }
};

/// L2 norm and sum over all parameters.
struct Totals {
  double l2 = 0, sum = 0;
};

inline Totals totals(const ParameterStore& parameters) {
  Totals result;
  for (size_t i = 0; i < parameters.entries().size(); ++i) {
    const Tensor tensor = parameters.tensor(static_cast<int>(i));
    result.sum += golden::sum(tensor);
    result.l2 += golden::l2(tensor) * golden::l2(tensor);
  }
  result.l2 = std::sqrt(result.l2);
  return result;
}

}  // namespace dino::golden
