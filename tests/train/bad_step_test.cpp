#include <nlohmann/json.hpp>

#include "tests/train/process.h"
#include "train/bad_step.h"

using namespace dino;
using testing::Folder;
using testing::Outcome;
using nlohmann::json;

namespace {

json parsed(const std::string& path) { return json::parse(testing::read_file(path)); }

/// The fields of line `step` of a run's log.
json log_line(const std::string& run, int64_t step) {
  std::istringstream lines(testing::read_file(run + "/log.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (const json fields = json::parse(line); fields["step"] == step) return fields;
  return {};
}

/// `train --replay` as JSON, with the run's folder untouched.
json replayed(const std::string& run, int64_t step, const std::string& more = "") {
  const auto before = testing::contents_of(run);
  const Outcome outcome = testing::run_program("train --out " + run + " --replay " + std::to_string(step) + " --json" + more);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  CHECK(testing::contents_of(run) == before);
  return json::parse(outcome.out);
}

/// What was not finite, in the order of the step.
std::vector<std::string> not_finite(const json& record) {
  std::vector<std::string> names;
  for (const json& range : record["values"])
    if (range["not_finite"] > 0) names.push_back(range["what"]);
  return names;
}

}  // namespace

TEST_CASE("a run that diverges keeps its bad step, and --replay repeats that step bit for bit") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run";
  // Finite for a while, then no longer: the first steps of the warm-up hardly move anything.
  const std::string train = testing::small_arguments(images, run) + " --precision f32 --lr 1e15 --clip-grad 0 --optimizer sgd --epochs 6 --warmup-epochs 1";
  const Outcome outcome = testing::run_program(train);
  INFO(outcome.err);
  REQUIRE(outcome.code == 4);
  const json bad = parsed(run + "/bad_step.json");
  const int64_t step = bad["step"];
  CHECK(step >= 1);
  CHECK_THAT(testing::error_line(outcome), Catch::Contains("step " + std::to_string(step)) && Catch::Contains("train --out " + run + " --replay " + std::to_string(step)));
  // Which images, by which random numbers, with which rates.
  REQUIRE(bad["samples"].size() == 4);
  for (const json& sample : bad["samples"]) CHECK(testing::fs::exists(sample["path"].get<std::string>()));
  CHECK(bad["random"]["step"] == step);
  CHECK(bad["random"]["first_position"] == step / 3 * 12 + step % 3 * 4);
  CHECK(bad["lr"].get<double>() > 0);
  CHECK(bad["replay"] == "dino_engine train --out " + run + " --replay " + std::to_string(step));
  CHECK(bad["gradients_not_finite"].size() + bad["parameters_not_finite"].size() + bad["loss"].is_string() > 0);

  const json record = replayed(run, step);
  CHECK(record["from"]["step"] == step);
  CHECK(record["loss"] == bad["loss"]);
  CHECK(record["healthy"] == false);
  CHECK(record["lr"] == bad["lr"]);
  const std::vector<std::string> names = not_finite(record);
  REQUIRE_FALSE(names.empty());
  CHECK(record["first_not_finite"] == names.front());
  // The gradients that were not finite then are those that are not finite now, wherever their norms can tell.
  for (const json& name : bad["gradients_not_finite"]) {
    INFO(name);
    const auto range = std::find_if(record["values"].begin(), record["values"].end(), [&](const json& r) { return r["what"] == "gradient of " + name.get<std::string>(); });
    REQUIRE(range != record["values"].end());
    CHECK(((*range)["not_finite"] > 0 || (*range)["norm"].is_null() || (*range)["norm"].get<double>() > 1e19));
  }
  // Without the state before it, the run is repeated from its beginning or an older checkpoint, and ends up at the same.
  testing::fs::remove(run + "/bad_step.safetensors");
  const json again = replayed(run, step);
  CHECK(again["from"]["step"].get<int64_t>() < step);
  CHECK(again["loss"] == record["loss"]);
  CHECK(again["values"] == record["values"]);
  // The table says the same in words.
  const Outcome table = testing::run_program("train --out " + run + " --replay " + std::to_string(step));
  CHECK(table.code == 0);
  CHECK_THAT(table.out, Catch::Contains("the first that is not finite: " + names.front()));
}

TEST_CASE("--replay repeats a healthy step of a run, and its loss is that of the log") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run";
  const std::string precision = GENERATE("f32", "bf16");
  const std::string more = precision == "f32" ? " --accumulate 2 --use-bn-in-head false" : " --use-bn-in-head true --drop-path-rate 0.3";
  REQUIRE(testing::run_program(testing::small_arguments(images, run) + " --saveckp-freq 1 --precision " + precision + more).code == 0);
  const auto repeat = [&](int64_t step, int64_t from) {
    INFO(precision << " step " << step);
    const json record = replayed(run, step);
    CHECK(record["loss"] == log_line(run, step)["loss"]);
    CHECK(record["lr"] == log_line(run, step)["lr"]);
    CHECK(record["from"]["step"] == from);
    CHECK(record["healthy"] == true);
    CHECK(not_finite(record).empty());
    CHECK_FALSE(record.contains("first_not_finite"));
    std::vector<std::string> what;
    for (const json& range : record["values"]) what.push_back(range["what"]);
    for (const char* name : {"global crops", "local crops", "teacher features", "teacher logits", "targets", "student features", "student logits", "loss",
                             "gradient of backbone.cls_token", "gradient of head.last_layer.weight_v"})
      CHECK(std::find(what.begin(), what.end(), name) != what.end());
    // All of the batch was seen: 2 global crops of 16 x 16 pixels of each of 4 images.
    CHECK(record["values"][0]["count"] == 2 * 4 * 16 * 16 * 3);
  };
  // Checkpoints are kept after each of the three epochs of three steps.
  repeat(0, 0);
  repeat(4, 3);
  repeat(6, 6);
  repeat(8, 6);
  const Outcome beyond = testing::run_program("train --out " + run + " --replay 9");
  CHECK(beyond.code == 2);
  CHECK_THAT(testing::error_line(beyond), Catch::Contains("--replay 9") && Catch::Contains("9 steps"));
}

TEST_CASE("--replay of no run, or of one whose images moved, says what is missing") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run";
  const auto refused = [&](const std::string& arguments, int code, const std::string& message) {
    const Outcome outcome = testing::run_program("train " + arguments);
    INFO(outcome.err);
    CHECK(outcome.code == code);
    CHECK_THAT(testing::error_line(outcome), Catch::Contains(message));
  };
  refused("--replay 3", 2, "--out");
  refused("--out " + run + " --replay 3", 2, "config.json");
  CHECK_FALSE(testing::fs::exists(run));
  REQUIRE(testing::run_program(testing::small_arguments(images, run) + " --steps 2").code == 0);
  testing::fs::rename(images, folder / "moved");
  refused("--out " + run + " --replay 1", 3, images);
  CHECK(replayed(run, 1, " --data " + (folder / "moved"))["loss"] == log_line(run, 1)["loss"]);
}

TEST_CASE("a run that may skip bad steps goes on after one, and describes it") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run";
  const Outcome outcome = testing::run_program(testing::small_arguments(images, run) +
                                               " --precision f32 --lr 1e15 --clip-grad 0 --optimizer sgd --epochs 6 --warmup-epochs 1 --max-bad-steps 1000");
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.err, Catch::Contains("bad_step.json"));
  const json bad = parsed(run + "/bad_step.json");
  CHECK(replayed(run, bad["step"])["loss"] == bad["loss"]);
}
