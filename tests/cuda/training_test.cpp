#include "tests/train/golden_run.h"
#include "tests/train/run_folder.h"
#include "train/memory_plan.h"
#include "train/trainer.h"

using namespace dino;
using namespace dino::golden;
using dino::testing::Folder;

// Whole training steps on the GPU: the tiny network of the golden numbers, and small runs on images.
namespace {

constexpr Placement kGpu{.device = Device::cuda};
constexpr Placement kGpuBf16{.device = Device::cuda, .bf16 = true};

struct Data {
  Folder folder;
  std::unique_ptr<Dataset> images;
  explicit Data(int count = 12) : images(Dataset::open(dino::testing::make_images(folder, count))) {}
  TrainConfig config(const std::string& device = "cuda", const std::string& precision = "f32") const {
    TrainConfig config = dino::testing::small_config(folder / "images", folder / "run");
    config.device = device;
    config.precision = precision;
    return config;
  }
};

/// Largest difference of two networks' values; infinite for NaN.
double difference(const ParameterStore& a, const ParameterStore& b) {
  const std::vector<double> x = values_of(a.values()), y = values_of(b.values());
  REQUIRE(x.size() == y.size());
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double distance = std::abs(x[i] - y[i]);
    if (!(distance <= largest)) largest = std::isnan(distance) ? std::numeric_limits<double>::infinity() : distance;
  }
  return largest;
}

}  // namespace

TEST_CASE("six training steps on the GPU in f32 stay within f32 of the reference") {
  const nlohmann::json expected = golden::reference();
  for (const Variant& variant : kVariants) {
    INFO(variant.name);
    Run run(variant, kGpu);
    for (int64_t step = 0; step < kSteps; ++step) {
      const auto& want = expected[variant.name][static_cast<size_t>(step)];
      INFO("step " << step);
      CHECK(near(run.step(step).loss, want["loss"], 1e-5));
      CHECK(near(golden::l2(run.loss.center()), want["center_l2"], 1e-5));
      CHECK(near(totals(run.student.parameters()).l2, want["student_l2"], 1e-4));
      CHECK(near(totals(run.teacher.network().parameters()).l2, want["teacher_l2"], 1e-4));
    }
  }
}

TEST_CASE("six training steps on the GPU in bf16 stay near the reference") {
  const nlohmann::json expected = golden::reference();
  for (const Variant& variant : kVariants) {
    INFO(variant.name);
    Run run(variant, kGpuBf16);
    for (int64_t step = 0; step < kSteps; ++step) {
      const auto& want = expected[variant.name][static_cast<size_t>(step)];
      INFO("step " << step);
      // Logits are cosines of bf16 vectors of 8 elements, divided by temperatures of 0.1 and 0.04.
      CHECK(near(run.step(step).loss, want["loss"], 2e-2));
      CHECK(near(totals(run.student.parameters()).l2, want["student_l2"], 1e-2));
    }
  }
}

TEST_CASE("a run on the GPU follows the run on the CPU") {
  const Data data;
  for (const auto& [arch, gelu] : {std::pair("vit_tiny", "erf"), {"conv_small", "erf"}, {"hybrid_small", "erf"}, {"hybrid_small", "tanh"}}) {
    INFO(arch << ", " << gelu);
    TrainConfig config = data.config("cpu");
    config.arch = arch;
    config.gelu = gelu;
    config.use_bn_in_head = config.gelu == "tanh";
    Trainer cpu(config, *data.images);
    config.device = "cuda";
    Trainer gpu(config, *data.images);
    for (int step = 0; step < 5; ++step) {
      const StepReport expected = cpu.train_step(), report = gpu.train_step();
      INFO("step " << step);
      CHECK(near(report.loss, expected.loss, 1e-4));
      CHECK(near(report.teacher_entropy, expected.teacher_entropy, 1e-3));
    }
    CHECK(difference(cpu.teacher().network().parameters(), gpu.teacher().network().parameters()) < 1e-3);
  }
}

TEST_CASE("with rates per layer and a backbone that is frozen at first, a run on the GPU follows the run on the CPU") {
  const Data data;
  for (const char* optimizer : {"adamw", "sgd", "lars"}) {
    INFO(optimizer);
    TrainConfig config = data.config("cpu");
    config.optimizer = optimizer;
    config.layer_decay = 0.5;
    config.freeze_backbone_epochs = 1;  // of 3, each of 3 steps: the graph of each kind of step is recorded and replayed
    config.freeze_last_layer = 0;
    config.warmup_epochs = 0;
    if (config.optimizer != "adamw") config.lr = 0.1;
    Trainer cpu(config, *data.images);
    config.device = "cuda";
    Trainer gpu(config, *data.images);
    config.layer_decay = 1;
    Trainer even(config, *data.images);

    const auto backbone = [](Trainer& trainer, std::string_view name) {
      const ParameterStore& parameters = trainer.student().parameters();
      return values_of(parameters.tensor(parameters.find(name)));
    };
    const auto moved = [&](const std::vector<double>& from, const std::vector<double>& to) {
      double sum = 0;
      for (size_t i = 0; i < from.size(); ++i) sum += std::abs(to[i] - from[i]);
      return sum;
    };
    const char *early = "backbone.blocks.0.mlp.fc1.weight", *head = "head.mlp.0.weight";
    const std::vector<double> early_before = backbone(gpu, early), head_before = backbone(gpu, head);
    for (int step = 0; step < 9; ++step) {
      INFO("step " << step);
      const StepReport expected = cpu.train_step(), report = gpu.train_step();
      even.train_step();
      CHECK(near(report.loss, expected.loss, 1e-4));
      CHECK((backbone(gpu, early) == early_before) == (step < 3));
      CHECK(backbone(gpu, head) != head_before);
    }
    CHECK(difference(cpu.student().parameters(), gpu.student().parameters()) < 1e-3);
    CHECK(difference(cpu.teacher().network().parameters(), gpu.teacher().network().parameters()) < 1e-3);
    // Three layers of two blocks: the first block learns at a quarter of the head's rate.
    CHECK(moved(early_before, backbone(gpu, early)) < 0.5 * moved(early_before, backbone(even, early)));
  }
}

TEST_CASE("a run on the GPU that was interrupted goes on bit for bit") {
  const Data data;
  for (const char* precision : {"f32", "bf16"}) {
    INFO(precision);
    const TrainConfig config = data.config("cuda", precision);
    Trainer straight(config, *data.images);
    while (!straight.finished()) straight.advance();
    straight.finish();
    straight.save(data.folder / "straight.safetensors");

    Trainer first(config, *data.images);
    for (int step = 0; step < 4; ++step) first.train_step();
    first.save(data.folder / "middle.safetensors");
    Trainer second(config, *data.images);
    second.load(data.folder / "middle.safetensors");
    while (!second.finished()) second.train_step();
    second.save(data.folder / "resumed.safetensors");
    CHECK(dino::testing::read_file(data.folder / "straight.safetensors") ==
          dino::testing::read_file(data.folder / "resumed.safetensors"));
  }
}

TEST_CASE("a checkpoint moves between the devices") {
  const Data data;
  Trainer cpu(data.config("cpu"), *data.images);
  for (int step = 0; step < 3; ++step) cpu.train_step();
  cpu.save(data.folder / "cpu.safetensors");

  Trainer gpu(data.config("cuda"), *data.images);
  gpu.load(data.folder / "cpu.safetensors");
  CHECK(difference(cpu.student().parameters(), gpu.student().parameters()) == 0);
  gpu.save(data.folder / "gpu.safetensors");
  CHECK(dino::testing::read_file(data.folder / "cpu.safetensors") == dino::testing::read_file(data.folder / "gpu.safetensors"));
  const StepReport expected = cpu.train_step(), report = gpu.train_step();
  CHECK(near(report.loss, expected.loss, 1e-4));
}

TEST_CASE("every ablation trains on the GPU and keeps finite weights") {
  const Data data;
  const std::vector<std::function<void(TrainConfig&)>> changes = {
      [](TrainConfig& c) { c.teacher = "copy"; },
      [](TrainConfig& c) { c.teacher = "previous-step"; },
      [](TrainConfig& c) { c.teacher = "previous-epoch"; },
      [](TrainConfig& c) { c.sinkhorn = 3; },
      [](TrainConfig& c) { c.loss = "mse"; },
      [](TrainConfig& c) { c.predictor = true; c.use_bn_in_head = true; },
      [](TrainConfig& c) { c.centering = false; c.augment.local_crops_number = 0; },
      [](TrainConfig& c) { c.augment.local_crops_size = c.augment.global_crops_size; },
      [](TrainConfig& c) { c.norm_last_layer = false; c.optimizer = "sgd"; },
      [](TrainConfig& c) { c.optimizer = "lars"; c.accumulate = 2; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    for (const char* precision : {"f32", "bf16"}) {
      INFO("change " << i << ", " << precision);
      TrainConfig config = data.config("cuda", precision);
      changes[i](config);
      Trainer trainer(config, *data.images);
      for (int step = 0; step < 4; ++step) CHECK(trainer.train_step().healthy);
      for (const double value : values_of(trainer.student().parameters().values())) REQUIRE(std::isfinite(value));
    }
  }
}

TEST_CASE("a step on the GPU is recorded once and replayed with the same result") {
  const Data data;
  TrainConfig config = data.config();
  config.log_every = 1;
  Trainer replayed(config, *data.images);
  std::vector<double> losses;
  for (int step = 0; step < 5; ++step) losses.push_back(replayed.train_step().loss);
  CHECK(replayed.runner().kernels_per_step() > 0);
  replayed.save(data.folder / "replayed.safetensors");

  // A trainer that is built anew for each step never replays one.
  std::string before;
  for (int step = 0; step < 5; ++step) {
    Trainer eager(config, *data.images);
    if (!before.empty()) eager.load(before);
    CHECK(eager.train_step().loss == losses[static_cast<size_t>(step)]);
    CHECK(eager.runner().kernels_per_step() == 0);
    before = data.folder / ("eager" + std::to_string(step) + ".safetensors");
    eager.save(before);
  }
  CHECK(dino::testing::read_file(data.folder / "replayed.safetensors") == dino::testing::read_file(before));
}

TEST_CASE("the memory of a step on the GPU is known before the run") {
  const Data data;
  for (const char* arch : {"vit_tiny", "conv_small", "hybrid_small"}) {
    for (const char* precision : {"f32", "bf16"}) {
      INFO(arch << ", " << precision);
      TrainConfig config = data.config("cuda", precision);
      config.arch = arch;
      Trainer trainer(config, *data.images);
      const MemoryPlan plan = plan_memory(config);
      trainer.train_step();  // with statistics, as every first step
      CHECK(trainer.peak_bytes() == plan.step);
      CHECK(trainer.student().parameters().bytes() + trainer.teacher().network().parameters().bytes() == plan.parameters);
    }
  }
}

TEST_CASE("recomputed activations change no bit of a run on the GPU and need less memory") {
  const Data data;
  for (const char* precision : {"f32", "bf16"}) {
    INFO(precision);
    TrainConfig config = data.config("cuda", precision);
    config.depth = 4;
    config.drop_path_rate = 0.3;
    size_t peaks[2];
    for (const bool recompute : {false, true}) {
      config.recompute = recompute;
      Trainer trainer(config, *data.images);
      for (int step = 0; step < 4; ++step) trainer.train_step();
      CHECK(trainer.runner().kernels_per_step() > 0);
      trainer.save(data.folder / (recompute ? "recomputed.safetensors" : "kept.safetensors"));
      peaks[recompute] = trainer.peak_bytes();
      CHECK(peaks[recompute] == plan_memory(config).step);
    }
    CHECK(peaks[true] < peaks[false]);
    CHECK(dino::testing::read_file(data.folder / "kept.safetensors") == dino::testing::read_file(data.folder / "recomputed.safetensors"));
  }
}

TEST_CASE("a step with the depth and the crops of ViT-S/16 is recorded whole, in at most 400 kernels and 4 copies") {
  const Data data;
  for (const char* precision : {"f32", "bf16"}) {
    INFO(precision);
    TrainConfig config = data.config("cuda", precision);
    config.depth = 12;  // the number of kernels does not depend on widths, image sizes or the batch
    config.embed_dim = 64;
    config.heads = 1;
    config.augment.local_crops_number = 10;
    config.log_every = 100;
    Trainer trainer(config, *data.images);
    for (int step = 0; step < 3; ++step) trainer.train_step();
    // A step that waited for the device could not have been recorded.
    CHECK(trainer.runner().kernels_per_step() > 200);
    INFO("kernels " << trainer.runner().kernels_per_step());
    CHECK(trainer.runner().kernels_per_step() <= 400);
    CHECK(trainer.runner().copies_per_step() <= 4);
  }
}

TEST_CASE("a step with a non-finite loss changes nothing on the GPU and is reported one step late") {
  const Data data;
  TrainConfig config = data.config();
  Trainer trainer(config, *data.images);
  trainer.train_step();
  const Tensor weight = trainer.student().parameters().tensor(trainer.student().parameters().find("backbone.norm.weight"));
  const std::vector<float> nan(static_cast<size_t>(weight.shape().count()), std::nanf(""));
  copy_from_host(nan.data(), weight.view());
  const std::vector<double> center = values_of(trainer.loss().center());
  const std::vector<double> teacher = values_of(trainer.teacher().network().parameters().values());
  CHECK(!trainer.advance());
  const auto finished = trainer.advance();
  REQUIRE(finished);
  CHECK(finished->step == 1);
  CHECK(!finished->report.healthy);
  trainer.finish();
  CHECK(values_of(trainer.loss().center()) == center);
  CHECK(values_of(trainer.teacher().network().parameters().values()) == teacher);
}
