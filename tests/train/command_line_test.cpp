#include <nlohmann/json.hpp>

#include "kernels/linear_products.h"
#include "tests/train/run_folder.h"

using namespace dino;
using testing::Folder;
using testing::run_program;

namespace {

/// The one line that an error is.
void check_fails(const std::string& arguments, int code, const std::string& message) {
  INFO(arguments);
  const testing::Outcome outcome = run_program(arguments);
  CHECK(outcome.code == code);
  CHECK_THAT(outcome.err, Catch::Contains(message));
  const size_t line = outcome.err.rfind("dino_engine: ");
  REQUIRE(line != std::string::npos);
  CHECK(outcome.err.find('\n', line) == outcome.err.size() - 1);
  CHECK(outcome.out.empty());
}

/// Whether --dump-config printed this option with this value from this source.
bool shows(const std::string& dump, const std::string& name, const std::string& value, const std::string& source) {
  std::istringstream lines(dump);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word[3];
    words >> word[0] >> word[1] >> word[2];
    if (word[0] == name) return word[1] == value && word[2] == source;
  }
  return false;
}

}  // namespace

TEST_CASE("wrong use ends with exit code 2 and one line that says what to do") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run";
  const std::string good = testing::small_arguments(images, run);
  check_fails("", 2, "subcommand");
  check_fails("trian", 2, "train");
  check_fails("train --out " + run, 2, "--data");
  check_fails(good + " --epoch 3", 2, "did you mean --epochs");
  check_fails(good + " --arch vit_smal", 2, "did you mean vit_small");
  check_fails(good + " --epochs many", 2, "--epochs many is not a number");
  check_fails(good + " --centering perhaps", 2, "--centering");
  check_fails(good + " --batch-size 100", 2, "--batch-size 12");
  check_fails(good + " --warmup-epochs 9", 2, "--warmup-epochs");
  check_fails(good + " --teacher-temp 0", 2, "--teacher-temp");
  check_fails(good + " --patch-size 12", 2, "--local-crops-size 8 is smaller");
  check_fails(good + " --loss hinge", 2, "known: ce, mse");
  check_fails(good + " --device cuda", 2, "--device cpu");
  check_fails(good + " --embed-dim 25", 2, "--heads");
  check_fails(good + " --config " + (folder / "none.json"), 2, "none.json");
  check_fails(good + " --init " + (folder / "none.pth"), 2, "none.pth");
  check_fails(good + " --config " + folder.path.string(), 2, "cannot be read as a file of options");
  for (const char* threads : {"-1", "1000000"}) {
    check_fails(good + " --threads " + threads, 2, "between 0 and 4096");
    check_fails(std::string("eval knn --arch pixels --train ") + images + " --val " + images + " --threads " + threads, 2, "4096");
  }
}

TEST_CASE("missing and empty data end with exit code 3") {
  const Folder folder;
  testing::fs::create_directories(folder.path / "empty");
  check_fails(testing::small_arguments(folder / "missing", folder / "run"), 3, "missing");
  check_fails(testing::small_arguments(folder / "empty", folder / "run"), 3, "empty");
}

TEST_CASE("flags of the reference implementation, underscores and truth values are understood") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  const auto outcome = run_program("train --data_path " + images + " --output_dir " + (folder / "run") +
                                   " --arch deit_tiny --patch_size 4 --embed-dim 24 --heads 3 --depth 1 --batch_size_per_gpu 4 --epochs 1"
                                   " --warmup_epochs 0 --out_dim=16 --norm_last_layer FALSE --use_bn_in_head off --local_crops_number 1"
                                   " --global_crops_scale 0.5 1 --local_crops_scale 0.1 0.5 --global-crops-size 16 --local-crops-size 8"
                                   " --head-hidden-dim 16 --head-bottleneck-dim 8 --saveckp_freq 1 --num_workers 1 --predictor --dump-config");
  CHECK(outcome.code == 0);
  CHECK(shows(outcome.out, "out-dim", "16", "flag"));
  CHECK(shows(outcome.out, "norm-last-layer", "false", "flag"));
  CHECK(shows(outcome.out, "predictor", "true", "flag"));
  CHECK(shows(outcome.out, "global-crops-scale", "\"0.5,1\"", "flag"));
  CHECK(shows(outcome.out, "teacher-temp", "0.04", "default"));
}

TEST_CASE("a run's own config.json repeats the run") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  REQUIRE(run_program(testing::small_arguments(images, folder / "first") + " --seed 7 --blur-sigma 0.2 0.9").code == 0);
  REQUIRE(run_program("train --config " + (folder / "first/config.json") + " --out " + (folder / "second")).code == 0);
  CHECK(testing::read_file(folder / "first/checkpoint.safetensors") == testing::read_file(folder / "second/checkpoint.safetensors"));
  CHECK(testing::read_file(folder / "first/log.jsonl") == testing::read_file(folder / "second/log.jsonl"));
}

TEST_CASE("precision auto is bf16 for transformers where the processor multiplies it, and stays what it was for a run that goes on") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  const auto precision_of_run = [&](const std::string& run, const std::string& more) {
    const auto outcome = run_program(testing::small_arguments(images, folder / run) + " --device cpu --epochs 1 --warmup-epochs 0 " + more);
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    return nlohmann::json::parse(testing::read_file(folder / run + "/config.json"))["precision"].get<std::string>();
  };
  CHECK(precision_of_run("transformer", "") == (multiplies_bf16_natively() ? "bf16" : "f32"));
  CHECK(precision_of_run("convolutions", "--arch conv_small --embed-dim 0 --depth 0 --heads 0") == "f32");
  CHECK(precision_of_run("named", "--steps 1 --precision f32") == "f32");
  CHECK(precision_of_run("named", "") == "f32");
  CHECK(precision_of_run("other", "--steps 1 --precision bf16") == "bf16");
  CHECK(precision_of_run("other", "") == "bf16");
}

TEST_CASE("a run goes on with another option than before, and names it") {
  const Folder folder;
  const std::string run = testing::small_arguments(testing::make_images(folder, 12), folder / "run");
  REQUIRE(run_program(run + " --steps 1").code == 0);
  const auto outcome = run_program(run + " --steps 2 --fast-decode");
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.err, Catch::Contains("going on at step 1"));
  CHECK_THAT(outcome.err, Catch::Contains("--fast-decode is now true; it was false"));
  std::ifstream config(folder / "run/config.json");
  CHECK(nlohmann::json::parse(config)["fast-decode"] == true);
}

TEST_CASE("a run leaves what the contract names") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  const auto outcome = run_program(testing::small_arguments(images, folder / "run") + " --saveckp-freq 1 --keep 2 --val " + images);
  REQUIRE(outcome.code == 0);
  CHECK(outcome.out.empty());
  for (const char* file : {"checkpoint.safetensors", "config.json", "log.jsonl", "checkpoint0001.safetensors", "checkpoint0002.safetensors"})
    CHECK(testing::fs::exists(folder.path / "run" / file));
  CHECK_FALSE(testing::fs::exists(folder.path / "run" / "checkpoint0000.safetensors"));
  std::ifstream log(folder / "run/log.jsonl");
  int lines = 0, scores = 0;
  for (std::string line; std::getline(log, line); ++lines) {
    const auto json = nlohmann::json::parse(line);
    CHECK(json["step"] == lines);
    for (const char* field : {"epoch", "loss", "lr", "wd", "momentum", "teacher_temp", "teacher_entropy", "kl"}) CHECK(json.contains(field));
    scores += json.contains("knn_top1");
  }
  CHECK(lines == 9);
  CHECK(scores == 3);
}

TEST_CASE("a checkpoint of other dimensions is refused and kept") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  REQUIRE(run_program(testing::small_arguments(images, folder / "run") + " --steps 1").code == 0);
  const std::string before = testing::read_file(folder / "run/checkpoint.safetensors");
  check_fails(testing::small_arguments(images, folder / "run") + " --out-dim 48", 2, "choose another --out");
  CHECK(testing::read_file(folder / "run/checkpoint.safetensors") == before);
}

TEST_CASE("an unreadable image is replaced and named") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  std::ofstream(images + "/class0/broken.ppm") << "P6 nonsense";
  const auto outcome = run_program(testing::small_arguments(images, folder / "run"));
  CHECK(outcome.code == 0);
  // Said and listed once, though each epoch meets it.
  const size_t said = outcome.err.find("broken.ppm");
  REQUIRE(said != std::string::npos);
  CHECK(outcome.err.find("broken.ppm", outcome.err.find('\n', said)) == std::string::npos);
  std::istringstream list(testing::read_file(folder / "run/bad_images.txt"));
  int lines = 0;
  for (std::string line; std::getline(list, line); ++lines) CHECK_THAT(line, Catch::Contains("broken.ppm"));
  CHECK(lines == 1);
}

TEST_CASE("too many unreadable images end a run with exit code 3 and its state saved, and more may be allowed") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 8), run = testing::small_arguments(images, folder / "run");
  for (const char* name : {"a", "b"}) std::ofstream(images + "/class0/" + name + ".ppm") << "P6 nonsense";
  const auto refused = run_program(run);
  CHECK(refused.code == 3);
  CHECK_THAT(refused.err, Catch::Contains("bad_images.txt lists 2 images") && Catch::Contains("--max-bad-fraction"));
  CHECK(testing::fs::exists(folder / "run/checkpoint.safetensors"));
  CHECK(run_program(run + " --max-bad-fraction 0.2").code == 0);
}
