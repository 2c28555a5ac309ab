#include "train/bad_step.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "kernels/philox.h"
#include "train/json_text.h"

namespace dino {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

/// The random numbers of a step are a function of these; see kernels/philox.h.
json random_keys(const TrainConfig& config, int64_t step, int64_t first_position) {
  const auto entry = [&](uint64_t seed, Purpose purpose, const char* counter) {
    const Philox philox(seed, purpose);
    return json{{"seed", seed}, {"key", {philox.key[0], philox.key[1]}}, {"counter", counter}};
  };
  return {{"crops", entry(config.seed, Purpose::augment, "position, crop")},
          {"replacements", entry(config.seed, Purpose::replacement, "position, attempt")},
          {"order", entry(static_cast<uint64_t>(config.shuffle_seed), Purpose::shuffle, "epoch")},
          {"drop_path", entry(config.seed, Purpose::drop_path, "step, layer")},
          {"step", step},
          {"first_position", first_position}};
}

bool all_finite(const Tensor& tensor) {
  for (const double value : values_of(tensor))
    if (!std::isfinite(value)) return false;
  return true;
}

json parameters_not_finite(const ParameterStore& parameters) {
  json names = json::array();
  for (size_t i = 0; i < parameters.entries().size(); ++i)
    if (!all_finite(parameters.tensor(static_cast<int>(i)))) names.push_back(parameters.entries()[i].name);
  return names;
}

/// Those of the last step that ran.
json gradients_not_finite(Trainer& trainer) {
  json names = json::array();
  const Optimizer& optimizer = trainer.optimizer();
  const std::vector<double> norms = values_of(optimizer.norms());
  for (size_t i = 0; i < norms.size(); ++i)
    if (!std::isfinite(norms[i])) names.push_back(trainer.student().parameters().entries()[static_cast<size_t>(optimizer.tensors()[i])].name);
  return names;
}

}  // namespace

json loss_json(double loss) {
  if (std::isfinite(loss)) return loss;
  return std::isnan(loss) ? "nan" : loss > 0 ? "inf" : "-inf";
}

json to_json(const StepPlan& plan) {
  return {{"seed", plan.scalars.seed},
          {"lr", plan.scalars.learning_rate},
          {"wd", plan.scalars.weight_decay},
          {"momentum", plan.scalars.teacher_momentum},
          {"teacher_temp", plan.scalars.teacher_temp},
          {"last_layer_frozen", plan.last_layer_frozen},
          {"backbone_frozen", plan.backbone_frozen}};
}

void write_bad_step(Trainer& trainer, const Dataset& dataset, const Trainer::Finished& bad, bool unchanged) {
  const TrainConfig& config = trainer.config();
  const RunPlan& plan = trainer.plan();
  const int64_t in_epoch = bad.step % plan.steps_per_epoch * config.batch_size;
  const int64_t first_position = bad.step / plan.steps_per_epoch * static_cast<int64_t>(dataset.size()) + in_epoch;
  json samples = json::array();
  for (size_t row = 0; row < bad.samples.size(); ++row)
    samples.push_back({{"index", bad.samples[row]}, {"path", dataset.name(bad.samples[row])}, {"position", first_position + static_cast<int64_t>(row)}});
  json all = to_json(plan.at(config, bad.step));
  all["step"] = bad.step;
  all["epoch"] = plan.epoch_of(bad.step);
  all["loss"] = loss_json(bad.report.loss);
  all["device"] = config.device;
  all["precision"] = chosen_precision(config);
  all["random"] = random_keys(config, bad.step, first_position);
  all["samples"] = std::move(samples);
  all["replay"] = str("dino_engine train --out ", config.out, " --replay ", bad.step);
  const fs::path folder = config.out;
  const std::string state = (folder / kBadStepState).string();
  std::error_code missing;
  if (unchanged) {
    all["gradients_not_finite"] = gradients_not_finite(trainer);
    all["parameters_not_finite"] = parameters_not_finite(trainer.student().parameters());
    trainer.save(state, bad.step);
  } else {
    fs::remove(state, missing);
    fs::copy_file(folder / "checkpoint.safetensors", state, missing);
  }
  write_file((folder / kBadStepFile).string(), {bytes_of_text(json_text(all, 2) + "\n")});
}

}  // namespace dino
