#include "train/memory_plan.h"

namespace dino {

MemoryPlan plan_memory(const TrainConfig& config) {
  Placement placement = dino::placement(config);
  placement.device = Device::plan;
  Context context(1, Device::plan);
  Network student(network_config(config), placement, config.seed, /*gradients=*/true);
  Teacher teacher(network_config(config), teacher_kind(config), placement, config.seed);
  DinoLoss loss(context, loss_config(config), config.out_dim, placement.dtype);
  Optimizer optimizer(context, optimizer_config(config), student.parameters());

  const AugmentConfig& augment = config.augment;
  const int64_t images = config.batch_size / config.accumulate;
  const auto crops = [&](int64_t count, int64_t size) {
    return context.tensor({placement.dtype, Shape{count * images, size, size, config.channels}});
  };
  std::vector<Crops> micro_batches;
  for (int64_t first = 0; first < config.batch_size; first += images) {
    Crops part{crops(2, augment.global_crops_size), {}, {.images = images, .batch = config.batch_size, .first = first}};
    if (augment.local_crops_number > 0) part.locals = crops(augment.local_crops_number, augment.local_crops_size);
    micro_batches.push_back(std::move(part));
  }
  context.constant(1 / static_cast<double>(config.accumulate), placement.dtype, Device::plan);

  Arena step(Device::plan);
  context.use_arena(&step);
  StepPlan plan;
  plan.with_statistics = true;
  const StepResult result = train_step({context, student, teacher, loss, optimizer}, micro_batches, plan);
  context.use_arena(nullptr);
  std::vector<Tensor> mailbox;  // the copy of the results that the host reads
  for (const Tensor* part : result.all())
    if (part->defined()) mailbox.push_back(context.tensor(part->spec()));
  return {student.parameters().bytes() + teacher.network().parameters().bytes(), context.arena().used_bytes(), step.peak_bytes()};
}

}  // namespace dino
