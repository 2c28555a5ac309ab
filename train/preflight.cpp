#include "train/preflight.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "kernels/cuda_memory.h"
#include "train/bad_step.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace dino {
namespace fs = std::filesystem;
namespace {

// Measured with log lines of all fields.
constexpr uint64_t kLogLineBytes = 650, kEventBytes = 900;
// Images that `train` looks at before it starts, and for how long at most.
constexpr size_t kSampledImages = 256;
constexpr double kSampleSeconds = 2;

uint64_t product(uint64_t bytes, int64_t count) {
  return static_cast<uint64_t>(std::min(static_cast<double>(bytes) * static_cast<double>(count), 4e18));
}

/// How many kept checkpoints exist at one time if the newest `keep` stay; 0: all.
int64_t kept_at_once(int64_t written, int64_t keep) { return keep > 0 ? std::min(written, keep + 1) : written; }

/// Whether an earlier session of the run may have written a file of this name.
bool written_by_a_run(const std::string& name) {
  return (name.starts_with("checkpoint") && name.ends_with(".safetensors")) || name == "best.safetensors" || name == "log.jsonl" || name == kBadStepFile || name == kBadStepState ||
         name.starts_with("events.out.tfevents");
}

uint64_t bytes_present(const std::string& folder) {
  std::error_code error;
  uint64_t bytes = 0;
  for (fs::directory_iterator file(folder, error), end; !error && file != end; file.increment(error)) {
    std::error_code unreadable;
    const uint64_t size = written_by_a_run(file->path().filename().string()) ? file->file_size(unreadable) : 0;
    if (!unreadable) bytes += size;
  }
  return bytes;
}

/// What would do for a run that has `room` bytes.
std::string disk_advice(const TrainConfig& config, const DiskNeed& need, uint64_t room) {
  if (need.log >= room) return str("a larger --log-every than ", config.log_every, ", or fewer --epochs");
  const auto fitting = static_cast<int64_t>((room - need.log) / std::max<uint64_t>(1, need.checkpoint));
  const int64_t kept = std::min(need.kept, fitting - (need.checkpoints - need.kept));
  // There is one more than --keep says while the newest is written.
  if (kept >= 2) return str("--keep ", kept - 1, " would do, or a larger --saveckp-freq than ", config.saveckp_freq);
  if (need.kept > 0 && kept >= 0) return "--saveckp-freq 0 would do (no checkpoints beside the newest)";
  return str("a smaller --out-dim than ", config.out_dim, " makes smaller checkpoints");
}

/// Bytes that the host has of `what`, a line of /proc/meminfo; 0 if it does not tell.
uint64_t memory_of_host(const std::string& what) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(what + ":")) continue;
    uint64_t kib = 0;
    std::istringstream(line.substr(what.size() + 1)) >> kib;
    return kib << 10;
  }
  return 0;
}

std::string share_text(size_t part, size_t all) { return str(part, " of ", all); }

}  // namespace

std::string size_text(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  if (mib < 1) return str(std::ceil(mib * 1024), " KiB");
  return mib < 1024 ? str(std::round(mib), " MiB") : str(std::round(mib / 1024 * 100) / 100, " GiB");
}

StateSize state_size(const TrainConfig& config) {
  Placement placement = dino::placement(config);
  placement.device = Device::plan;
  Context context(1, Device::plan);
  Network student(network_config(config), placement, config.seed, /*gradients=*/true);
  Teacher teacher(network_config(config), teacher_kind(config), placement, config.seed);
  DinoLoss loss(context, loss_config(config), config.out_dim, placement.dtype);
  Optimizer optimizer(context, optimizer_config(config), student.parameters());
  StateSize size{.checkpoint = checkpoint_bytes({context, student, teacher, loss, optimizer})};
  for (const ParameterStore::Entry& entry : student.parameters().entries()) {
    if (entry.buffer) continue;
    (entry.name.starts_with("backbone.") ? size.backbone : size.head) += entry.shape.count();
  }
  return size;
}

uint64_t DiskNeed::missing() const { return std::max(total > present ? total - present : 0, checkpoint); }

DiskNeed disk_need(const TrainConfig& config, const RunPlan& plan, uint64_t checkpoint_bytes) {
  DiskNeed need{.checkpoint = checkpoint_bytes};
  const int64_t epochs = plan.last_step / plan.steps_per_epoch;
  if (config.saveckp_freq > 0) need.kept = kept_at_once((epochs + config.saveckp_freq - 1) / config.saveckp_freq, config.keep);
  const bool scored = !config.val.empty() || config.eval_every > 0;
  need.checkpoints = need.kept + (scored ? 3 : 2);
  need.log = product(kLogLineBytes + (config.tensorboard ? kEventBytes : 0), plan.last_step / config.log_every + epochs + 1);
  need.total = product(need.checkpoint, need.checkpoints) + need.log;
  need.present = bytes_present(config.out);
  return need;
}

uint64_t free_bytes_at(const std::string& folder) {
  std::error_code error;
  fs::path place = fs::absolute(folder, error);
  while (!fs::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  const fs::space_info space = fs::space(place, error);
  return error ? std::numeric_limits<uint64_t>::max() : space.available;
}

void check_disk(const TrainConfig& config, const DiskNeed& need, uint64_t free) {
  if (need.missing() <= free) return;
  const std::string present = need.present ? str("; ", size_text(need.present), " are there already") : "";
  throw UsageError(str("--out ", config.out, ": the run will write ", size_text(need.missing()), " (", need.checkpoints, " checkpoints of ",
                       size_text(need.checkpoint), " at one time, log ", size_text(need.log), present, "), but ", size_text(free),
                       " are free; ", disk_advice(config, need, free + need.present), ", or an --out on another disk"));
}

std::string memory_text(const TrainConfig& config, const MemoryPlan& plan) {
  const std::string parts =
      str("parameters and gradients ", size_text(plan.parameters), ", optimizer ", size_text(plan.state), ", crops ", size_text(plan.crops),
          ", activations ", size_text(plan.step + plan.gaps), plan.scratch ? str(", inside of ops ", size_text(plan.scratch)) : std::string(), plan.process ? str(", program and data ", size_text(plan.process)) : std::string());
  if (placement(config).device == Device::cpu) {
    const uint64_t all = memory_of_host("MemTotal") + memory_of_host("SwapTotal"),
                   available = memory_of_host("MemAvailable");
    const bool scarce = available > 0 && plan.total() > available;
    const char* less = config.recompute || !is_transformer(config.arch) ? "" : " or --recompute";
    check<UsageError>(all == 0 || plan.total() <= all, "--batch-size ", config.batch_size, ", --out-dim ",
                      config.out_dim, " and --arch ", config.arch, " as it is need ", size_text(plan.total()),
                      ", which is more than all the memory of this host, ", size_text(all),
                      "; a smaller network or --batch-size", less, " needs less");
    return str(size_text(plan.total()), ": ", parts,
               scarce ? str("; only ", size_text(available), " are available: a smaller --batch-size", less, " needs less") : std::string());
  }
  const size_t free = cuda::free_bytes();
  const size_t fixed = plan.parameters, per_image = (plan.total() - fixed) / static_cast<size_t>(config.batch_size) + 1;
  check<UsageError>(plan.total() <= free, "--batch-size ", config.batch_size, " needs ", size_text(plan.total()), ", the GPU has ", size_text(free),
                    " free; --batch-size ", free > fixed ? (free - fixed) / per_image : 0, " or less may do, or --accumulate",
                    config.recompute || !is_transformer(config.arch) ? "" : ", or --recompute");
  return str(size_text(plan.total()), " of the GPU's free ", size_text(free), ": ", parts);
}

Speed measure_speed(const TrainConfig& config, const Dataset& dataset, int64_t steps,
                    const std::function<void(int64_t done, int64_t all)>& progress) {
  using Clock = std::chrono::steady_clock;
  constexpr double kMostSeconds = 120;
  // Until all batches are used that the loader made while nobody waited for them.
  const int64_t untimed = LoaderConfig{}.queue + 1;
  TrainConfig timed = config;
  timed.steps = 0;
  const RunPlan plan(config, static_cast<int64_t>(dataset.size()));
  timed.epochs = std::max(config.epochs, 1 + std::ceil(static_cast<double>(untimed + steps) / static_cast<double>(plan.steps_per_epoch)));
  // Steps in which the last layer is frozen do less, but are few.
  if (2 * config.freeze_last_layer < config.epochs) timed.freeze_last_layer = 0;
  Trainer trainer(timed, dataset);
  const auto take_steps = [&](int64_t before, int64_t count) {
    const auto start = Clock::now();
    double seconds = 0;
    int64_t taken = 0;
    while (taken < count && seconds < kMostSeconds) {
      progress(before + taken, untimed + steps);
      trainer.advance();
      ++taken;
      seconds = std::chrono::duration<double>(Clock::now() - start).count();
    }
    trainer.finish();
    return std::pair(taken, std::chrono::duration<double>(Clock::now() - start).count());
  };
  take_steps(0, untimed);
  const double waited = trainer.seconds_waited();
  const auto [taken, seconds] = take_steps(untimed, steps);
  const double per_step = seconds / static_cast<double>(taken);
  return {.steps = taken,
          .seconds_per_step = per_step,
          .waiting = (trainer.seconds_waited() - waited) / seconds,
          .images_per_second = static_cast<double>(config.batch_size) / per_step};
}

std::vector<std::string> data_warnings(const DataReport& report, const TrainConfig& config) {
  std::vector<std::string> lines;
  const size_t all = report.looked_at;
  if (!report.unreadable.empty())
    lines.push_back(str(share_text(report.unreadable.size(), all), " images cannot be read; others take their places, and bad_images.txt will list them"));
  if (!report.tiny.empty())
    lines.push_back(str(share_text(report.tiny.size(), all), " images are smaller than a local crop of ", config.augment.local_crops_size,
                        " pixels and would be enlarged, such as ", report.tiny.front().first, " (", report.tiny.front().second, ")"));
  if (!report.duplicates.empty())
    lines.push_back(str(share_text(report.copies(), all), " images are exact copies of others, such as ", report.duplicates.front().back(), " of ",
                        report.duplicates.front().front()));
  for (const auto& [kind, names] : report.odd)
    lines.push_back(str(share_text(names.size(), all), " images are ", kind, " and will be read as ", config.channels == 1 ? "gray" : "colour",
                        " of 8 bits, such as ", names.front()));
  return lines;
}

void preflight(const TrainConfig& config, const Dataset& dataset, const RunPlan& plan) {
  std::error_code unknown;
  const bool goes_on = fs::exists(fs::path(config.out) / "checkpoint.safetensors", unknown);
  if (!goes_on) {
    const Scan sample = scan(dataset, {.kind = dataset.kind(),
                                       .workers = static_cast<int>(config.num_workers),
                                       .max_images = kSampledImages,
                                       .max_seconds = kSampleSeconds});
    const DataReport report = summarize(dataset, sample, config.augment.local_crops_size, dataset.kind());
    check<DataError>(report.readable > 0 || report.looked_at < dataset.size(), config.data, ": none of ", dataset.size(),
                     " images can be read; the first: ", report.unreadable.empty() ? "" : report.unreadable.front().second);
    const std::string sampled = report.looked_at < dataset.size() ? str(" (of a sample; dino_engine plan looks at all ", dataset.size(), ")") : "";
    for (const std::string& line : data_warnings(report, config)) std::fprintf(stderr, "data: %s%s\n", line.c_str(), sampled.c_str());
  }
  std::fprintf(stderr, "memory: %s\n", memory_text(config, plan_memory(config)).c_str());
  const DiskNeed need = disk_need(config, plan, state_size(config).checkpoint);
  check_disk(config, need, free_bytes_at(config.out));
}

}  // namespace dino
