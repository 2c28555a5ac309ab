#include "train/replay.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "train/bad_step.h"
#include "train/checkpoint.h"
#include "train/image_settings.h"
#include "train/json_text.h"

namespace dino {
namespace fs = std::filesystem;
namespace {

/// A checkpoint of the run that is not behind `step`, and the step that it goes on with.
struct Start {
  std::string path;
  int64_t step = 0;
};

Start newest_state(const std::string& folder, int64_t step) {
  Start best;
  std::error_code error;
  for (fs::directory_iterator file(folder, error), end; !error && file != end; file.increment(error)) {
    const std::string path = file->path().string();
    if (!path.ends_with(".safetensors")) continue;
    try {
      const int64_t at = checkpoint_step(path);
      if (at <= step && (at > best.step || (at == best.step && path < best.path))) best = {path, at};
    } catch (const Error&) {
      // No checkpoint, or a damaged one: another may do.
    }
  }
  return best;
}

/// What a watched step computes, with the image behind crops that are not finite.
class Recorder {
 public:
  Recorder(const TrainConfig& config, StepRecord& record) : images_(config.batch_size / config.accumulate), record_(record) {}

  void see(const std::string& what, const Tensor& values) {
    auto range = std::find_if(record_.ranges.begin(), record_.ranges.end(), [&](const ValueRange& r) { return r.what == what; });
    if (range == record_.ranges.end()) range = record_.ranges.insert(range, ValueRange{.what = what});
    const int64_t before = range->count, not_finite = range->not_finite;
    range->add(values);
    if (!what.ends_with("crops") || not_finite > 0 || range->not_finite == 0 || row_ >= 0) return;
    const int64_t per_crop = values.shape().count() / values.shape()[0];
    const int64_t crop = (range->first_not_finite - before) / per_crop;
    row_ = before / values.shape().count() * images_ + crop % images_;
  }
  /// The row of the batch whose crop was the first with a value that is not finite, or -1.
  int64_t row() const { return row_; }

 private:
  int64_t images_, row_ = -1;
  StepRecord& record_;
};

/// JSON knows no numbers that are not finite: they are null.
nlohmann::json number(double value) { return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr); }

/// The first that a step goes wrong with: values that are not finite, or a gradient of which no norm in f32 is; null if there is none.
const ValueRange* first_bad(const StepRecord& record) {
  constexpr double kLargestNorm = 1.8446743e19;  // whose square is a float
  for (const ValueRange& range : record.ranges)
    if (range.not_finite > 0) return &range;
  for (const ValueRange& range : record.ranges)
    if (!record.outcome.report.healthy && range.norm() > kLargestNorm) return &range;
  return nullptr;
}

nlohmann::json as_json(const StepRecord& record) {
  nlohmann::json values = nlohmann::json::array();
  for (const ValueRange& range : record.ranges) {
    nlohmann::json one = {{"what", range.what}, {"count", range.count}, {"min", number(range.min)}, {"max", number(range.max)}, {"norm", number(range.norm())},
                          {"not_finite", range.not_finite}};
    if (range.not_finite > 0) one["first_not_finite"] = range.first_not_finite;
    values.push_back(std::move(one));
  }
  nlohmann::json all = to_json(record.plan);
  all["step"] = record.step;
  all["from"] = {{"state", record.state}, {"step", record.start}};
  all["loss"] = loss_json(record.outcome.report.loss);
  all["healthy"] = record.outcome.report.healthy;
  all["values"] = std::move(values);
  if (const ValueRange* first = first_bad(record)) all["first_not_finite"] = first->what;
  if (!record.first_image.empty()) all["image"] = record.first_image;
  return all;
}

void print(const StepRecord& record) {
  const StepScalars& scalars = record.plan.scalars;
  std::printf("step %ld, repeated from step %ld (%s)\n", static_cast<long>(record.step), static_cast<long>(record.start),
              record.state.empty() ? "the beginning of the run" : record.state.c_str());
  std::printf("lr %.6g, weight decay %.6g, teacher momentum %.6g, teacher temperature %.6g, seed %llu\n\n", scalars.learning_rate, scalars.weight_decay,
              scalars.teacher_momentum, scalars.teacher_temp, static_cast<unsigned long long>(scalars.seed));
  size_t width = 4;
  for (const ValueRange& range : record.ranges) width = std::max(width, range.what.size());
  const int column = static_cast<int>(width);
  std::printf("%-*s %13s %13s %13s  not finite\n", column, "", "min", "max", "norm");
  for (const ValueRange& range : record.ranges) {
    if (range.not_finite < range.count) std::printf("%-*s %13.6g %13.6g %13.6g  ", column, range.what.c_str(), range.min, range.max, range.norm());
    else std::printf("%-*s %13s %13s %13s  ", column, range.what.c_str(), "-", "-", "-");
    if (range.not_finite == 0) std::printf("-\n");
    else
      std::printf("%ld of %ld, first at %ld\n", static_cast<long>(range.not_finite), static_cast<long>(range.count), static_cast<long>(range.first_not_finite));
  }
  const nlohmann::json loss = loss_json(record.outcome.report.loss);
  std::printf("\nloss %s\n", loss.is_string() ? loss.get<std::string>().c_str() : loss.dump().c_str());
  const ValueRange* first = first_bad(record);
  if (first)
    std::printf("the first that is not finite: %s%s%s%s\n", first->not_finite > 0 ? "" : "the norm of ", first->what.c_str(), record.first_image.empty() ? "" : ", of ", record.first_image.c_str());
  else
    std::printf("all values are finite\n");
}

}  // namespace

void ValueRange::add(const Tensor& values) {
  constexpr int64_t kAtOnce = int64_t{1} << 20;
  const int64_t all = values.shape().count();
  const Tensor flat = values.detached().reshaped(Shape{all});
  for (int64_t begin = 0; begin < all; begin += kAtOnce)
    for (const double value : values_of(flat.rows(begin, std::min(all, begin + kAtOnce)))) {
      if (std::isfinite(value)) {
        min = std::min(min, value);
        max = std::max(max, value);
        sum_of_squares += value * value;
      } else if (not_finite++ == 0) {
        first_not_finite = count;
      }
      ++count;
    }
}

double ValueRange::norm() const { return std::sqrt(sum_of_squares); }

StepRecord replay(const TrainConfig& asked, int64_t step) {
  TrainConfig config = asked;
  const std::unique_ptr<Dataset> dataset = open_settled(config);
  Trainer trainer(config, *dataset);
  check<UsageError>(step < trainer.plan().total_steps, "--replay ", step, ": the run has ", trainer.plan().total_steps,
                    " steps, and the first is 0; use a smaller number");
  const Start start = newest_state(config.out, step);
  if (!start.path.empty()) trainer.load(start.path);
  StepRecord record{.step = step, .start = trainer.step(), .state = start.path, .plan = trainer.plan().at(config, step), .outcome = {}, .ranges = {}, .first_image = {}};
  std::fprintf(stderr, "%s: %ld steps to repeat before step %ld\n", start.path.empty() ? config.out.c_str() : start.path.c_str(),
               static_cast<long>(step - record.start), static_cast<long>(step));
  while (trainer.step() < step) trainer.advance();
  trainer.finish();
  Recorder recorder(config, record);
  const StepWatch watch = [&](const std::string& what, const Tensor& values) { recorder.see(what, values); };
  trainer.watch(&watch);
  const std::optional<Trainer::Finished> now = trainer.advance(), later = trainer.finish();
  record.outcome = *(later ? later : now);
  trainer.watch(nullptr);
  if (recorder.row() >= 0) record.first_image = dataset->name(record.outcome.samples.at(static_cast<size_t>(recorder.row())));
  return record;
}

void replay_step(const TrainConfig& config, int64_t step, bool json) {
  const StepRecord record = replay(config, step);
  if (json) std::printf("%s\n", json_text(as_json(record)).c_str());
  else print(record);
}

}  // namespace dino
