#include "models/resnet.h"

#include "models/checkpoint_names.h"
#include "tests/golden.h"
#include "train/weights.h"

using namespace dino;
using golden::near;

namespace {

/// A small network beside what PyTorch computed for it (tests/golden/make_resnet.py).
struct Small {
  nlohmann::json expected;
  Context context{2};
  ParameterStore store;
  ResNet net;
  Tensor images;

  explicit Small(const nlohmann::json& expected)
      : expected(expected), net(store, "", {.blocks = expected["blocks"].get<std::array<int64_t, 4>>(), .bottleneck = expected["bottleneck"], .width = 4}) {
    store.allocate({.dtype = Dtype::f64}, 0, true);
    for (size_t k = 0; k < store.entries().size(); ++k) {
      const auto& entry = store.entries()[k];
      golden::set_elements(store.tensor(static_cast<int>(k)), [&](int64_t i) {
        const double r = golden::value(k, static_cast<uint64_t>(i));
        if (entry.shape.rank == 4) return 0.3 * r;
        return entry.name.ends_with("weight") || entry.name.ends_with("running_var") ? 1 + 0.5 * r : 0.1 * r;
      });
    }
    store.values_changed();
    images = golden::input(context, Dtype::f64, 0, 2, 40, 40);
  }
  Tensor features(bool training) { return net(context, std::span(&images, 1), {.training = training}); }
  void check(const Tensor& actual, const nlohmann::json& wanted) {
    for (size_t i = 0; i < wanted.size(); ++i) CHECK(near(golden::at(actual, static_cast<int64_t>(i)), wanted[i]));
  }
};

std::vector<nlohmann::json> cases() {
  std::ifstream file(DINO_TESTS_DIR "/golden/resnet.json");
  REQUIRE(file);
  return nlohmann::json::parse(file).get<std::vector<nlohmann::json>>();
}

}  // namespace

TEST_CASE("residual networks have torchvision's parameters, and features, statistics and gradients as in PyTorch") {
  for (const nlohmann::json& expected : cases()) {
    INFO((expected["bottleneck"].get<bool>() ? "bottleneck" : "basic") << " blocks");
    Small small(expected);
    std::vector<std::string> names;
    for (const auto& entry : small.store.entries()) names.push_back(entry.name);
    REQUIRE(names == expected["names"].get<std::vector<std::string>>());
    small.check(small.features(false), expected["eval"]);

    Tape tape(small.context);
    const Tensor features = small.features(true);
    small.check(features, expected["train"]);
    const Tensor labels = small.context.host_tensor({Dtype::i64, Shape{2}});
    labels.view().as<int64_t>()[0] = 1;
    labels.view().as<int64_t>()[1] = 3;
    tape.backward(run(small.context, LabelCrossEntropy{}, {features, labels})[LabelCrossEntropy::loss]);
    for (size_t k = 0; k < names.size(); ++k) {
      INFO(names[k]);
      const Tensor parameter = small.store.tensor(static_cast<int>(k));
      if (names[k] == "bn1.running_var") small.check(parameter, expected["running_var"]);
      if (const auto wanted = expected["gradients"].find(names[k]); wanted != expected["gradients"].end())
        small.check(Tensor(parameter.grad()->value(), nullptr), *wanted);
    }
  }
}

TEST_CASE("every published residual network has the parameters that it is known for") {
  // Without the classifier: torchvision's documented counts less (features + 1) · 1000.
  for (const auto& [name, parameters, dim] : {std::tuple("resnet18", 11'689'512, 512), {"resnet34", 21'797'672, 512}, {"resnet50", 25'557'032, 2048},
                                              {"resnet101", 44'549'160, 2048}, {"resnet152", 60'192'808, 2048}}) {
    INFO(name);
    ParameterStore store;
    BackboneConfig config;
    config.arch = name;
    const Backbone backbone = make_backbone(store, "", config);
    CHECK(feature_dim(backbone) == dim);
    int64_t trainable = 0;
    WeightsFile file;
    for (const auto& entry : store.entries()) {
      trainable += entry.buffer ? 0 : entry.shape.count();
      file.tensors.tensors.push_back({entry.name, Dtype::f32, {entry.shape.extent.begin(), entry.shape.extent.begin() + entry.shape.rank}, {}, nullptr});
    }
    CHECK(trainable == parameters - (dim + 1) * 1000);
    // Weights without a word about where they come from are recognised by their shapes.
    CHECK(infer_backbone(file, {}).backbone.arch == name);
  }
}
