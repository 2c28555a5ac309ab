#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "augment/dataset.h"
#include "augment/loader.h"
#include "train/config.h"
#include "train/step_runner.h"

namespace dino {

/// One training run as an object: networks, optimizer, center and loader, advanced one step at a time. What a step does
/// depends on the configuration and the step only, so a run that was interrupted goes on bit for bit.
class Trainer {
 public:
  /// Builds everything from `config`. `dataset` must outlive the trainer. Throws UsageError for a configuration that
  /// cannot be, FormatError if `config.init` does not fit.
  Trainer(const TrainConfig& config, const Dataset& dataset);

  const TrainConfig& config() const { return config_; }
  const RunPlan& plan() const { return plan_; }
  Context& context() { return context_; }
  Network& student() { return student_; }
  Teacher& teacher() { return teacher_; }
  const DinoLoss& loss() const { return loss_; }
  Optimizer& optimizer() { return optimizer_; }

  /// Steps done so far: the number of the next one.
  int64_t step() const { return step_; }
  bool finished() const { return step_ >= plan_.last_step; }

  /// A step that is done.
  struct Finished {
    int64_t step;
    StepReport report;
    std::vector<std::string> bad_images;  ///< that could not be read and were replaced: one line each
    std::vector<size_t> samples;          ///< [batch] which images of the dataset the step saw
  };

  /// Loads the next batch and starts to train on it. Tells about the last step that is done: this one on the CPU, the one
  /// before on a GPU, which works on while the host prepares the next. A step that was not healthy changed nothing and
  /// counts as done. Throws DataError if no readable image can be found.
  std::optional<Finished> advance();
  /// Waits for the step that was started last, and tells about it unless `advance` did.
  std::optional<Finished> finish();
  /// Both.
  StepReport train_step();

  /// Most memory that steps used at one time, in bytes.
  size_t peak_bytes() const { return runner_.peak_bytes(); }
  const StepRunner& runner() const { return runner_; }
  double seconds_waited() const { return loader_ ? loader_->seconds_waited() : 0; }

  /// Shows what later steps compute to `watch`; see StepRunner.
  void watch(const StepWatch* watch) { runner_.watch(watch); }

  /// Writes or restores the state; see train/checkpoint.h. Restoring also moves the loader.
  void save(const std::string& path) { save(path, step_); }
  /// The same as the state before `step`, for steps that changed nothing.
  void save(const std::string& path, int64_t step);
  void load(const std::string& path);

 private:
  TrainingState state() { return {context_, student_, teacher_, loss_, optimizer_}; }
  std::optional<Finished> tell(std::optional<StepRunner::Finished> finished);
  void start_loader();
  bool renders_on_device() const;
  StepRunner::Rendering rendering() const;
  std::vector<Crops> micro_batches(const Batch& batch);

  TrainConfig config_;
  const Dataset& dataset_;
  RunPlan plan_;
  Context context_;
  Network student_;
  Teacher teacher_;
  DinoLoss loss_;
  Optimizer optimizer_;
  StepRunner runner_;
  std::unique_ptr<Loader> loader_;
  int64_t step_ = 0;
  std::map<int64_t, Finished> started_;  // steps that nobody was told about yet, without their reports
};

}  // namespace dino
