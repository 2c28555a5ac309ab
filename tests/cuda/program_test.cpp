#include <cstring>
#include <nlohmann/json.hpp>

#include "kernels/cuda_memory.h"
#include "tests/augment/fixtures.h"
#include "tests/train/run_folder.h"

using namespace dino;
using dino::testing::Folder;
using dino::testing::run_program;

// The program itself, on the GPU, as a user calls it.
namespace {

std::vector<nlohmann::json> lines_of(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(dino::testing::read_file(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

std::string train_command(const Folder& folder, const std::string& run, const std::string& more) {
  return "train --data " + folder / "images" + " --out " + folder / run +
         " --arch vit_tiny --patch-size 8 --embed-dim 64 --depth 2 --heads 1 --global-crops-size 32 --local-crops-size 16"
         " --local-crops-number 2 --out-dim 32 --head-hidden-dim 32 --head-bottleneck-dim 16 --batch-size 4 --epochs 3"
         " --warmup-epochs 1 --log-every 1 --num-workers 1 --threads 1 " + more;
}

/// Trains on the images of the folder in f32, into the folders cpu and cuda of it, and compares losses step by step.
void check_same_losses(const Folder& folder) {
  for (const std::string device : {"cpu", "cuda"}) {
    const auto result = run_program(train_command(folder, device, "--precision f32 --device " + device));
    INFO(result.err);
    REQUIRE(result.code == 0);
  }
  const auto cpu = lines_of(folder / "cpu/log.jsonl"), gpu = lines_of(folder / "cuda/log.jsonl");
  REQUIRE(cpu.size() == 6);
  REQUIRE(gpu.size() == cpu.size());
  for (size_t i = 0; i < cpu.size(); ++i) {
    CHECK(gpu[i]["step"] == i);
    CHECK(std::abs(gpu[i]["loss"].get<double>() - cpu[i]["loss"].get<double>()) < 1e-3);
  }
}

}  // namespace

TEST_CASE("dino_engine trains the same on the GPU as on the CPU, and its weights give the same features") {
  Folder folder;
  dino::testing::make_images(folder, 8);
  check_same_losses(folder);
  std::vector<nlohmann::json> scores;
  for (const std::string device : {"cpu", "cuda"}) {
    const auto result = run_program("eval knn --weights " + folder / "cuda/checkpoint.safetensors" + " --train " +
                                                folder / "images" + " --val " + folder / "images" + " --nb-knn 3 --json --device " + device);
    INFO(result.err);
    REQUIRE(result.code == 0);
    scores.push_back(nlohmann::json::parse(result.out));
  }
  CHECK(scores[0]["k"] == scores[1]["k"]);
}

TEST_CASE("a network with the tanh form of GELU trains on the GPU, and its checkpoint says so to whoever computes features") {
  Folder folder;
  dino::testing::make_images(folder, 8);
  const auto trained = run_program(train_command(folder, "run", "--gelu tanh --lr 0.1 --epochs 2 --precision f32 --device cuda"));
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  std::vector<std::vector<float>> features;
  for (const std::string how : {"--device cpu", "--device cuda", "--device cuda --gelu erf"}) {
    const auto result = run_program("features --weights " + folder / "run/checkpoint.safetensors" + " --data " + folder / "images" +
                                    " --out " + folder / "f.npy" + " " + how);
    INFO(result.err);
    REQUIRE(result.code == 0);
    CHECK((result.err.find("gelu by tanh") != std::string::npos) == (how.find("erf") == std::string::npos));
    const std::string file = dino::testing::read_file(folder / "f.npy");
    std::vector<float> values(8 * 64);
    REQUIRE(file.size() > values.size() * sizeof(float));
    std::memcpy(values.data(), file.data() + file.size() - values.size() * sizeof(float), values.size() * sizeof(float));
    features.push_back(values);
  }
  const auto distance = [&](size_t a, size_t b) {
    float furthest = 0;
    for (size_t i = 0; i < features[a].size(); ++i) furthest = std::max(furthest, std::abs(features[a][i] - features[b][i]));
    return furthest;
  };
  INFO("cpu and cuda " << distance(0, 1) << ", tanh and erf " << distance(1, 2));
  CHECK(distance(0, 1) < 5e-6f);
  CHECK(distance(1, 2) > 2e-5f);
}

TEST_CASE("dino_engine trains in bf16 on the GPU and goes on after an interruption") {
  Folder folder;
  dino::testing::make_images(folder, 8);
  for (const std::string more : {"--steps 3", ""}) {
    const auto result = run_program(train_command(folder, "run", "--device cuda --precision bf16 " + more));
    INFO(result.err);
    REQUIRE(result.code == 0);
  }
  const auto lines = lines_of(folder / "run/log.jsonl");
  REQUIRE(lines.size() == 6);
  for (const auto& line : lines) CHECK(std::isfinite(line["loss"].get<double>()));
}

TEST_CASE("images of five channels and floats, whose crops are made on the CPU, train the same on the GPU as on the CPU") {
  Folder folder;
  std::filesystem::create_directories(folder / "images");
  for (int i = 0; i < 8; ++i) {
    const auto bytes = fixtures::npy(fixtures::wide_pattern(40, 44, 5, SampleType::float32, i));
    std::ofstream(folder / "images/" + std::to_string(i) + ".npy", std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  check_same_losses(folder);
}

TEST_CASE("--replay repeats a step of a run on the GPU, healthy or not, with the loss that it had") {
  Folder folder;
  dino::testing::make_images(folder, 8);
  const auto replayed = [&](const std::string& run, int64_t step) {
    const auto result = run_program("train --out " + folder / run + " --replay " + std::to_string(step) + " --json");
    INFO(result.err);
    REQUIRE(result.code == 0);
    return nlohmann::json::parse(result.out);
  };
  for (const std::string precision : {"f32", "bf16"}) {
    INFO(precision);
    REQUIRE(run_program(train_command(folder, precision, "--device cuda --precision " + precision)).code == 0);
    const auto record = replayed(precision, 3);
    CHECK(record["loss"] == lines_of(folder / precision + "/log.jsonl")[3]["loss"]);
    CHECK(record["healthy"] == true);
  }
  // Finite for a while, then no longer.
  const auto result = run_program(train_command(folder, "bad", "--device cuda --precision f32 --lr 1e15 --clip-grad 0 --optimizer sgd"));
  INFO(result.err);
  REQUIRE(result.code == 4);
  const auto bad = nlohmann::json::parse(dino::testing::read_file(folder / "bad/bad_step.json"));
  const auto record = replayed("bad", bad["step"]);
  CHECK(record["loss"] == bad["loss"]);
  CHECK(record["healthy"] == false);
  CHECK(record.contains("first_not_finite"));
}

TEST_CASE("dino_engine info names the GPU, and says when it is emulated") {
  Folder folder;
  const auto result = run_program("info --json");
  REQUIRE(result.code == 0);
  const auto info = nlohmann::json::parse(result.out);
  REQUIRE(info["devices"].size() >= 2);
  CHECK(info["devices"][1].get<std::string>().starts_with("cuda: "));
  CHECK((info["cuda"].get<std::string>().find("emulated") != std::string::npos) == cuda::emulated());
}
