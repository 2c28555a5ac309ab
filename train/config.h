#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "augment/recipe.h"
#include "models/network.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/teacher.h"

namespace dino {

/// Every option of a training run, with the defaults of the reference implementation of DINO where it has them.
/// train/options.cpp gives each its name on the command line and its help.
struct TrainConfig {
  // data
  std::string data;             ///< what to train on; see Dataset::open
  std::string val;              ///< labelled images for a k-NN score in the log
  int64_t eval_every = 0;       ///< epochs between scores; 0: 1 with val, else none; see train/validation.h
  int64_t channels = 3;             ///< 0: not known yet, as the images have; see train/image_settings.h
  std::string pixel_type = "auto";  ///< or a SampleType
  std::vector<float> mean, deviation;
  bool shuffle = true;
  bool fast_decode = false;
  int64_t num_workers = 0;

  // network
  std::string arch = "vit_small";
  int64_t patch_size = 16;
  int64_t embed_dim = 0, depth = 0, heads = 0;  ///< 0: the architecture's own
  double mlp_ratio = 0;
  std::string gelu = "erf";
  std::vector<int64_t> conv_widths;
  int64_t conv_pool = 2;
  int64_t out_dim = 65536;
  int64_t head_hidden_dim = 2048, head_bottleneck_dim = 256, head_layers = 3;
  bool norm_last_layer = true;
  bool use_bn_in_head = false;
  double drop_path_rate = 0.1;
  std::string init;             ///< weights to start from

  // method
  std::string teacher = "momentum", loss = "ce";
  double momentum_teacher = 0.996, momentum_teacher_end = 1;
  double warmup_teacher_temp = 0.04, teacher_temp = 0.04, student_temp = 0.1;
  int64_t warmup_teacher_temp_epochs = 0;
  bool centering = true;
  double center_momentum = 0.9;
  int64_t sinkhorn = 0;
  bool predictor = false;
  int64_t predictor_hidden_dim = 256;

  // optimization
  std::string optimizer = "adamw";
  double lr = 0.0005, min_lr = 1e-6, warmup_epochs = 10;
  double weight_decay = 0.04, weight_decay_end = 0.4;
  double clip_grad = 3, layer_decay = 1;
  int64_t batch_size = 64, accumulate = 1;
  double epochs = 100, freeze_last_layer = 1, freeze_backbone_epochs = 0;
  int64_t steps = 0;            ///< stop after so many; 0: at the end of the last epoch
  int64_t max_bad_steps = 0;
  double max_bad_fraction = 0.1;  ///< of all images, that cannot be read
  std::string on_collapse = "warn";  ///< or "stop"; see train/doctor.h

  // crops
  AugmentConfig augment;

  // run
  std::string out = ".";
  int64_t checkpoint_every_steps = 0;  ///< 0: at the end of each epoch
  int64_t saveckp_freq = 20, keep = 0;
  int64_t log_every = 10;
  bool tensorboard = true;
  uint64_t seed = 0;
  int64_t shuffle_seed = 0;
  std::string device = "auto", precision = "auto";
  bool recompute = false;
  int64_t threads = 0;
};

/// What a run over a dataset of a known size does at each step. All schedules count global steps from 0.
struct RunPlan {
  int64_t steps_per_epoch = 0;
  int64_t total_steps = 0;     ///< of the schedules
  int64_t last_step = 0;       ///< where the run ends: total_steps, or earlier with --steps
  CosineSchedule lr, weight_decay, momentum;
  TemperatureSchedule temperature;
  double freeze_last_layer = 0, freeze_backbone = 0;  ///< epochs

  /// Throws UsageError, with the value that would do, for a schedule that cannot be.
  RunPlan(const TrainConfig& config, int64_t images);

  double epoch_of(int64_t step) const { return static_cast<double>(step) / static_cast<double>(steps_per_epoch); }
  StepPlan at(const TrainConfig& config, int64_t step) const;
};

/// The parts of the configuration as the modules want them. Throw UsageError for values that do not exist.
NetworkConfig network_config(const TrainConfig& config);
LossConfig loss_config(const TrainConfig& config);
OptimizerConfig optimizer_config(const TrainConfig& config);
TeacherKind teacher_kind(const TrainConfig& config);
Placement placement(const TrainConfig& config);

/// What images are decoded to; before it is known, 8-bit pixels. Throws UsageError for a type of pixels that does not exist.
ImageKind image_kind(const TrainConfig& config);

/// Whether a run that collapses stops.
bool stops_on_collapse(const TrainConfig& config);

/// --precision, where auto stands for bf16 if the network is a transformer and the device has instructions for bf16 (the GPUs
/// that builds cover all do), else f32.
std::string chosen_precision(const TrainConfig& config);

/// Crops as configured, with channels, normalisation and seed filled in.
AugmentConfig augment_config(const TrainConfig& config);

/// Throws UsageError for combinations that cannot work, before anything expensive happens.
void check_config(const TrainConfig& config);

}  // namespace dino
