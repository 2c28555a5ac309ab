#include "train/trainer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/checkpoint.h"
#include "train/memory_plan.h"
#include "train/options.h"
#include "train/weights.h"

namespace dino {
namespace {

/// The part of the configuration that shapes the result, as a checkpoint records it. How a run is cut into sessions, where
/// its files lie and how many threads work are left out, so that none of them changes the checkpoint's bytes.
std::string recorded_config(TrainConfig config) {
  nlohmann::json json = to_json(options_of(config));
  for (const char* name : {"data", "val", "eval-every", "init", "threads", "recompute", "num-workers", "device", "steps", "log-every",
                           "checkpoint-every-steps", "saveckp-freq", "keep", "max-bad-steps", "max-bad-fraction", "tensorboard", "on-collapse"})
    json.erase(name);
  return json.dump();
}

/// Rows [first, first + rows) of each of `crops` crops of `batch` images, stacked, as a tensor of `dtype`. The whole batch
/// in f32 is used where it lies; `pixels` must then outlive the tensor.
Tensor crop_tensor(Context& context, const std::vector<float>& pixels, Dtype dtype, int64_t crops, int64_t batch,
                   int64_t first, int64_t rows, int64_t size, int64_t channels) {
  const Shape shape{crops * rows, size, size, channels};
  const int64_t per_image = size * size * channels;
  if (rows == batch && dtype == Dtype::f32) return Tensor(View(const_cast<float*>(pixels.data()), dtype, shape), nullptr);
  const Tensor tensor = context.host_tensor({dtype, shape});
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* out = tensor.view().as<T>();
    for (int64_t crop = 0; crop < crops; ++crop) {
      const float* in = pixels.data() + (crop * batch + first) * per_image;
      out = std::transform(in, in + rows * per_image, out, [](float x) { return static_cast<T>(x); });
    }
  });
  return tensor;
}

void initialize(Network& student, const std::string& path) {
  const WeightsFile weights = load_weights(path);
  // A head is taken over if the file has one of the same kind; a backbone alone is fine too.
  const bool with_head = weights.tensors.find("head.last_layer.weight_v") != nullptr;
  apply_weights(student.parameters(), weights, with_head, /*allow_partial=*/false);
}

/// What a step on a GPU will need; there one block of just that size leaves no gaps.
size_t planned_bytes(const TrainConfig& config) {
  if (placement(config).device != Device::cuda) return 0;
  const MemoryPlan plan = plan_memory(config);
  return plan.step + plan.gaps;
}

}  // namespace

Trainer::Trainer(const TrainConfig& config, const Dataset& dataset)
    : config_((check_config(config), config)),
      dataset_(dataset),
      plan_(config, static_cast<int64_t>(dataset.size())),
      context_(static_cast<int>(config.threads), placement(config).device),
      student_(network_config(config), placement(config), config.seed, /*gradients=*/true),
      teacher_(network_config(config), teacher_kind(config), placement(config), config.seed),
      loss_(context_, loss_config(config), config.out_dim, placement(config).dtype),
      optimizer_(context_, optimizer_config(config), student_.parameters()),
      runner_(state(), planned_bytes(config)) {
  if (!config.init.empty()) initialize(student_, config.init);
  teacher_.copy_from(student_);
}

void Trainer::start_loader() {
  loader_ = std::make_unique<Loader>(dataset_, LoaderConfig{.augment = augment_config(config_),
                                                            .batch_size = static_cast<int>(config_.batch_size),
                                                            .shuffle = config_.shuffle,
                                                            .seed = config_.seed,
                                                            .shuffle_seed = static_cast<uint64_t>(config_.shuffle_seed),
                                                            .workers = static_cast<int>(config_.num_workers),
                                                            .first_step = step_,
                                                            .steps = plan_.total_steps - step_,
                                                            .fast_decode = config_.fast_decode,
                                                            .decode_only = renders_on_device()});
}

bool Trainer::renders_on_device() const { return context_.device() == Device::cuda && dataset_.kind().in_bytes(); }

StepRunner::Rendering Trainer::rendering() const {
  const AugmentConfig& augment = config_.augment;
  return {.batch = config_.batch_size,
          .micro_batch = config_.batch_size / config_.accumulate,
          .local_crops = augment.local_crops_number,
          .global_size = augment.global_crops_size,
          .local_size = augment.local_crops_size,
          .channels = config_.channels,
          .scale = pixel_scale(augment_config(config_))};
}

std::vector<Crops> Trainer::micro_batches(const Batch& batch) {
  const int64_t rows = config_.batch_size / config_.accumulate;
  const AugmentConfig& augment = config_.augment;
  const auto tensor = [&](const std::vector<float>& pixels, int64_t crops, int64_t first, int64_t size) {
    return crop_tensor(context_, pixels, student_.parameters().dtype(), crops, config_.batch_size, first, rows, size, config_.channels);
  };
  std::vector<Crops> parts;
  for (int64_t first = 0; first < config_.batch_size; first += rows) {
    Crops crops;
    crops.globals = tensor(batch.globals, 2, first, augment.global_crops_size);
    if (augment.local_crops_number > 0) crops.locals = tensor(batch.locals, augment.local_crops_number, first, augment.local_crops_size);
    crops.images = {.images = rows, .batch = config_.batch_size, .first = first};
    parts.push_back(std::move(crops));
  }
  return parts;
}

std::optional<Trainer::Finished> Trainer::tell(std::optional<StepRunner::Finished> finished) {
  if (!finished) return std::nullopt;
  Finished told = std::move(started_.extract(finished->step).mapped());
  told.report = finished->report;
  return told;
}

std::optional<Trainer::Finished> Trainer::advance() {
  check(step_ < plan_.total_steps, "train: the schedule ends at step ", plan_.total_steps);
  if (!loader_) start_loader();
  Batch batch = loader_->next();
  started_[step_] = {step_, {}, std::move(batch.bad), batch.samples};
  const StepPlan now = plan_.at(config_, step_);
  auto finished = renders_on_device() ? runner_.start(batch.images, rendering(), now)
                                                    : runner_.start(micro_batches(batch), now);
  loader_->recycle(std::move(batch));
  ++step_;
  return tell(std::move(finished));
}

std::optional<Trainer::Finished> Trainer::finish() { return tell(runner_.finish()); }

StepReport Trainer::train_step() {
  const std::optional<Finished> now = advance(), later = finish();
  return (later ? later : now)->report;
}

void Trainer::save(const std::string& path, int64_t step) { save_checkpoint(path, state(), step, recorded_config(config_)); }

void Trainer::load(const std::string& path) {
  finish();
  step_ = load_checkpoint(path, state());
  check<FormatError>(step_ <= plan_.total_steps, path, ": is at step ", step_, ", beyond the ", plan_.total_steps,
                     " steps of this run; use more --epochs");
  loader_.reset();
}

}  // namespace dino
