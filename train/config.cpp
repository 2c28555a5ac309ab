#include "train/config.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "augment/image_kind.h"
#include "kernels/linear_products.h"
#include "models/registry.h"

namespace dino {
namespace {

/// The value that `text` names among `choices`.
template <class T>
T choose(const char* flag, const std::string& text, const std::map<std::string, T>& choices) {
  if (const auto found = choices.find(text); found != choices.end()) return found->second;
  std::string known;
  for (const auto& [name, value] : choices) known += (known.empty() ? "" : ", ") + name;
  throw UsageError(str(flag, " ", text, " is not known (known: ", known, ")"));
}

void require_range(const char* flag, double value, double low, double high) {
  check<UsageError>(value >= low && value <= high, flag, " ", value, " must lie between ", low, " and ", high);
}

}  // namespace

RunPlan::RunPlan(const TrainConfig& config, int64_t images)
    : freeze_last_layer(config.freeze_last_layer), freeze_backbone(config.freeze_backbone_epochs) {
  check<UsageError>(config.batch_size >= 1, "--batch-size must be at least 1");
  check<UsageError>(images >= config.batch_size, "--batch-size ", config.batch_size, " is larger than the data: ", images,
                    " images; use --batch-size ", images, " or less");
  steps_per_epoch = images / config.batch_size;
  constexpr double kMostSteps = 1e15;  // which doubles still count one by one
  const double most_epochs = std::floor(kMostSteps / static_cast<double>(steps_per_epoch));
  check<UsageError>(config.epochs <= most_epochs, "--epochs ", config.epochs, " is too many; use ", most_epochs, " or fewer");
  total_steps = static_cast<int64_t>(std::floor(config.epochs * static_cast<double>(steps_per_epoch)));
  check<UsageError>(total_steps >= 1, "--epochs ", config.epochs, " is less than one step; use --epochs 1 or more");
  last_step = config.steps > 0 ? std::min(config.steps, total_steps) : total_steps;
  check<UsageError>(config.warmup_epochs >= 0 && config.warmup_epochs <= config.epochs, "--warmup-epochs ",
                    config.warmup_epochs, " is longer than the run; use --warmup-epochs ", config.epochs / 10,
                    " or another value up to --epochs ", config.epochs);
  check<UsageError>(config.warmup_teacher_temp_epochs >= 0 &&
                        static_cast<double>(config.warmup_teacher_temp_epochs) <= std::ceil(config.epochs),
                    "--warmup-teacher-temp-epochs ", config.warmup_teacher_temp_epochs,
                    " is longer than the run; use a value up to --epochs ", config.epochs);
  check<UsageError>(config.freeze_backbone_epochs >= 0 && config.freeze_backbone_epochs < config.epochs, "--freeze-backbone-epochs ",
                    config.freeze_backbone_epochs, " must be less than --epochs ", config.epochs, ", or the backbone learns nothing");
  const auto warmup = static_cast<int64_t>(config.warmup_epochs * static_cast<double>(steps_per_epoch));
  const double scaled_lr = config.lr * static_cast<double>(config.batch_size) / 256;
  lr = {scaled_lr, config.min_lr, total_steps, warmup};
  weight_decay = {config.weight_decay, config.weight_decay_end, total_steps};
  momentum = {config.momentum_teacher, config.momentum_teacher_end, total_steps};
  temperature = {config.warmup_teacher_temp, config.teacher_temp, config.warmup_teacher_temp_epochs};
}

StepPlan RunPlan::at(const TrainConfig& config, int64_t step) const {
  StepPlan plan;
  plan.scalars = {.seed = config.seed,
                  .step = static_cast<uint64_t>(step),
                  .learning_rate = lr.at(step),
                  .weight_decay = weight_decay.at(step),
                  .teacher_momentum = momentum.at(step),
                  .teacher_temp = temperature.at(step / steps_per_epoch)};
  plan.last_layer_frozen = epoch_of(step) < freeze_last_layer;
  plan.backbone_frozen = epoch_of(step) < freeze_backbone;
  plan.last_of_epoch = (step + 1) % steps_per_epoch == 0;
  plan.with_statistics = step % config.log_every == 0 || step + 1 == last_step;
  return plan;
}

NetworkConfig network_config(const TrainConfig& config) {
  NetworkConfig network;
  BackboneConfig& backbone = network.backbone;
  backbone.arch = config.arch;
  backbone.image_size = config.augment.global_crops_size;
  backbone.channels = config.channels;
  backbone.patch_size = config.patch_size;
  backbone.drop_path_rate = config.drop_path_rate;
  backbone.gelu = gelu_named(config.gelu);
  backbone.recompute = config.recompute;
  if (config.embed_dim) backbone.embed_dim = config.embed_dim;
  if (config.depth) backbone.depth = config.depth;
  if (config.heads) backbone.heads = config.heads;
  if (config.mlp_ratio > 0) backbone.mlp_ratio = config.mlp_ratio;
  if (!config.conv_widths.empty()) backbone.conv_widths = config.conv_widths;
  backbone.conv_pool = config.conv_pool;
  network.head = {.hidden = config.head_hidden_dim,
                  .bottleneck = config.head_bottleneck_dim,
                  .out = config.out_dim,
                  .layers = config.head_layers,
                  .batch_norm = config.use_bn_in_head,
                  .norm_last_layer = config.norm_last_layer,
                  .gelu = backbone.gelu};
  if (config.predictor) network.predictor_hidden = config.predictor_hidden_dim;
  return network;
}

LossConfig loss_config(const TrainConfig& config) {
  LossConfig loss;
  loss.kind = choose<LossConfig::Kind>("--loss", config.loss,
                                       {{"ce", LossConfig::Kind::cross_entropy}, {"mse", LossConfig::Kind::mse}});
  loss.centering = config.centering;
  loss.sinkhorn = static_cast<int>(config.sinkhorn);
  loss.student_temp = config.student_temp;
  loss.center_momentum = config.center_momentum;
  return loss;
}

OptimizerConfig optimizer_config(const TrainConfig& config) {
  using Kind = OptimizerConfig::Kind;
  return {choose<Kind>("--optimizer", config.optimizer, {{"adamw", Kind::adamw}, {"sgd", Kind::sgd}, {"lars", Kind::lars}}),
          config.clip_grad, config.layer_decay};
}

TeacherKind teacher_kind(const TrainConfig& config) {
  return choose<TeacherKind>("--teacher", config.teacher,
                             {{"momentum", TeacherKind::momentum},
                              {"copy", TeacherKind::copy},
                              {"previous-step", TeacherKind::previous_step},
                              {"previous-epoch", TeacherKind::previous_epoch}});
}

bool stops_on_collapse(const TrainConfig& config) {
  return choose<bool>("--on-collapse", config.on_collapse, {{"warn", false}, {"stop", true}});
}

std::string chosen_precision(const TrainConfig& config) {
  if (config.precision != "auto") return config.precision;
  const bool transformer = is_transformer(config.arch) && !has_batch_norm(config.arch);
  const bool fast = device_named(config.device) == Device::cuda || multiplies_bf16_natively();
  return transformer && fast ? "bf16" : "f32";
}

Placement placement(const TrainConfig& config) { return placement_named(config.device, chosen_precision(config)); }

ImageKind image_kind(const TrainConfig& config) {
  const auto samples = sample_type_named(config.pixel_type);
  check<UsageError>(samples || config.pixel_type == "auto", "--pixel-type ", config.pixel_type, " is not known (known: auto, uint8, uint16, float32)");
  return {config.channels > 0 ? static_cast<int>(config.channels) : 3, samples.value_or(SampleType::uint8)};
}

AugmentConfig augment_config(const TrainConfig& config) {
  AugmentConfig augment = config.augment;
  augment.channels = static_cast<int>(config.channels);
  augment.mean = config.mean;
  augment.deviation = config.deviation;
  augment.seed = config.seed;
  return augment;
}

void check_config(const TrainConfig& config) {
  check<UsageError>(!config.data.empty(), "--data is missing: a folder, list, .tar, IDX or CIFAR .bin to train on");
  check<UsageError>(config.channels >= 0 && config.channels <= kMostChannels, "--channels ", config.channels, " must be 1 to ", kMostChannels,
                    ", or 0: as the images have");
  image_kind(config);
  for (const auto& [flag, list] : {std::pair{"--mean", &config.mean}, std::pair{"--std", &config.deviation}})
    check<UsageError>(list->empty() || config.channels == 0 || static_cast<int64_t>(list->size()) == config.channels, flag, " needs one value for each of ",
                      config.channels, " channels; got ", list->size());
  for (const float deviation : config.deviation) check<UsageError>(deviation > 0, "--std ", deviation, " must be positive");
  AugmentConfig augment = augment_config(config);
  if (config.channels == 0) augment.channels = 3, augment.mean = {}, augment.deviation = {};
  check_config(augment);
  loss_config(config);
  optimizer_config(config);
  teacher_kind(config);
  stops_on_collapse(config);
  gelu_named(config.gelu);
  placement(config);
  require_range("--momentum-teacher", config.momentum_teacher, 0, 1);
  require_range("--momentum-teacher-end", config.momentum_teacher_end, 0, 1);
  require_range("--center-momentum", config.center_momentum, 0, 1);
  require_range("--max-bad-fraction", config.max_bad_fraction, 0, 1);
  require_range("--drop-path-rate", config.drop_path_rate, 0, 0.999);
  require_range("--sinkhorn", static_cast<double>(config.sinkhorn), 0, 1000);
  for (const auto& [flag, value] : {std::pair{"--teacher-temp", config.teacher_temp}, std::pair{"--student-temp", config.student_temp},
                                    std::pair{"--warmup-teacher-temp", config.warmup_teacher_temp}})
    check<UsageError>(value > 0, flag, " ", value, " must be positive, such as ", std::string_view(flag) == "--student-temp" ? 0.1 : 0.04);
  for (const auto& [flag, value] : {std::pair{"--lr", config.lr}, std::pair{"--min-lr", config.min_lr},
                                    std::pair{"--weight-decay", config.weight_decay}, std::pair{"--clip-grad", config.clip_grad},
                                    std::pair{"--weight-decay-end", config.weight_decay_end}})
    check<UsageError>(value >= 0 && std::isfinite(value), flag, " ", value, " must not be negative");
  for (const auto& [flag, value] : {std::pair{"--log-every", config.log_every}, std::pair{"--accumulate", config.accumulate},
                                    std::pair{"--out-dim", config.out_dim}})
    check<UsageError>(value >= 1, flag, " ", value, " must be at least 1");
  check<UsageError>(config.eval_every >= 0, "--eval-every ", config.eval_every, " must not be negative");
  check<UsageError>(config.layer_decay > 0 && config.layer_decay <= 1, "--layer-decay ", config.layer_decay,
                    " must be above 0 and at most 1, which is none");
  check<UsageError>(config.loss == "ce" || config.sinkhorn == 0, "--sinkhorn needs --loss ce: MSE does not compare probabilities");
  const bool known = std::ranges::find(backbone_names(), config.arch) != backbone_names().end();  // others are refused by name later
  const bool transformer = is_transformer(config.arch);
  check<UsageError>(!config.recompute || transformer || !known, "--recompute works block by block of a transformer; --arch ", config.arch,
                    " has none: use --recompute false");
  int64_t divisor = std::min(config.accumulate, std::max<int64_t>(1, config.batch_size));
  while (config.batch_size % divisor != 0) --divisor;
  check<UsageError>(config.batch_size % config.accumulate == 0, "--accumulate ", config.accumulate,
                    " must divide --batch-size ", config.batch_size, "; use --accumulate ", divisor);
  if (transformer)
    for (const auto& [flag, size] : {std::pair{"--global-crops-size", config.augment.global_crops_size},
                                     std::pair{"--local-crops-size", config.augment.local_crops_size}})
      check<UsageError>(size >= config.patch_size, flag, " ", size, " is smaller than --patch-size ", config.patch_size, "; use --patch-size ", size, " or less");
  const bool batch_norm = config.use_bn_in_head || (known && has_batch_norm(config.arch));
  check<UsageError>(config.accumulate == 1 || !batch_norm, "--accumulate ", config.accumulate,
                    " would not equal the large batch, because the network has batch norm; use --accumulate 1",
                    config.use_bn_in_head ? " or --use-bn-in-head false" : "");
  check<UsageError>(config.accumulate == 1 || config.sinkhorn == 0, "--accumulate ", config.accumulate,
                    " would not equal the large batch: --sinkhorn balances over the batch; use --accumulate 1");
}

}  // namespace dino
