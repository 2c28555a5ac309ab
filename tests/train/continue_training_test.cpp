#include <nlohmann/json.hpp>

#include "tests/train/run_folder.h"
#include "train/feature_drift.h"
#include "train/layer_decay.h"

using namespace dino;
using testing::Folder;
using testing::run_program;

// Training that goes on from weights which have learned something already: a backbone that stays at first, learning rates that
// fall towards the input, and the distance from the beginning.
namespace {

struct Data {
  Folder folder;
  std::unique_ptr<Dataset> images;
  explicit Data(int count = 12) : images(Dataset::open(testing::make_images(folder, count))) {}
  TrainConfig config() const { return testing::small_config(folder / "images", folder / "run"); }
};

/// Values by name of all parameters whose name begins with `prefix`, running statistics left out.
std::map<std::string, std::vector<double>> values_under(const ParameterStore& parameters, const std::string& prefix) {
  std::map<std::string, std::vector<double>> values;
  for (size_t i = 0; i < parameters.entries().size(); ++i) {
    const ParameterStore::Entry& entry = parameters.entries()[i];
    if (entry.name.starts_with(prefix) && !entry.buffer) values[entry.name] = values_of(parameters.tensor(static_cast<int>(i)));
  }
  REQUIRE(!values.empty());
  return values;
}

/// The rate of each entry, by name.
std::map<std::string, double> rates_by_name(const ParameterStore& parameters, double decay) {
  const std::vector<double> rates = layer_rates(parameters, decay);
  REQUIRE(rates.size() == parameters.entries().size());
  std::map<std::string, double> by_name;
  for (size_t i = 0; i < rates.size(); ++i) by_name[parameters.entries()[i].name] = rates[i];
  return by_name;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

/// A checkpoint to begin from.
std::string some_weights(const Data& data, TrainConfig config, const std::string& name = "init.safetensors") {
  config.init.clear();
  config.seed += 100;
  config.freeze_backbone_epochs = 0;
  Trainer trainer(config, *data.images);
  for (int step = 0; step < 3; ++step) trainer.train_step();
  trainer.save(data.folder / name);
  return data.folder / name;
}

}  // namespace

TEST_CASE("a frozen backbone keeps every bit while the head learns, and learns afterwards") {
  const Data data;
  for (const auto& [arch, precision] : {std::pair("vit_tiny", "f32"), {"vit_tiny", "bf16"}, {"conv_small", "f32"}, {"hybrid_small", "f32"}}) {
    INFO(arch << " in " << precision);
    TrainConfig config = data.config();
    config.arch = arch;
    config.precision = precision;
    config.drop_path_rate = 0.2;
    config.warmup_epochs = 0;
    config.freeze_backbone_epochs = 1.3;  // of three steps each: four steps
    config.init = some_weights(data, config);
    Trainer trainer(config, *data.images);
    const ParameterStore &student = trainer.student().parameters(), &teacher = trainer.teacher().network().parameters();
    const auto backbone = values_under(student, "backbone."), head = values_under(student, "head.mlp");
    for (int step = 0; step < 4; ++step) CHECK(trainer.train_step().healthy);
    CHECK((values_under(student, "backbone.") == backbone));  // as one truth value: there are too many numbers to print
    // The average of equal numbers is rounded.
    for (const auto& [name, values] : values_under(teacher, "backbone.")) CHECK(largest_difference(values, backbone.at(name)) < 1e-5);
    for (const auto& [name, values] : values_under(student, "head.mlp")) CHECK((values != head.at(name)));
    const Optimizer& optimizer = trainer.optimizer();
    const std::vector<double> steps = values_of(optimizer.steps());
    for (size_t i = 0; i < steps.size(); ++i)
      if (student.entries()[static_cast<size_t>(optimizer.tensors()[i])].name.starts_with("backbone.")) CHECK(steps[i] == 0);
    trainer.train_step();
    for (const auto& [name, values] : values_under(student, "backbone.")) {
      INFO(name);
      CHECK((values != backbone.at(name)));
    }
  }
}

TEST_CASE("with a frozen backbone the head gets the gradients that it gets without") {
  const Data data;
  TrainConfig config = data.config();
  config.precision = "f64";
  config.warmup_epochs = 0;
  config.freeze_last_layer = 0;
  config.accumulate = 2;
  Trainer whole(config, *data.images);
  config.freeze_backbone_epochs = 1;
  Trainer frozen(config, *data.images);
  CHECK(whole.train_step().loss == frozen.train_step().loss);
  CHECK((values_under(whole.student().parameters(), "head.") == values_under(frozen.student().parameters(), "head.")));
}

TEST_CASE("a run with a frozen backbone and a layer-wise rate is the same bytes after an interruption, whenever that comes") {
  const Data data;
  TrainConfig config = data.config();
  config.init = some_weights(data, config);
  config.freeze_backbone_epochs = 1.3;
  config.layer_decay = 0.7;
  Trainer straight(config, *data.images);
  while (!straight.finished()) straight.train_step();
  straight.save(data.folder / "straight.safetensors");
  for (const int steps : {2, 4, 6}) {
    INFO("interrupted after " << steps << " steps");
    Trainer first(config, *data.images);
    for (int step = 0; step < steps; ++step) first.train_step();
    first.save(data.folder / "middle.safetensors");
    Trainer second(config, *data.images);
    second.load(data.folder / "middle.safetensors");
    while (!second.finished()) second.train_step();
    second.save(data.folder / "resumed.safetensors");
    CHECK(testing::read_file(data.folder / "straight.safetensors") == testing::read_file(data.folder / "resumed.safetensors"));
  }
}

TEST_CASE("a backbone that would stay frozen to the end, and a layer-wise rate that grows or vanishes, are refused") {
  const Data data;
  TrainConfig config = data.config();
  config.freeze_backbone_epochs = 3;
  CHECK_THROWS_WITH(Trainer(config, *data.images), Catch::Contains("--freeze-backbone-epochs 3 must be less than --epochs 3"));
  config.freeze_backbone_epochs = -1;
  CHECK_THROWS_AS(Trainer(config, *data.images), UsageError);
  config.freeze_backbone_epochs = 0;
  for (const double decay : {0.0, -0.5, 1.1}) {
    config.layer_decay = decay;
    CHECK_THROWS_WITH(Trainer(config, *data.images), Catch::Contains("--layer-decay"));
  }
}

TEST_CASE("learning rates fall from the head to the embeddings, block by block") {
  const Data data;
  TrainConfig config = data.config();
  config.predictor = true;
  config.use_bn_in_head = true;
  const Network vit(network_config(config), {}, 0, false);
  const auto of_vit = rates_by_name(vit.parameters(), 0.5);
  for (const char* name : {"head.mlp.0.weight", "head.last_layer.weight_v", "predictor.0.weight", "backbone.norm.bias"}) CHECK(of_vit.at(name) == 1);
  CHECK(of_vit.at("backbone.blocks.1.mlp.fc2.bias") == 0.5);
  CHECK(of_vit.at("backbone.blocks.0.norm1.weight") == 0.25);
  for (const char* name : {"backbone.cls_token", "backbone.pos_embed", "backbone.patch_embed.proj.weight"}) CHECK(of_vit.at(name) == 0.125);

  config.arch = "conv_small";  // three stages
  const Network conv(network_config(config), {}, 0, false);
  const auto of_conv = rates_by_name(conv.parameters(), 0.5);
  CHECK(of_conv.at("backbone.layer3.0.conv1.weight") == 0.5);
  CHECK(of_conv.at("backbone.layer1.0.bn1.weight") == 0.125);
  CHECK(of_conv.at("backbone.conv1.weight") == 0.0625);

  config.arch = "hybrid_small";
  const Network hybrid(network_config(config), {}, 0, false);
  const auto of_hybrid = rates_by_name(hybrid.parameters(), 0.5);
  CHECK(of_hybrid.at("backbone.blocks.0.attn.proj.weight") == 0.25);
  for (const auto& [name, rate] : of_hybrid)
    if (name.starts_with("backbone.stem")) CHECK(rate == 0.125);

  for (const auto& [name, rate] : rates_by_name(vit.parameters(), 1)) CHECK(rate == 1);
}

TEST_CASE("a step under layer-wise decay moves each tensor by its share, decay of the weights included") {
  const Data data;
  for (const char* optimizer : {"adamw", "sgd", "lars"}) {
    INFO(optimizer);
    TrainConfig config = data.config();
    config.precision = "f64";
    config.optimizer = optimizer;
    config.warmup_epochs = 0;
    config.weight_decay = 0.3;
    config.lr = 0.1;
    const auto changes = [&](double decay) {
      config.layer_decay = decay;
      Trainer trainer(config, *data.images);
      const ParameterStore& parameters = trainer.student().parameters();
      const auto before = values_under(parameters, "backbone.");
      trainer.train_step();
      auto after = values_under(parameters, "backbone.");
      for (auto& [name, values] : after)
        for (size_t i = 0; i < values.size(); ++i) values[i] -= before.at(name)[i];
      return std::pair(after, rates_by_name(parameters, decay));
    };
    const auto [plain, ones] = changes(1);
    const auto [shared, rates] = changes(0.6);
    for (const auto& [name, values] : shared) {
      INFO(name);
      double largest = 0, apart = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        largest = std::max(largest, std::abs(plain.at(name)[i]));
        apart = std::max(apart, std::abs(values[i] - rates.at(name) * plain.at(name)[i]));
      }
      // Weights of at most 2 are rounded when they are updated, in both runs.
      const double rounding = 4 * std::numeric_limits<double>::epsilon();
      CHECK(largest > 1000 * rounding);
      CHECK(apart <= rounding);
    }
  }
}

TEST_CASE("similarity to the beginning is 1 before the first step and falls while the teacher moves") {
  const Data data;
  for (const auto& [arch, precision] : {std::pair("vit_tiny", "f32"), {"vit_tiny", "f64"}, {"vit_tiny", "bf16"}, {"conv_small", "f32"}}) {
    INFO(arch << " in " << precision);
    TrainConfig config = data.config();
    config.arch = arch;
    config.precision = precision;
    config.lr = 0.05;
    config.momentum_teacher = config.momentum_teacher_end = 0.5;
    config.init = some_weights(data, config);
    Trainer trainer(config, *data.images);
    const FeatureDrift drift(trainer, *data.images);
    CHECK(drift.similarity(trainer) == Approx(1).margin(1e-6));
    trainer.train_step();  // at a learning rate of 0: only statistics of batch norm move
    if (config.arch != "conv_small") CHECK(drift.similarity(trainer) > 0.999);
    while (!trainer.finished()) trainer.train_step();
    const double moved = drift.similarity(trainer);
    CHECK(moved < 0.999);
    CHECK(moved > -1);
  }
}

TEST_CASE("images that cannot be read do not count for the similarity to the beginning") {
  const Data data;
  const std::string broken = data.folder / "images/class0/a_first.ppm";
  std::ofstream(broken) << "P6 nonsense";
  const auto images = Dataset::open(data.folder / "images");
  REQUIRE(images->size() == 13);
  Trainer trainer(data.config(), *images);
  const FeatureDrift drift(trainer, *images);
  CHECK(drift.similarity(trainer) == Approx(1).margin(1e-6));
}

TEST_CASE("the log tells the similarity to --init at the end of each epoch, the same after an interruption, and nothing without --init") {
  const Data data;
  const std::string weights = some_weights(data, data.config());
  const auto run = [&](const std::string& name, const std::string& more) {
    const auto outcome = run_program(testing::small_arguments(data.folder / "images", data.folder / name) + " --lr 0.05 --momentum-teacher 0.5 " + more);
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    return testing::read_file(data.folder / name + "/log.jsonl");
  };
  const std::string init = "--init " + weights + " --freeze-backbone-epochs 1 ";
  const std::string straight = run("straight", init);
  run("interrupted", init + "--steps 4");
  const std::string resumed = run("interrupted", init);
  std::istringstream lines(straight);
  std::vector<double> told;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    CHECK(json.contains("feature_similarity_to_init") == ((json["step"].get<int>() + 1) % 3 == 0));
    if (json.contains("feature_similarity_to_init")) told.push_back(json["feature_similarity_to_init"]);
  }
  REQUIRE(told.size() == 3);
  CHECK(told[0] == Approx(1).margin(1e-6));  // the backbone was frozen
  CHECK(told[1] < told[0]);
  CHECK(told[2] < told[1]);
  // A session that ends also tells where it ended; the line of step 3 is the only one that may differ.
  const auto without = [](const std::string& log) {
    std::istringstream in(log);
    std::string kept;
    for (std::string line; std::getline(in, line);) {
      auto json = nlohmann::json::parse(line);
      if (json["step"] == 3) json.erase("feature_similarity_to_init");
      kept += json.dump() + "\n";
    }
    return kept;
  };
  CHECK(without(resumed) == without(straight));
  CHECK(run("fresh", "").find("feature_similarity_to_init") == std::string::npos);
}
