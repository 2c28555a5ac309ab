#include "train/step_runner.h"

#include <cstdio>
#include <cstring>

namespace dino {
namespace {

size_t bytes_of_tensor(const Tensor& tensor) {
  return tensor.defined() ? static_cast<size_t>(tensor.shape().count()) * bytes_of(tensor.dtype()) : 0;
}

/// Parts of a transfer start at multiples of this.
size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

/// Calls f(tensor) for the globals and the locals of all micro-batches.
template <class AnyCrops, class F>
void for_tensors(AnyCrops&& micro_batches, const F& f) {
  for (auto& crops : micro_batches) {
    f(crops.globals);
    if (crops.locals.defined()) f(crops.locals);
  }
}

/// Tensors of the types and shapes of `result`, one after the other in `memory`, which they keep.
StepResult parts_of(const Tensor& memory, const StepResult& result) {
  StepResult parts;
  const auto owner = std::make_shared<Tensor>(memory);
  auto* begin = static_cast<std::byte*>(memory.view().data);
  for (size_t i = 0; i < result.all().size(); ++i) {
    const Tensor& part = *result.all()[i];
    if (!part.defined()) continue;
    *parts.all()[i] = Tensor(View(begin, part.dtype(), part.shape(), 0, memory.device()), owner);
    begin += aligned(bytes_of_tensor(part));
  }
  return parts;
}

}  // namespace

StepRunner::StepRunner(TrainingState state, size_t planned_bytes)
    : state_(state), bytes_before_(state.context.arena().used_bytes()) {
  Context& context = state_.context;
  if (context.device() == Device::cpu) return;
  memory_ = std::make_unique<Arena>(Device::cuda, planned_bytes);
  uploader_ = std::make_unique<CudaUploader>(context.cuda());
}

std::optional<StepRunner::Finished> StepRunner::start(std::span<const Crops> micro_batches, const StepPlan& plan) {
  Context& context = state_.context;
  const auto step = static_cast<int64_t>(plan.scalars.step);
  if (context.device() == Device::cpu) {
    context.set_step(plan.scalars);
    return Finished{step, read_report(train_step(state_, micro_batches, plan), static_cast<int64_t>(micro_batches.size()))};
  }
  upload(micro_batches);
  return start_on_gpu(plan);
}

std::optional<StepRunner::Finished> StepRunner::start(const CropBatch& images, const Rendering& rendering, const StepPlan& plan) {
  check(state_.context.device() == Device::cuda, "step: only a GPU renders crops");
  render(images, rendering);
  return start_on_gpu(plan);
}

std::optional<StepRunner::Finished> StepRunner::start_on_gpu(const StepPlan& plan) {
  Context& context = state_.context;
  const std::optional<Unread> before = collect();
  context.set_step(plan.scalars);
  const bool epoch_ends = plan.last_of_epoch && state_.teacher.kind() == TeacherKind::previous_epoch;
  run_on_gpu({plan.last_layer_frozen, plan.backbone_frozen, epoch_ends, plan.with_statistics}, plan);
  const Mailbox& mailbox = mailboxes_[plan.with_statistics];
  mailbox.readback->start(context.cuda(), mailbox.memory.view().data);
  pending_ = Pending{static_cast<int64_t>(plan.scalars.step), plan.with_statistics, static_cast<int64_t>(crops_.size())};
  // The host reads statistics while the GPU works.
  return before ? std::optional(before->read()) : std::nullopt;
}

std::optional<StepRunner::Finished> StepRunner::finish() {
  const std::optional<Unread> last = collect();
  return last ? std::optional(last->read()) : std::nullopt;
}

void StepRunner::post(const StepResult& result, Mailbox& mailbox) {
  Context& context = state_.context;
  if (!mailbox.readback) {  // in the first run, which is never recorded
    size_t bytes = 0;
    for (const Tensor* part : result.all()) bytes += aligned(bytes_of_tensor(*part));
    mailbox.memory = context.tensor({Dtype::f32, Shape{static_cast<int64_t>(bytes / sizeof(float))}});
    mailbox.result = parts_of(mailbox.memory, result);
    mailbox.readback = std::make_unique<CudaReadback>(bytes);
  }
  for (size_t i = 0; i < result.all().size(); ++i)
    if (const Tensor& part = *result.all()[i]; part.defined())
      context.cuda().copy(mailbox.result.all()[i]->view().data, part.view().data, bytes_of_tensor(part));
}

std::optional<StepRunner::Unread> StepRunner::collect() {
  if (!pending_) return std::nullopt;
  const Pending pending = *std::exchange(pending_, std::nullopt);
  const Mailbox& mailbox = mailboxes_[pending.with_statistics];
  const Tensor memory = state_.context.host_tensor(mailbox.memory.spec());
  std::memcpy(memory.view().data, mailbox.readback->wait(), bytes_of_tensor(memory));
  return Unread{pending.step, pending.micro_batches, parts_of(memory, mailbox.result)};
}

size_t StepRunner::peak_bytes() const {
  return memory_ ? memory_->peak_bytes() : state_.context.arena().peak_bytes() - bytes_before_;
}

void StepRunner::upload(std::span<const Crops> micro_batches) {
  Context& context = state_.context;
  size_t bytes = 0;
  for_tensors(micro_batches, [&](const Tensor& tensor) { bytes += aligned(bytes_of_tensor(tensor)); });
  std::byte* host = uploader_->begin(bytes);
  for_tensors(micro_batches, [&](const Tensor& tensor) {
    std::memcpy(host, tensor.view().data, bytes_of_tensor(tensor));
    host += aligned(bytes_of_tensor(tensor));
  });
  std::byte* device = uploader_->send(bytes);
  if (crops_.empty()) {
    crops_.assign(micro_batches.begin(), micro_batches.end());
    for_tensors(crops_, [&](Tensor& tensor) { tensor = context.tensor(tensor.spec()); });
  }
  check(crops_.size() == micro_batches.size(), "step: the number of micro-batches must not change");
  for_tensors(crops_, [&](const Tensor& tensor) {
    context.cuda().copy(tensor.view().data, device, bytes_of_tensor(tensor));
    device += aligned(bytes_of_tensor(tensor));
  });
}

void StepRunner::render(const CropBatch& images, const Rendering& r) {
  Context& context = state_.context;
  images.write(uploader_->begin(images.bytes()));
  const PackedCrops packed{uploader_->send(images.bytes()), r.batch};
  const auto tensor = [&](int64_t crops, int64_t size) {
    return context.tensor({Dtype::f32, Shape{crops * r.micro_batch, size, size, r.channels}});
  };
  const bool is_first = crops_.empty();
  for (int64_t first = 0; is_first && first < r.batch; first += r.micro_batch)
    crops_.push_back({tensor(2, r.global_size), r.local_crops > 0 ? tensor(r.local_crops, r.local_size) : Tensor(),
                      {.images = r.micro_batch, .batch = r.batch, .first = first}});
  for (const Crops& crops : crops_)
    render_crops(context.cuda(), packed, crops.images.first, r.scale, crops.globals.view(), crops.locals.view());
}

void StepRunner::run_eagerly(const StepPlan& plan) {
  Context& context = state_.context;
  const auto step = [&] {
    context.use_arena(memory_.get());
    struct Restore {
      Context& context;
      ~Restore() { context.use_arena(nullptr); }
    } restore{context};
    return train_step(state_, crops_, plan);
  };
  post(step(), mailboxes_[plan.with_statistics]);
}

void StepRunner::run_on_gpu(const Kind& kind, const StepPlan& plan) {
  if (state_.watch) return run_eagerly(plan);  // a graph shows nothing
  CudaStream& stream = state_.context.cuda();
  // The first run loads libraries and finds out how much scratch memory is needed, which cannot be recorded.
  const bool first = runs_[kind]++ == 0;
  if (!first && recording_works_ && !graphs_.contains(kind)) {
    try {
      graphs_[kind] = std::make_unique<CudaGraph>(stream, [&] { run_eagerly(plan); });
      kernels_per_step_ = graphs_[kind]->kernels();
      copies_per_step_ = graphs_[kind]->copies();
    } catch (const Error& error) {
      graphs_.erase(kind);
      recording_works_ = false;
      std::fprintf(stderr, "steps run without a recorded graph: %s\n", error.what());
    }
  }
  const auto graph = graphs_.find(kind);
  if (graph == graphs_.end()) return run_eagerly(plan);
  graph->second->launch(stream);
  // Recording said which copies are out of date after a step; a replay says nothing.
  if (state_.optimizer.config().kind != OptimizerConfig::Kind::adamw) state_.student.parameters().values_changed();
  if (state_.optimizer.config().kind != OptimizerConfig::Kind::adamw || !state_.teacher.averaged())
    state_.teacher.network().parameters().values_changed();
}

}  // namespace dino
