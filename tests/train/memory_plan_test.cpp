#include "train/memory_plan.h"

#include "engine/run.h"
#include "tests/train/run_folder.h"
#include "train/trainer.h"

using namespace dino;
using testing::Folder;

namespace {

struct Data {
  Folder folder;
  std::unique_ptr<Dataset> images{Dataset::open(testing::make_images(folder, 12))};

  TrainConfig config(const std::string& arch, const std::string& precision) const {
    TrainConfig config = testing::small_config(folder / "images", folder / "run");
    config.arch = arch;
    config.precision = precision;
    config.device = "cpu";
    config.depth = 4;
    config.drop_path_rate = 0.3;
    return config;
  }
};

struct Outcome {
  std::vector<double> losses, student, teacher;
  size_t peak;
};

/// A few steps of a run that needs as much memory as was planned.
Outcome train(const TrainConfig& config, const Dataset& images) {
  Trainer trainer(config, images);
  Outcome outcome;
  for (int step = 0; step < 5; ++step) outcome.losses.push_back(trainer.train_step().loss);
  outcome.student = values_of(trainer.student().parameters().values());
  outcome.teacher = values_of(trainer.teacher().network().parameters().values());
  outcome.peak = trainer.peak_bytes();
  const MemoryPlan plan = plan_memory(config);
  CHECK(plan.parameters == trainer.student().parameters().bytes() + trainer.teacher().network().parameters().bytes());
  CHECK(plan.step == outcome.peak);
  const Arena& arena = trainer.context().arena();
  CHECK(plan.state + plan.step == arena.peak_bytes());
  CHECK(plan.state + plan.step + plan.gaps == arena.extent_bytes());
  return outcome;
}

}  // namespace

TEST_CASE("recomputed activations change no bit of a run and need less memory") {
  const Data data;
  for (const char* arch : {"vit_tiny", "hybrid_small"}) {
    for (const char* precision : {"f32", "bf16"}) {
      INFO(arch << " in " << precision);
      TrainConfig config = data.config(arch, precision);
      const Outcome kept = train(config, *data.images);
      config.recompute = true;
      const Outcome recomputed = train(config, *data.images);
      CHECK(recomputed.losses == kept.losses);
      CHECK(recomputed.student == kept.student);
      CHECK(recomputed.teacher == kept.teacher);
      CHECK(recomputed.peak < kept.peak);
    }
  }
}

TEST_CASE("the memory of a step on the host is known before the run") {
  const Data data;
  train(data.config("conv_small", "f32"), *data.images);
  train(data.config("resnet18", "f32"), *data.images);
  for (const char* precision : {"f32", "bf16", "f64"}) {
    INFO(precision);
    TrainConfig config = data.config("vit_tiny", precision);
    config.accumulate = 2;
    train(config, *data.images);
    config.recompute = true;
    train(config, *data.images);
  }
}

TEST_CASE("a run that goes on may recompute activations from then on") {
  const Data data;
  TrainConfig config = data.config("vit_tiny", "f32");
  Trainer straight(config, *data.images), first(config, *data.images);
  while (!straight.finished()) straight.train_step();
  straight.save(data.folder / "straight.safetensors");
  for (int step = 0; step < 4; ++step) first.train_step();
  first.save(data.folder / "middle.safetensors");
  config.recompute = true;
  Trainer second(config, *data.images);
  second.load(data.folder / "middle.safetensors");
  while (!second.finished()) second.train_step();
  second.save(data.folder / "resumed.safetensors");
  CHECK(testing::read_file(data.folder / "straight.safetensors") == testing::read_file(data.folder / "resumed.safetensors"));
}

TEST_CASE("a network without transformer blocks cannot be recomputed") {
  const Data data;
  TrainConfig config = data.config("conv_small", "f32");
  config.recompute = true;
  CHECK_THROWS_WITH(Trainer(config, *data.images), Catch::Contains("--recompute"));
}
