#include "train/trainer.h"

#include "tests/golden.h"
#include "tests/train/run_folder.h"

using namespace dino;
using testing::Folder;

namespace {

std::vector<double> all_values(const ParameterStore& parameters) {
  return values_of(parameters.values());
}

/// Largest difference; NaN if there is one.
double difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::abs(a[i] - b[i]) <= largest ? largest : std::abs(a[i] - b[i]);
  return largest;
}

struct Data {
  Folder folder;
  std::unique_ptr<Dataset> images;
  explicit Data(int count = 12) : images(Dataset::open(testing::make_images(folder, count))) {}
  TrainConfig config() const { return testing::small_config(folder / "images", folder / "run"); }
};

}  // namespace

TEST_CASE("micro-batches give the result of the large batch") {
  const Data data;
  TrainConfig config = data.config();
  config.precision = "f64";
  config.drop_path_rate = 0.3;
  config.accumulate = 1;
  Trainer whole(config, *data.images);
  config.accumulate = 2;
  Trainer parts(config, *data.images);
  for (int step = 0; step < 5; ++step) {
    const StepReport expected = whole.train_step(), report = parts.train_step();
    CHECK(golden::near(report.loss, expected.loss, 1e-12));
    CHECK(golden::near(report.teacher_entropy, expected.teacher_entropy, 1e-12));
    CHECK(golden::near(report.marginal_entropy, expected.marginal_entropy, 1e-12));
    CHECK(report.prototypes_used == expected.prototypes_used);
  }
  CHECK(difference(all_values(whole.student().parameters()), all_values(parts.student().parameters())) < 1e-12);
  CHECK(difference(all_values(whole.teacher().network().parameters()), all_values(parts.teacher().network().parameters())) < 1e-12);
}

TEST_CASE("micro-batches are refused where batch norm or Sinkhorn-Knopp would make them differ") {
  const Data data;
  TrainConfig config = data.config();
  config.accumulate = 2;
  config.use_bn_in_head = true;
  CHECK_THROWS_AS(Trainer(config, *data.images), UsageError);
  config.use_bn_in_head = false;
  config.sinkhorn = 3;
  CHECK_THROWS_AS(Trainer(config, *data.images), UsageError);
  config.sinkhorn = 0;
  config.arch = "conv_small";
  CHECK_THROWS_AS(Trainer(config, *data.images), UsageError);
}

TEST_CASE("a restored run goes on bit for bit, whatever the number of threads and workers") {
  const Data data;
  for (const auto& [arch, precision] : {std::pair("vit_tiny", "f32"), {"vit_tiny", "bf16"}, {"conv_small", "f32"}, {"resnet18", "f32"}, {"hybrid_small", "bf16"}}) {
    INFO(arch << " in " << precision);
    TrainConfig config = data.config();
    config.arch = arch;
    config.precision = precision;
    config.use_bn_in_head = config.arch != "vit_tiny";
    Trainer straight(config, *data.images);
    while (!straight.finished()) straight.train_step();
    straight.save(data.folder / "straight.safetensors");

    Trainer first(config, *data.images);
    for (int step = 0; step < 4; ++step) first.train_step();
    first.save(data.folder / "middle.safetensors");
    config.threads = 1;
    config.num_workers = 3;
    Trainer second(config, *data.images);
    second.load(data.folder / "middle.safetensors");
    CHECK(second.step() == 4);
    while (!second.finished()) second.train_step();
    second.save(data.folder / "resumed.safetensors");
    CHECK(testing::read_file(data.folder / "straight.safetensors") == testing::read_file(data.folder / "resumed.safetensors"));
  }
}

TEST_CASE("every ablation trains and keeps finite weights") {
  const Data data;
  const std::vector<std::function<void(TrainConfig&)>> changes = {
      [](TrainConfig& c) { c.teacher = "copy"; },
      [](TrainConfig& c) { c.teacher = "previous-step"; },
      [](TrainConfig& c) { c.teacher = "previous-epoch"; },
      [](TrainConfig& c) { c.sinkhorn = 3; },
      [](TrainConfig& c) { c.loss = "mse"; },
      [](TrainConfig& c) { c.loss = "mse"; c.centering = false; c.predictor = true; c.use_bn_in_head = true; c.augment.local_crops_number = 0; },
      [](TrainConfig& c) { c.predictor = true; },
      [](TrainConfig& c) { c.centering = false; },
      [](TrainConfig& c) { c.augment.local_crops_number = 0; },
      [](TrainConfig& c) { c.augment.local_crops_size = c.augment.global_crops_size; },
      [](TrainConfig& c) { c.norm_last_layer = false; c.optimizer = "sgd"; },
      [](TrainConfig& c) { c.optimizer = "lars"; c.use_bn_in_head = true; },
      [](TrainConfig& c) { c.precision = "bf16"; },
      [](TrainConfig& c) { c.precision = "bf16"; c.sinkhorn = 3; c.optimizer = "lars"; c.use_bn_in_head = true; },
      [](TrainConfig& c) { c.precision = "bf16"; c.loss = "mse"; c.predictor = true; c.norm_last_layer = false; c.optimizer = "sgd"; },
      [](TrainConfig& c) { c.gelu = "tanh"; c.predictor = true; },
      [](TrainConfig& c) { c.gelu = "tanh"; c.precision = "bf16"; c.arch = "hybrid_small"; c.use_bn_in_head = true; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    INFO("change " << i);
    TrainConfig config = data.config();
    changes[i](config);
    Trainer trainer(config, *data.images);
    const std::vector<double> before = all_values(trainer.student().parameters());
    for (int step = 0; step < 4; ++step) CHECK(trainer.train_step().healthy);
    const double moved = difference(before, all_values(trainer.student().parameters()));
    CHECK(moved > 0);
    CHECK(std::isfinite(moved));
  }
}

TEST_CASE("each kind of teacher holds the weights it promises") {
  const Data data;
  const auto teacher_after = [&](const std::string& kind, int steps) {
    TrainConfig config = data.config();
    config.teacher = kind;
    Trainer trainer(config, *data.images);
    std::vector<std::vector<double>> students = {all_values(trainer.student().parameters())};
    for (int step = 0; step < steps; ++step) {
      trainer.train_step();
      students.push_back(all_values(trainer.student().parameters()));
    }
    return std::pair(all_values(trainer.teacher().network().parameters()), students);
  };
  // 12 images in batches of 4: an epoch has three steps.
  const auto [copy, copy_students] = teacher_after("copy", 4);
  CHECK(copy == copy_students[4]);
  const auto [previous, previous_students] = teacher_after("previous-step", 4);
  CHECK(previous == previous_students[3]);
  const auto [epoch, epoch_students] = teacher_after("previous-epoch", 5);
  CHECK(epoch == epoch_students[3]);
  const auto [momentum, momentum_students] = teacher_after("momentum", 4);
  CHECK(momentum != momentum_students[4]);
}

TEST_CASE("a step with a non-finite loss changes nothing") {
  const Data data;
  Trainer trainer(data.config(), *data.images);
  trainer.train_step();
  trainer.train_step();
  trainer.save(data.folder / "healthy.safetensors");
  const Tensor bias = trainer.student().parameters().tensor(trainer.student().parameters().find("backbone.norm.bias"));
  const std::vector<double> teacher = all_values(trainer.teacher().network().parameters());
  const std::vector<double> student = all_values(trainer.student().parameters());
  const float old = bias.view().as<float>()[0];
  bias.view().as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  const StepReport report = trainer.train_step();
  CHECK_FALSE(report.healthy);
  bias.view().as<float>()[0] = old;
  CHECK(all_values(trainer.teacher().network().parameters()) == teacher);
  CHECK(all_values(trainer.student().parameters()) == student);
  CHECK(trainer.train_step().healthy);
}

TEST_CASE("memory stops growing after the first step") {
  const Data data;
  Trainer trainer(data.config(), *data.images);
  trainer.train_step();
  const size_t reserved = trainer.context().arena().extent_bytes();
  for (int step = 0; step < 5; ++step) trainer.train_step();
  CHECK(trainer.context().arena().extent_bytes() == reserved);
}

TEST_CASE("impossible schedules are refused with the value that would do") {
  TrainConfig config;
  config.batch_size = 64;
  CHECK_THROWS_WITH(RunPlan(config, 37), Catch::Contains("--batch-size 37"));
  config.batch_size = 10;
  config.epochs = 5;
  CHECK_THROWS_WITH(RunPlan(config, 100), Catch::Contains("--warmup-epochs 0.5"));
  config.warmup_epochs = 1;
  config.warmup_teacher_temp_epochs = 6;
  CHECK_THROWS_WITH(RunPlan(config, 100), Catch::Contains("--warmup-teacher-temp-epochs 6"));
}
