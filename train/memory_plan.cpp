#include "train/memory_plan.h"

#include <fstream>
#include <sstream>
#include <string>

#include "augment/loader.h"

namespace dino {
namespace {

/// Micro-batches as a step takes them, with tensors from `arena`.
std::vector<Crops> planned_crops(Arena& arena, const TrainConfig& config, Dtype dtype) {
  const AugmentConfig& augment = config.augment;
  const int64_t images = config.batch_size / config.accumulate;
  const auto crops = [&](int64_t count, int64_t size) {
    return allocate(arena, {dtype, Shape{count * images, size, size, config.channels}});
  };
  std::vector<Crops> micro_batches;
  for (int64_t first = 0; first < config.batch_size; first += images) {
    Crops part{crops(2, augment.global_crops_size), {}, {.images = images, .batch = config.batch_size, .first = first}};
    if (augment.local_crops_number > 0) part.locals = crops(augment.local_crops_number, augment.local_crops_size);
    micro_batches.push_back(std::move(part));
  }
  return micro_batches;
}

/// What comes with the first steps besides tensors: pages of libraries, code that oneDNN makes, heaps of threads. Measured with
/// oneDNN 2.6: 14 to 18 MiB with transformers, up to 26 MiB with convolutions of large batches.
constexpr size_t kPagesToCome = size_t{16} << 20;

/// A line of what the system says about this process, in bytes.
size_t bytes_of_status(std::string_view name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(name)) continue;
    size_t kib = 0;
    std::istringstream(line.substr(name.size())) >> kib;
    return kib << 10;
  }
  return 0;
}

}  // namespace

MemoryPlan plan_memory(const TrainConfig& config) {
  Placement placement = dino::placement(config);
  const bool on_host = placement.device == Device::cpu;
  placement.device = Device::plan;
  Context context(1, Device::plan);
  Network student(network_config(config), placement, config.seed, /*gradients=*/true);
  Teacher teacher(network_config(config), teacher_kind(config), placement, config.seed);
  DinoLoss loss(context, loss_config(config), config.out_dim, placement.dtype);
  Optimizer optimizer(context, optimizer_config(config), student.parameters());
  MemoryPlan memory;
  if (on_host) memory.process = memory_of_process() + kPagesToCome;
  memory.parameters = student.parameters().bytes() + teacher.network().parameters().bytes();
  memory.state = context.arena().used_bytes();

  // On the host, a step reads whole batches in f32 where the loader made them, and takes its memory where the state lies.
  Arena loader(Device::plan), apart(Device::plan);
  const std::vector<Crops> batch = planned_crops(loader, config, Dtype::f32);
  const bool as_loaded = on_host && config.accumulate == 1 && placement.dtype == Dtype::f32;
  if (!on_host) context.constant(1 / static_cast<double>(config.accumulate), placement.dtype, Device::plan);
  StepPlan plan;
  plan.with_statistics = true;
  // What the first step leaves behind may lie in the way of the second; from then on all are alike.
  StepResult result;
  for (int step = 0; step < 2; ++step) {
    result = {};
    context.use_arena(nullptr);
    const size_t before = context.arena().used_bytes();
    const std::vector<Crops> micro_batches = as_loaded ? batch : planned_crops(context.arena(), config, placement.dtype);
    memory.crops = context.arena().used_bytes() - before;
    if (!on_host) context.use_arena(&apart);
    result = train_step({context, student, teacher, loss, optimizer}, micro_batches, plan);
  }
  const Arena& used = context.arena();
  if (on_host) memory.crops = static_cast<size_t>(LoaderConfig{}.queue + 1) * loader.used_bytes();
  memory.step = used.peak_bytes() - (on_host ? memory.state : 0);
  memory.gaps = used.extent_bytes() - used.peak_bytes();
  context.use_arena(nullptr);
  if (on_host) memory.scratch = context.planned_scratch();
  if (on_host) return memory;
  const size_t before = context.arena().used_bytes();
  std::vector<Tensor> mailbox;  // the copy of the results that the host reads
  for (const Tensor* part : result.all())
    if (part->defined()) mailbox.push_back(context.tensor(part->spec()));
  memory.state += context.arena().used_bytes() - before;
  return memory;
}

size_t memory_of_process() { return bytes_of_status("VmRSS:"); }
size_t peak_of_process() { return bytes_of_status("VmHWM:"); }

}  // namespace dino
