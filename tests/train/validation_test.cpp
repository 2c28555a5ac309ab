#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/train/run_folder.h"
#include "train/validation.h"

using namespace dino;
using testing::Folder;
using testing::run_program;

namespace {

/// The values of one field of a log, in its order.
std::vector<double> logged(const std::string& run, const std::string& field) {
  std::vector<double> values;
  std::ifstream log(run + "/log.jsonl");
  for (std::string line; std::getline(log, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains(field)) values.push_back(json[field]);
  }
  return values;
}

}  // namespace

TEST_CASE("without labels, --eval-every logs view retrieval, and without either nothing is scored") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 24);
  REQUIRE(run_program(testing::small_arguments(images, folder / "scored") + " --eval-every 2 --epochs 4").code == 0);
  REQUIRE(run_program(testing::small_arguments(images, folder / "plain") + " --epochs 4").code == 0);
  const auto scores = logged(folder / "scored", "view_retrieval_top1");
  CHECK(scores.size() == 2);
  for (const double score : scores) {
    // 24 images give whole steps of 1/24.
    CHECK(std::abs(score * 24 / 100 - std::round(score * 24 / 100)) < 1e-9);
    CHECK((score >= 0 && score <= 100));
  }
  CHECK(logged(folder / "plain", "view_retrieval_top1").empty());
  CHECK_FALSE(testing::fs::exists(folder / "plain/best.safetensors"));
  // To look at the teacher changes nothing.
  CHECK(logged(folder / "plain", "loss") == logged(folder / "scored", "loss"));
}

TEST_CASE("crops that are all of the image find it again, and a network that sees nothing finds one of all") {
  const Folder folder;
  TrainConfig config = testing::small_config(testing::make_images(folder, 16), folder / "run");
  config.eval_every = 1;
  config.precision = "f32";
  config.augment.global_crops_scale = {1, 1};
  config.augment.ratio = {1.2f, 1.2f};  // as the images have
  config.augment.flip_prob = 0;
  config.augment.jitter_prob = config.augment.grayscale_prob = config.augment.solarize_prob = 0;
  config.augment.blur_prob_global1 = config.augment.blur_prob_global2 = 0;
  const auto dataset = Dataset::open(config.data, 3);
  Trainer trainer(config, *dataset);
  const auto validation = make_validation(config, *dataset);
  REQUIRE(validation != nullptr);
  CHECK(validation->score(trainer) == 100);
  ParameterStore& parameters = trainer.teacher().network().parameters();
  for (size_t i = 0; i < parameters.entries().size(); ++i) {
    const Tensor values = parameters.tensor(static_cast<int>(i));
    std::fill_n(values.view().as<float>(), values.shape().count(), 0.0f);
  }
  CHECK(validation->score(trainer) == 100.0 / 16);
}

TEST_CASE("best.safetensors is the checkpoint with the highest score, also of a run that went on") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 24), run = folder / "run", once = folder / "once";
  const std::string options = " --eval-every 1 --epochs 6 --saveckp-freq 1 --lr 0.01";
  REQUIRE(run_program(testing::small_arguments(images, once) + options).code == 0);
  REQUIRE(run_program(testing::small_arguments(images, run) + options + " --steps 20").code == 0);
  REQUIRE(run_program(testing::small_arguments(images, run) + options).code == 0);
  const auto scores = logged(once, "view_retrieval_top1");
  REQUIRE(scores.size() == 6);
  const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  const std::string kept = once + "/checkpoint000" + std::to_string(best) + ".safetensors";
  CHECK(testing::read_file(once + "/best.safetensors") == testing::read_file(kept));
  CHECK(testing::read_file(run + "/best.safetensors") == testing::read_file(once + "/best.safetensors"));
}
