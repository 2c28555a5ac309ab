#include <nlohmann/json.hpp>
#include <random>

#include "tests/train/run_folder.h"

using namespace dino;
using testing::Folder;
using testing::run_program;

// Real runs that take seconds: what was done to them must be found, and nothing in those that are sound.
namespace {

/// 256 images of nine squares with random colours: every image can be told from every other one.
std::string make_blocks(const Folder& folder) {
  std::mt19937 random(1);
  const std::string path = folder / "blocks";
  testing::fs::create_directories(path);
  for (int i = 0; i < 256; ++i) {
    unsigned char colours[3][3][3];
    for (auto& row : colours)
      for (auto& square : row)
        for (auto& channel : square) channel = static_cast<unsigned char>(random() & 255);
    std::ofstream file(path + "/" + std::to_string(1000 + i) + ".ppm", std::ios::binary);
    file << "P6\n18 18\n255\n";
    for (int y = 0; y < 18; ++y)
      for (int x = 0; x < 18; ++x)
        for (const unsigned char channel : colours[y / 6][x / 6]) file.put(static_cast<char>(channel));
  }
  return path;
}

constexpr const char* kArchs[] = {"--arch conv_small --conv-widths 8,16,32",
                                  "--arch vit_tiny --patch-size 4 --embed-dim 32 --depth 2 --heads 2"};

std::string arguments(const std::string& data, const std::string& out, const std::string& arch) {
  return "train --data " + data + " --out " + out + " " + arch +
         " --global-crops-size 16 --local-crops-size 8 --local-crops-number 2 --global-crops-scale 0.5 1 --jitter-prob 0 --grayscale-prob 0"
         " --blur-prob-global1 0 --blur-prob-global2 0 --blur-prob-local 0 --solarize-prob 0 --out-dim 64 --head-hidden-dim 64"
         " --head-bottleneck-dim 16 --batch-size 32 --epochs 25 --lr 0.004 --warmup-epochs 3 --momentum-teacher 0.99"
         " --momentum-teacher-end 0.999 --log-every 10 --precision f32 --threads 1 --num-workers 1 ";
}

std::vector<nlohmann::json> log_of(const std::string& run) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(run + "/log.jsonl");
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// The lines with this verdict; all without one if `verdict` is empty.
std::vector<nlohmann::json> lines_with(const std::vector<nlohmann::json>& lines, const std::string& verdict) {
  std::vector<nlohmann::json> found;
  for (const auto& line : lines)
    if (line.value("verdict", "") == verdict) found.push_back(line);
  return found;
}

}  // namespace

TEST_CASE("sound runs are healthy in every line of the log from step 50 on") {
  const Folder folder;
  const std::string data = make_blocks(folder);
  for (const std::string arch : kArchs)
    for (const std::string method : {"--seed 1", "--seed 2 --sinkhorn 3"}) {
      INFO(arch << " " << method);
      const auto outcome = run_program(arguments(data, folder / "run", arch) + method);
      CHECK(outcome.code == 0);
      const auto lines = log_of(folder / "run");
      CHECK(lines_with(lines, "healthy").size() + lines_with(lines, "").size() == lines.size());
      for (const auto& line : lines) CHECK(line.contains("verdict") == (line["step"] >= 50));
      CHECK_THAT(outcome.err, Catch::Contains("[healthy]") && !Catch::Contains("watch"));
      for (const char* name : {"feature_std", "effective_rank", "teacher_half_life_steps", "teacher_half_life_epochs", "loss_over_ln_out_dim"})
        CHECK(lines.front().contains(name));
      CHECK(lines.front().contains("center_norm") == (method == "--seed 1"));
      testing::fs::remove_all(folder / "run");
    }
}

TEST_CASE("runs that are made to collapse are named within 200 steps, with the option that helps") {
  const Folder folder;
  const std::string data = make_blocks(folder);
  const std::pair<const char*, const char*> causes[] = {{"--centering off", "--centering on"},
                                                        {"--teacher-temp 1 --warmup-teacher-temp 1", "--teacher-temp"},
                                                        {"--teacher copy", "--momentum-teacher"}};
  for (const std::string arch : kArchs)
    for (const auto& [cause, help] : causes) {
      INFO(arch << " " << cause);
      const auto outcome = run_program(arguments(data, folder / "run", arch) + cause);
      CHECK(outcome.code == 0);
      const auto named = lines_with(log_of(folder / "run"), "collapsing");
      REQUIRE_FALSE(named.empty());
      CHECK_THAT(named.front()["reason"].get<std::string>(), Catch::Contains(help));
      CHECK_THAT(outcome.err, Catch::Contains("[collapsing]") && Catch::Contains(": collapsing: "));
      testing::fs::remove_all(folder / "run");
    }
}

TEST_CASE("--on-collapse stop saves the state and ends with exit code 4, and warn goes on to the same bytes as a run that never stopped") {
  const Folder folder;
  const std::string data = make_blocks(folder);
  const std::string collapse = "--centering off ";
  const auto stopped = run_program(arguments(data, folder / "run", kArchs[1]) + collapse + "--on-collapse stop");
  CHECK(stopped.code == 4);
  CHECK_THAT(stopped.err, Catch::Contains("dino_engine: training collapses at step") && Catch::Contains("marginal entropy"));
  REQUIRE(testing::fs::exists(folder / "run/checkpoint.safetensors"));
  CHECK(log_of(folder / "run").back()["verdict"] == "collapsing");

  CHECK(run_program(arguments(data, folder / "run", kArchs[1]) + collapse + "--on-collapse warn").code == 0);
  CHECK(run_program(arguments(data, folder / "straight", kArchs[1]) + collapse).code == 0);
  CHECK(testing::read_file(folder / "run/log.jsonl") == testing::read_file(folder / "straight/log.jsonl"));
  CHECK(testing::read_file(folder / "run/checkpoint.safetensors") == testing::read_file(folder / "straight/checkpoint.safetensors"));
  CHECK(run_program(arguments(data, folder / "run", kArchs[1]) + "--on-collapse never").code == 2);
}
