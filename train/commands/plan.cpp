#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <unistd.h>

#include "augment/scan_index.h"
#include "train/commands/commands.h"
#include "train/commands/train_request.h"
#include "train/image_settings.h"
#include "train/json_text.h"
#include "train/preflight.h"

namespace dino {
namespace {

using nlohmann::json;

constexpr int64_t kTimedSteps = 10;
constexpr size_t kShownPaths = 3;

/// Everything that `plan` finds out.
struct Preview {
  TrainConfig config;
  DataReport data;
  size_t remembered = 0;
  RunPlan plan;
  StateSize size;
  MemoryPlan memory;
  std::string memory_line;
  std::optional<Speed> speed;
  DiskNeed disk;
  uint64_t free = 0;

  double seconds() const { return speed ? speed->seconds_per_step * static_cast<double>(plan.last_step) : 0; }
};

/// How far a part of the work is, on one line of a terminal.
class Counter {
 public:
  explicit Counter(const char* what) : what_(what), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~Counter() {
    if (shown_) std::fprintf(stderr, "\r%*s\r", static_cast<int>(shown_), "");
  }
  void show(size_t done, size_t all) {
    if (terminal_) shown_ = static_cast<size_t>(std::max(0, std::fprintf(stderr, "\r%s %zu of %zu", what_, done, all)));
  }

 private:
  const char* what_;
  bool terminal_;
  size_t shown_ = 0;
};

Scan scan_with_index(const TrainConfig& config, const Dataset& dataset) {
  Counter counter("images looked at:");
  const Scan found = scan(dataset, {.kind = dataset.kind(),
                                    .workers = static_cast<int>(config.num_workers),
                                    .index = scan_index_path(config.data),
                                    .source = config.data,
                                    .progress = [&](size_t done, size_t all) { counter.show(done, all); }});
  if (!found.index_problem.empty()) std::fprintf(stderr, "the next plan will read all images again: %s\n", found.index_problem.c_str());
  return found;
}

Preview preview(TrainConfig config, bool with_timing) {
  check_config(config);
  const std::unique_ptr<Dataset> dataset = open_settled(config);
  // What cannot be is refused before anybody waits for the images.
  Preview view{.config = config,
               .data = {},
               .plan = RunPlan(config, static_cast<int64_t>(dataset->size())),
               .size = state_size(config),
               .memory = plan_memory(config),
               .memory_line = {},
               .speed = {},
               .disk = {}};
  view.memory_line = memory_text(config, view.memory);
  view.disk = disk_need(config, view.plan, view.size.checkpoint);
  view.free = free_bytes_at(config.out);
  check_disk(config, view.disk, view.free);
  const Scan found = scan_with_index(config, *dataset);
  view.remembered = found.remembered;
  view.data = summarize(*dataset, found, config.augment.local_crops_size, dataset->kind());
  if (!with_timing || view.data.readable == 0) return view;
  Counter counter("steps taken:");
  view.speed = measure_speed(config, *dataset, kTimedSteps,
                             [&](int64_t done, int64_t all) { counter.show(static_cast<size_t>(done), static_cast<size_t>(all)); });
  return view;
}

json spread_json(const Spread& spread) { return {{"min", spread.least}, {"median", spread.median}, {"max", spread.most}}; }

json remarks_json(const std::vector<DataReport::Remark>& remarks, const char* second) {
  json list = json::array();
  for (const auto& [path, remark] : remarks) list.push_back({{"path", path}, {second, remark}});
  return list;
}

json data_json(const Preview& view) {
  const DataReport& data = view.data;
  json classes = json::object();
  for (const auto& [name, count] : data.classes) classes[name] = count;
  return {{"path", view.config.data},
          {"images", data.images},
          {"readable", data.readable},
          {"remembered", view.remembered},
          {"bytes", data.bytes},
          {"classes", classes},
          {"unlabelled", data.unlabelled},
          {"width", spread_json(data.width)},
          {"height", spread_json(data.height)},
          {"formats", data.formats},
          {"kinds", data.kinds},
          {"unreadable", remarks_json(data.unreadable, "reason")},
          {"tiny", remarks_json(data.tiny, "size")},
          {"duplicates", data.duplicates},
          {"odd", data.odd}};
}

json as_json(const Preview& view) {
  TrainConfig shown = view.config;
  json all = {
      {"data", data_json(view)},
      {"configuration", to_json(options_of(shown))},
      {"network", {{"backbone_parameters", view.size.backbone}, {"head_parameters", view.size.head}}},
      {"schedule", {{"steps_per_epoch", view.plan.steps_per_epoch}, {"steps", view.plan.last_step}, {"schedule_steps", view.plan.total_steps}}},
      {"memory",
       {{"bytes", view.memory.total()},
        {"parameters", view.memory.parameters},
        {"optimizer", view.memory.state},
        {"crops", view.memory.crops},
        {"activations", view.memory.step + view.memory.gaps},
        {"process", view.memory.process},
        {"process_peak", peak_of_process()}}},
      {"disk",
       {{"bytes", view.disk.total},
        {"present", view.disk.present},
        {"missing", view.disk.missing()},
        {"checkpoint", view.disk.checkpoint},
        {"checkpoints", view.disk.checkpoints},
        {"log", view.disk.log},
        {"free", view.free}}}};
  if (view.speed)
    all["time"] = {{"steps_timed", view.speed->steps},
                   {"seconds_per_step", view.speed->seconds_per_step},
                   {"images_per_second", view.speed->images_per_second},
                   {"waiting_for_data", view.speed->waiting},
                   {"seconds", view.seconds()}};
  return all;
}

std::string duration_text(double seconds) {
  char text[64];
  if (seconds < 120)
    std::snprintf(text, sizeof text, "%.0f s", seconds);
  else if (seconds < 7200)
    std::snprintf(text, sizeof text, "%.0f min", seconds / 60);
  else if (seconds < 48 * 3600)
    std::snprintf(text, sizeof text, "%.1f h", seconds / 3600);
  else
    std::snprintf(text, sizeof text, "%.1f days", seconds / 86400);
  return text;
}

std::string spread_text(const char* name, const Spread& spread) {
  return spread.least == spread.most ? str(name, " ", spread.least)
                                     : str(name, " ", spread.least, " to ", spread.most, " (median ", spread.median, ")");
}

template <class Counts>
std::string counts_text(const Counts& counts) {
  std::string text;
  for (const auto& [name, count] : counts) text += str(text.empty() ? "" : ", ", name, " ", count);
  return text;
}

/// The heading in a column of its own, before the first line only.
void print(const char* heading, const std::string& text) { std::printf("%-14s %s\n", heading, text.c_str()); }

void print_paths(const char* heading, size_t count, const std::vector<std::string>& lines) {
  print(heading, str(count));
  for (size_t i = 0; i < std::min(kShownPaths, lines.size()); ++i) print("", str("  ", lines[i]));
  if (lines.size() > kShownPaths) print("", str("  and ", lines.size() - kShownPaths, " more (--json lists all)"));
}

std::string classes_text(const DataReport& data) {
  if (data.classes.empty()) return "no labels";
  std::vector<int64_t> counts;
  for (const auto& [name, count] : data.classes) counts.push_back(static_cast<int64_t>(count));
  const Spread spread = spread_of(counts);
  return str(data.classes.size(), " classes with ", spread.least, " to ", spread.most, " images",
             data.unlabelled ? str(", ", data.unlabelled, " without") : std::string());
}

void print_data(const Preview& view) {
  const DataReport& data = view.data;
  print("data", str(view.config.data, ": ", data.images, " images, ", size_text(data.bytes), "; ", classes_text(data),
                    view.remembered ? str("; ", view.remembered, " unchanged since the last plan, not read again") : std::string()));
  if (data.readable > 0)
    print("", str(spread_text("width", data.width), ", ", spread_text("height", data.height), "; ", counts_text(data.formats), "; ",
                  counts_text(data.kinds)));
  if (data.kinds.size() == 1 && data.kinds.begin()->first == "gray" && view.config.channels == 3)
    print("", "all images are gray: --channels 1 would do");
  std::vector<std::string> unreadable, tiny, copies;
  for (const auto& [path, reason] : data.unreadable) unreadable.push_back(reason);
  for (const auto& [path, size] : data.tiny) tiny.push_back(str(path, ": ", size));
  for (const auto& group : data.duplicates)
    for (size_t i = 1; i < group.size(); ++i) copies.push_back(str(group[i], " = ", group.front()));
  if (!unreadable.empty()) print_paths("  unreadable", unreadable.size(), unreadable);
  if (!tiny.empty()) print_paths(str("  below ", view.config.augment.local_crops_size).c_str(), tiny.size(), tiny);
  if (!copies.empty()) print_paths("  copies", copies.size(), copies);
  for (const auto& [kind, names] : data.odd) {
    std::vector<std::string> odd;
    for (const std::string& name : names) odd.push_back(str(name, ": ", kind));
    print_paths("  odd", odd.size(), odd);
  }
}

void print_run(const Preview& view) {
  const TrainConfig& config = view.config;
  const AugmentConfig& augment = config.augment;
  char text[160];
  std::snprintf(text, sizeof text, "%s, %.2f million parameters; head with %ld prototypes, %.2f million", config.arch.c_str(),
                static_cast<double>(view.size.backbone) / 1e6, static_cast<long>(config.out_dim), static_cast<double>(view.size.head) / 1e6);
  print("network", text);
  print("crops", str("2 of ", augment.global_crops_size, " pixels, ", augment.local_crops_number, " of ", augment.local_crops_size, "; ",
                     config.channels, " channels"));
  print("schedule",
        str(config.epochs, " epochs of ", view.plan.steps_per_epoch, " steps of ", config.batch_size, " images: ", view.plan.total_steps, " steps",
            view.plan.last_step < view.plan.total_steps ? str(", ends at ", view.plan.last_step, " (--steps)") : std::string()));
  print("memory", view.memory_line);
  if (view.speed) {
    print("", str("this process took ", size_text(peak_of_process()), " on the host at most, in ", view.speed->steps, " steps"));
    std::snprintf(text, sizeof text, "%.1f images/s, %.3g s a step (%ld timed, %.0f %% of it waiting for data): about %s",
                  view.speed->images_per_second, view.speed->seconds_per_step, static_cast<long>(view.speed->steps), 100 * view.speed->waiting,
                  duration_text(view.seconds()).c_str());
    print("time", str(text, config.val.empty() && config.eval_every == 0 ? "" : ", scores not counted"));
  }
  print("disk", str(size_text(view.disk.missing()), " of the free ", size_text(view.free), ": at most ", view.disk.checkpoints, " checkpoints of ",
                    size_text(view.disk.checkpoint), " at one time, log ", size_text(view.disk.log)));
}

/// Throws for data that would end the run.
void refuse_bad_data(const Preview& view) {
  const DataReport& data = view.data;
  check<DataError>(data.readable > 0, view.config.data, ": none of ", data.images, " images can be read");
  const double share = static_cast<double>(data.unreadable.size()) / static_cast<double>(data.images);
  check<DataError>(share <= view.config.max_bad_fraction, view.config.data, ": ", data.unreadable.size(), " of ", data.images,
                   " images cannot be read, which is more than --max-bad-fraction ", view.config.max_bad_fraction, "; --max-bad-fraction ",
                   std::ceil(share * 1000) / 1000, " would do");
}

}  // namespace

void add_plan_command(CLI::App& parent) {
  auto* command =
      parent.add_subcommand("plan", "Look before a run: what is in the data, memory, time, disk. Takes the options of train and writes nothing");
  auto request = std::make_shared<TrainRequest>();
  auto json_wanted = std::make_shared<bool>(false);
  auto no_timing = std::make_shared<bool>(false);
  command->add_flag("--json", *json_wanted, "one JSON object, with all paths")->group("Plan");
  command->add_flag("--no-timing", *no_timing, "take no steps to see how long they take")->group("Plan");
  request->add_to(*command);
  command->callback([request, json_wanted, no_timing] {
    request->resolve();
    const Preview view = preview(request->config, !*no_timing);
    if (*json_wanted) {
      std::printf("%s\n", json_text(as_json(view)).c_str());
    } else {
      print_data(view);
      print_run(view);
    }
    refuse_bad_data(view);
  });
}

}  // namespace dino
