#include "train/session.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/atomic_file.h"
#include "train/bad_images.h"
#include "train/bad_step.h"
#include "train/doctor.h"
#include "train/feature_drift.h"
#include "train/image_settings.h"
#include "train/information.h"
#include "train/json_text.h"
#include "train/limits.h"
#include "train/log.h"
#include "train/memory_plan.h"
#include "train/options.h"
#include "train/preflight.h"
#include "train/progress.h"
#include "train/signals.h"
#include "train/tensorboard.h"
#include "train/validation.h"

namespace dino {
namespace fs = std::filesystem;
namespace {

/// Makes the run's folder, or throws UsageError if a run cannot write in it.
void make_run_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  check<UsageError>(!error, "--out ", shown_value(path), ": cannot be made: ", error.message());
  for (const char* file : {"checkpoint.safetensors", "config.json", "machine.json", "log.jsonl"}) {
    try {
      check_writable((fs::path(path) / file).string());
    } catch (const UsageError& problem) {
      throw UsageError(str("--out ", path, ": ", problem.what()));
    }
  }
}

/// Throws UsageError if `path` is no folder and cannot become one, before anybody waits for the data.
void check_run_folder(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  const bool missing = error == std::errc::no_such_file_or_directory;
  check<UsageError>(!path.empty() && (missing || !error), "--out ", shown_value(path),
                    ": cannot be a folder: ", path.empty() ? "its name is missing" : error.message());
  check<UsageError>(missing || fs::is_directory(status), "--out ", path, ": is a file; give a folder");
}

/// The configuration that an earlier session wrote to `path`; empty if there was none.
nlohmann::json options_before(const std::string& path) {
  auto before = json_in(path);
  return before.is_object() ? before : nlohmann::json::object();
}

/// `config` with --precision auto decided, once for the whole run: as the session before it did, if there was one.
TrainConfig with_precision(TrainConfig config) {
  if (config.precision != "auto") return config;
  const auto before = options_before((fs::path(config.out) / "config.json").string());
  const auto precision = before.find("precision");
  config.precision = precision != before.end() && precision->is_string() ? precision->get<std::string>() : chosen_precision(config);
  if (config.precision == "bf16")
    std::fprintf(stderr, "precision: matmuls and activations in bf16, weights and loss in f32 (--precision f32 for everything in f32)\n");
  return config;
}

Patient patient(const TrainConfig& config, Trainer& trainer) {
  return {.prototypes = config.out_dim,
          .images = config.batch_size,
          .feature_dim = feature_dim(trainer.teacher().network().backbone()),
          .warmup_steps = trainer.plan().lr.warmup_steps,
          .student_temp = config.student_temp,
          .centering = config.centering,
          .sinkhorn = config.sinkhorn > 0,
          .predictor = config.predictor};
}

class Session {
 public:
  Session(const TrainConfig& config, const Dataset& dataset)
      : config_(config),
        dataset_(dataset),
        trainer_(config, dataset),
        bad_images_((fs::path(config.out) / "bad_images.txt").string(), dataset.size()),
        doctor_(patient(config, trainer_)) {
    const fs::path out = config.out;
    checkpoint_ = (out / "checkpoint.safetensors").string();
    validation_ = make_validation(config_, dataset);
    if (!config.init.empty())
      drift_.emplace(trainer_, dataset);  // a trainer begins with --init, before it goes on
    std::error_code unknown;
    if (fs::exists(checkpoint_, unknown)) {
      trainer_.load(checkpoint_);
      std::fprintf(stderr, trainer_.finished() ? "%s: finished at step %ld; more --epochs would go on\n" : "%s: going on at step %ld\n",
                   checkpoint_.c_str(), static_cast<long>(trainer_.step()));
      warn_about_changes((out / "config.json").string());
    }
    make_run_folder(config.out);  // now that nothing is wrong with the rest
    TrainConfig shown = config;
    write_file((out / "config.json").string(),
               {bytes_of_text(json_text(to_json(options_of(shown)), 2) + "\n")});
    write_file((out / "machine.json").string(), {bytes_of_text(json_text(build_and_machine(), 2) + "\n")});
    log_.emplace((out / "log.jsonl").string(), trainer_.step());
    if (config.tensorboard && !trainer_.finished()) tensorboard_.emplace(config.out, trainer_.step());
    for (const nlohmann::json& line : log_->lines()) diagnosis_ = doctor_.examine(signs_of(line));
    for (const nlohmann::json& line : log_->lines()) best_score_ = std::max(best_score_, score_in(line));
  }

  int run(bool every_step) {
    const RunPlan& plan = trainer_.plan();
    SignalGuard signals;
    ProgressLine progress(trainer_.step(), plan.last_step, config_.epochs, config_.batch_size, std::log(static_cast<double>(config_.out_dim)), every_step);
    while (!trainer_.finished()) {
      const StepPlan plan_of_step = plan.at(config_, trainer_.step());
      if (const auto done = advance()) take(*done, progress);
      const bool stop = signals.received() != 0 || must_stop();
      // What looks at the state waits for the step.
      if (stop || plan_of_step.last_of_epoch || trainer_.finished() || checkpoint_due())
        if (const auto done = trainer_.finish()) take(*done, progress);
      save_if_due(plan_of_step);
      if (must_stop()) stop_collapsed();
      if (stop) {
        trainer_.save(checkpoint_);
        progress.say(str("stopped by signal ", signals.received(), " after step ", trainer_.step(), "; saved to ", checkpoint_,
                         "; the same command goes on from there"));
        return exit_code_of(signals.received());
      }
    }
    return 0;
  }

  /// Says what the run needed.
  void report_memory() const {
    std::fprintf(stderr, "memory: at most %s of activations; %s of the whole process on the host\n", size_text(trainer_.peak_bytes()).c_str(),
                 size_text(peak_of_process()).c_str());
  }

 private:
  /// One more step. Data that cannot be read any more end the run with its state saved.
  std::optional<Trainer::Finished> advance() {
    try {
      return trainer_.advance();
    } catch (const DataError& error) {
      if (trainer_.step() == 0) throw;
      trainer_.save(checkpoint_);
      throw DataError(str(error.what(), "; the state is in ", checkpoint_));
    }
  }

  /// Names the options that differ from those of the session before.
  void warn_about_changes(const std::string& path) const {
    const auto before = options_before(path);
    TrainConfig shown = config_;
    const auto now = to_json(options_of(shown));
    for (const auto& [name, value] : now.items())
      if (before.contains(name) && before[name] != value)
        std::fprintf(stderr, "--%s is now %s; it was %s\n", name.c_str(), json_text(value).c_str(),
                     json_text(before[name]).c_str());
  }

  /// Logs and shows a step that is done.
  void take(const Trainer::Finished& done, ProgressLine& progress) {
    for (const std::string& line : done.bad_images)
      if (bad_images_.add(line)) progress.say(line);
    stop_if_data_is_bad();
    const std::optional<Trainer::Finished> next = done.report.healthy ? std::nullopt : take_bad_step(done, progress);
    if (done.report.healthy) bad_steps_ = 0;
    const StepPlan plan = trainer_.plan().at(config_, done.step);
    const bool logged = plan.with_statistics || plan.last_of_epoch;
    if (logged) log(done, plan, progress);
    progress.show(done.step, trainer_.plan().epoch_of(done.step + 1), done.report, plan.scalars.learning_rate,
                  trainer_.seconds_waited(), logged, name_of(diagnosis_.verdict));
    if (next) take(*next, progress);
  }

  bool must_stop() const { return diagnosis_.verdict == Verdict::collapsing && stops_on_collapse(config_); }

  [[noreturn]] void stop_collapsed() {
    trainer_.save(checkpoint_);
    throw DivergedError(str("training collapses at step ", trainer_.step(), ": ", diagnosis_.reason, "; the state is in ", checkpoint_,
                            ", and --on-collapse warn goes on from there"));
  }

  /// Adds the verdict on the run so far to `line`, and says when it changes.
  void diagnose(nlohmann::json& line, ProgressLine& progress) {
    const Diagnosis before = std::exchange(diagnosis_, doctor_.examine(signs_of(line)));
    const std::string verdict(name_of(diagnosis_.verdict));
    if (diagnosis_.verdict != Verdict::none) line["verdict"] = verdict;
    if (!diagnosis_.reason.empty()) line["reason"] = diagnosis_.reason;
    const bool news = before.verdict != diagnosis_.verdict && std::max(before.verdict, diagnosis_.verdict) > Verdict::healthy;
    if (news) progress.say(str("step ", line["step"].get<int64_t>(), ": ", verdict, diagnosis_.reason.empty() ? "" : ": ", diagnosis_.reason));
  }

  void stop_if_data_is_bad() {
    if (bad_images_.share() <= config_.max_bad_fraction) return;
    trainer_.save(checkpoint_);
    throw DataError(str(bad_images_.path(), " lists ", bad_images_.count(), " images that could not be read, more than the share of ",
                        config_.max_bad_fraction, " that --max-bad-fraction allows; the state is in ", checkpoint_,
                        "; mend or remove the images and delete the list, or allow a larger share, to go on from there"));
  }

  /// Keeps what `train --replay` needs of the first of bad steps, and ends the run after too many. Returns the step after it, if a GPU had
  /// begun that.
  std::optional<Trainer::Finished> take_bad_step(const Trainer::Finished& bad, ProgressLine& progress) {
    const int64_t step = bad.step;
    progress.say(str("step ", step, ": loss or a gradient is not finite (loss ", bad.report.loss, "); the step changed nothing"));
    std::optional<Trainer::Finished> next = trainer_.finish();
    if (bad_steps_++ == 0) keep_bad_step(bad, !next || !next->report.healthy, progress);
    if (bad_steps_ > config_.max_bad_steps) {
      trainer_.save(checkpoint_);
      throw DivergedError(str("training diverged: step ", step, " has a non-finite loss or gradient, and dino_engine train --out ", config_.out, " --replay ", step,
                              " shows where; the state without it is in ", checkpoint_, "; a smaller --lr or longer --warmup-epochs may help"));
    }
    return next;
  }

  /// A run that cannot tell more of a bad step ends as it would have.
  void keep_bad_step(const Trainer::Finished& bad, bool unchanged, ProgressLine& progress) {
    try {
      write_bad_step(trainer_, dataset_, bad, unchanged);
      progress.say(str("step ", bad.step, " is described in ", (fs::path(config_.out) / kBadStepFile).string()));
    } catch (const Error& error) {
      progress.say(error.what());
    }
  }

  void log(const Trainer::Finished& done, const StepPlan& plan, ProgressLine& progress) {
    const int64_t step = done.step;
    const StepReport& report = done.report;
    nlohmann::json line = {{"step", step},
                           {"epoch", trainer_.plan().epoch_of(step + 1)},
                           {"loss", report.loss},
                           {"lr", plan.scalars.learning_rate},
                           {"wd", plan.scalars.weight_decay},
                           {"momentum", plan.scalars.teacher_momentum},
                           {"teacher_temp", plan.scalars.teacher_temp},
                           {"bad_images", done.bad_images.size()}};
    const double half_life = teacher_half_life(trainer_.teacher().kind(), plan.scalars.teacher_momentum);
    const std::pair<const char*, double> signs[] = {
        {"teacher_entropy", report.teacher_entropy},
        {"kl", report.loss - report.teacher_entropy},
        {"loss_over_ln_out_dim", report.loss / std::log(static_cast<double>(config_.out_dim))},
        {"marginal_entropy", report.marginal_entropy},
        {"prototypes_used", report.prototypes_used},
        {"center_norm", report.center_norm},
        {"feature_std", report.features.deviation},
        {"effective_rank", report.features.effective_rank},
        {"teacher_half_life_steps", half_life},
        {"teacher_half_life_epochs", half_life / static_cast<double>(trainer_.plan().steps_per_epoch)}};
    for (const auto& [name, value] : signs)
      if (std::isfinite(value)) line[name] = value;
    const auto epoch = (step + 1) / trainer_.plan().steps_per_epoch;
    const bool due = plan.last_of_epoch && epoch % std::max<int64_t>(1, config_.eval_every) == 0;
    if (validation_ && (due || trainer_.finished())) evaluate(line, progress);
    if (drift_ && (due || trainer_.finished())) {
      const double similarity = drift_->similarity(trainer_);
      if (std::isfinite(similarity)) line["feature_similarity_to_init"] = similarity;
    }
    diagnose(line, progress);
    log_->write(line);
    if (tensorboard_) tensorboard_->write(line);
  }

  /// The score in a line of the log, or -1.
  double score_in(const nlohmann::json& line) const {
    const auto found = validation_ ? line.find(validation_->name()) : line.end();
    return found != line.end() && found->is_number() ? found->get<double>() : -1;
  }

  /// Adds the score to `line`, and keeps the state if there was no better one.
  void evaluate(nlohmann::json& line, ProgressLine& progress) {
    const double score = validation_->score(trainer_);
    line[validation_->name()] = score;
    const bool best = score > best_score_;
    char text[128];
    std::snprintf(text, sizeof text, "%s after step %ld: %.2f%s", validation_->title(), static_cast<long>(trainer_.step()), score,
                  best ? ", the best so far" : "");
    progress.say(text);
    if (!best) return;
    best_score_ = score;
    trainer_.save((fs::path(config_.out) / "best.safetensors").string());
  }

  bool checkpoint_due() const {
    return config_.checkpoint_every_steps > 0 && trainer_.step() % config_.checkpoint_every_steps == 0;
  }

  void save_if_due(const StepPlan& done) {
    const int64_t step = trainer_.step();
    const bool epoch = config_.checkpoint_every_steps <= 0 && done.last_of_epoch;
    if (trainer_.finished() || epoch || checkpoint_due()) trainer_.save(checkpoint_);
    const int64_t ended = step / trainer_.plan().steps_per_epoch - 1;  // 0-based, of the epoch that just ended
    if (!done.last_of_epoch || config_.saveckp_freq <= 0 || ended % config_.saveckp_freq != 0) return;
    trainer_.save(kept_checkpoint(ended));
    remove_old(ended);
  }

  /// Name of the checkpoint that is kept after `epoch`, with the reference's four digits.
  std::string kept_checkpoint(int64_t epoch) const {
    const std::string number = std::to_string(epoch);
    return (fs::path(config_.out) / ("checkpoint" + std::string(4 - std::min<size_t>(4, number.size()), '0') + number + ".safetensors")).string();
  }

  /// Removes kept checkpoints beyond the newest `keep`.
  void remove_old(int64_t epoch) const {
    if (config_.keep <= 0) return;
    for (int64_t old = epoch - config_.keep * config_.saveckp_freq; old >= 0; old -= config_.saveckp_freq) {
      std::error_code ignored;
      fs::remove(kept_checkpoint(old), ignored);
    }
  }

  const TrainConfig config_;
  const Dataset& dataset_;
  Trainer trainer_;
  BadImages bad_images_;
  std::string checkpoint_;
  std::optional<StepLog> log_;
  std::optional<TensorBoardLog> tensorboard_;
  Doctor doctor_;
  Diagnosis diagnosis_;
  std::unique_ptr<Validation> validation_;
  double best_score_ = -1;  ///< of validation_, in this run
  std::optional<FeatureDrift> drift_;  ///< with --init only
  int64_t bad_steps_ = 0;
};

}  // namespace

int run_session(const TrainConfig& asked, bool every_step) {
  check_config(asked);
  check_run_folder(asked.out);
  TrainConfig config = with_precision(asked);
  const std::unique_ptr<Dataset> dataset = open_settled(config);
  std::fprintf(stderr, "%zu images in %s\n", dataset->size(), config.data.c_str());
  const RunPlan plan(config, static_cast<int64_t>(dataset->size()));
  preflight(config, *dataset, plan);
  Session session(config, *dataset);
  const int exit_code = session.run(every_step);
  session.report_memory();
  return exit_code;
}

}  // namespace dino
