#include "train/weights.h"

#include <catch2/catch.hpp>

#include "engine/safetensors.h"
#include "tests/engine/files.h"
#include "train/evaluate/features.h"

using namespace dino;
using namespace dino::test;

namespace {

BackboneConfig tiny() {
  BackboneConfig config;
  config.arch = "vit_small";
  config.image_size = 32;
  config.patch_size = 8;
  config.embed_dim = 64;
  config.depth = 2;
  config.heads = 1;
  return config;
}

/// All entries of a new network with these weights, as a file with our names.
WeightsFile file_of(const BackboneConfig& config, uint64_t seed = 1) {
  ParameterStore store;
  make_backbone(store, "backbone.", config);
  store.allocate({.dtype = Dtype::f32}, seed, false);
  WeightsFile file;
  file.style = "reference";
  for (size_t i = 0; i < store.entries().size(); ++i) {
    const auto& entry = store.entries()[i];
    const View view = store.tensor(static_cast<int>(i)).view();
    file.tensors.tensors.push_back(
        tensor_of<float>(entry.name.substr(std::string("backbone.").size()),
                         {entry.shape.extent.begin(), entry.shape.extent.begin() + entry.shape.rank},
                         {view.as<float>(), view.as<float>() + view.count()}));
  }
  return file;
}

void make(ParameterStore& store, const BackboneConfig& config, Dtype dtype = Dtype::f32) {
  make_backbone(store, "backbone.", config);
  store.allocate({.dtype = dtype}, 99, false);
}

void erase(WeightsFile& file, const std::string& name) {
  std::erase_if(file.tensors.tensors, [&](const NamedTensor& tensor) { return tensor.name == name; });
}

void add(WeightsFile& file, const std::string& name) {
  file.tensors.tensors.push_back(tensor_of<float>(name, {1}, {1}));
}

/// The message of the E that f throws.
template <class E, class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("all tensors of a file reach the network, in its dtype") {
  const WeightsFile file = file_of(tiny());
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    ParameterStore store;
    make(store, tiny(), dtype);
    const MatchReport report = apply_weights(store, file, false, false);
    CHECK(report.matched == report.wanted);
    CHECK(report.text() == str(report.wanted, " of ", report.wanted, " tensors matched"));
    const int index = store.find("backbone.blocks.1.attn.qkv.weight");
    const std::vector<double> expected = to_doubles(*file.tensors.find("blocks.1.attn.qkv.weight"));
    with_float(dtype, [&](auto zero) {
      for (size_t i = 0; i < expected.size(); ++i)
        REQUIRE(static_cast<double>(store.tensor(index).view().as<decltype(zero)>()[i]) == expected[i]);
    });
  }
}

TEST_CASE("a head in the file is not unexpected, and is read when it is wanted") {
  WeightsFile file = file_of(tiny());
  file.tensors.tensors.push_back(tensor_of<float>("head.mlp.0.bias", {2}, {5, 6}));
  add(file, "fc.weight");
  add(file, "bn1.num_batches_tracked");
  ParameterStore store;
  make_backbone(store, "backbone.", tiny());
  store.add("head.mlp.0.bias", Shape{2}, Init::zeros());
  store.allocate({.dtype = Dtype::f32}, 0, false);
  const MatchReport without = apply_weights(store, file, false, false);
  CHECK(without.unexpected.empty());
  CHECK(store.tensor(store.find("head.mlp.0.bias")).view().as<float>()[1] == 0);
  const MatchReport with = apply_weights(store, file, true, false);
  CHECK(with.wanted == without.wanted + 1);
  CHECK(store.tensor(store.find("head.mlp.0.bias")).view().as<float>()[1] == 6);
}

TEST_CASE("a missing tensor is refused unless a partial match is allowed") {
  WeightsFile file = file_of(tiny());
  erase(file, "norm.bias");
  ParameterStore store;
  make(store, tiny());
  CHECK_THAT(message_of<UsageError>([&] { apply_weights(store, file, false, false); }),
             Catch::Contains("norm.bias"));
  const MatchReport report = apply_weights(store, file, false, true);
  CHECK(report.missing == std::vector<std::string>{"norm.bias"});
  CHECK(report.matched == report.wanted - 1);
}

TEST_CASE("tensors inside blocks that the network does not have are refused, others only listed") {
  ParameterStore store;
  make(store, tiny());
  WeightsFile file = file_of(tiny());
  add(file, "mask_token");
  CHECK(apply_weights(store, file, false, false).unexpected == std::vector<std::string>{"mask_token"});
  add(file, "blocks.0.ls1.gamma");
  CHECK_THROWS_AS(apply_weights(store, file, false, false), UsageError);
  CHECK(apply_weights(store, file, false, true).unexpected.size() == 2);
}

TEST_CASE("a file without any tensor of the backbone is refused even if a partial match is allowed") {
  ParameterStore store;
  make(store, tiny());
  WeightsFile file;
  file.style = "reference";
  add(file, "something.else");
  CHECK_THROWS_AS(apply_weights(store, file, false, true), UsageError);
}

TEST_CASE("a tensor of another shape is refused with both shapes and advice") {
  BackboneConfig other = tiny();
  other.image_size = 64;
  ParameterStore store;
  make(store, other);
  const std::string message =
      message_of<FormatError>([&] { apply_weights(store, file_of(tiny()), false, true); });
  CHECK_THAT(message, Catch::Contains("pos_embed") && Catch::Contains("[1, 65, 64]") &&
                          Catch::Contains("[1, 17, 64]") && Catch::Contains("--patch-size"));
}

TEST_CASE("a vision transformer is known by the shapes of its tensors, and flags win") {
  const WeightsFile file = file_of(tiny());
  const BackboneRecipe recipe = infer_backbone(file, {});
  CHECK(recipe.backbone.patch_size == 8);
  CHECK(recipe.backbone.image_size == 32);
  CHECK(recipe.image_size == 32);
  CHECK(recipe.backbone.channels == 3);
  CHECK(recipe.backbone.embed_dim == 64);
  CHECK(recipe.backbone.depth == 2);
  CHECK(recipe.backbone.heads == 1);
  CHECK(recipe.backbone.mlp_ratio == 4.0);
  ParameterStore store;
  make(store, recipe.backbone);
  CHECK_NOTHROW(apply_weights(store, file, false, false));

  const BackboneRecipe flags = infer_backbone(file, {.heads = 4, .image_size = 48});
  CHECK(flags.backbone.heads == 4);
  CHECK(flags.image_size == 48);
  CHECK(flags.backbone.image_size == 32);  // the size of the position table stays
}

TEST_CASE("the number of heads must be given if the width does not tell it") {
  BackboneConfig odd = tiny();
  odd.embed_dim = 24;
  CHECK_THAT(message_of<UsageError>([&] { infer_backbone(file_of(odd), {}); }), Catch::Contains("--heads"));
  CHECK(infer_backbone(file_of(odd), {.heads = 3}).backbone.heads == 3);
}

TEST_CASE("tensors of other networks need --arch") {
  BackboneConfig conv;
  conv.arch = "conv_small";
  const WeightsFile file = file_of(conv);
  CHECK_THAT(message_of<UsageError>([&] { infer_backbone(file, {}); }), Catch::Contains("--arch"));
  CHECK(infer_backbone(file, {.arch = "conv_small"}).backbone.arch == "conv_small");
}

TEST_CASE("the configuration in a checkpoint's metadata describes its network") {
  WeightsFile file = file_of(tiny());
  file.tensors.metadata["config"] =
      R"({"arch":"conv_small","patch-size":16,"global-crops-size":28,"channels":1,"embed-dim":0,"depth":0,"heads":0,)"
      R"("mlp-ratio":0,"conv-widths":"8,16","conv-pool":3,"mean":"0.25","std":"0.5","lr":0.1})";
  const BackboneRecipe recipe = infer_backbone(file, {});
  CHECK(recipe.backbone.arch == "conv_small");
  CHECK(recipe.image_size == 28);
  CHECK(recipe.backbone.channels == 1);
  CHECK_FALSE(recipe.backbone.embed_dim.has_value());
  CHECK_FALSE(recipe.backbone.mlp_ratio.has_value());
  CHECK(recipe.backbone.conv_widths == std::vector<int64_t>{8, 16});
  CHECK(recipe.backbone.conv_pool == 3);
  CHECK(recipe.mean == std::vector<float>{0.25f});
  CHECK(recipe.deviation == std::vector<float>{0.5f});
  CHECK_FALSE(infer_backbone(file, {.arch = "vit_tiny"}).backbone.conv_widths.has_value());

  CHECK(recipe.backbone.gelu == Activation::gelu);  // of checkpoints from before there was a choice
  file.tensors.metadata["config"] = R"({"arch":"vit_tiny","gelu":"tanh"})";
  CHECK(infer_backbone(file, {}).backbone.gelu == Activation::gelu_tanh);
  CHECK(infer_backbone(file, {.gelu = "erf"}).backbone.gelu == Activation::gelu);
  CHECK_THAT(message_of<UsageError>([&] { infer_backbone(file, {.gelu = "relu"}); }), Catch::Contains("erf") && Catch::Contains("tanh"));

  file.tensors.metadata["config"] = R"({"arch":"vit_tiny","gelu":3})";
  CHECK_THROWS_AS(infer_backbone(file, {}), FormatError);
  file.tensors.metadata["config"] = "[1]";
  CHECK_THROWS_AS(infer_backbone(file, {}), FormatError);
  file.tensors.metadata["config"] = R"({"arch":"vit_tiny","depth":"many"})";
  CHECK_THROWS_AS(infer_backbone(file, {}), FormatError);
}

TEST_CASE("a backbone loaded from a file computes what the saved one computed") {
  const TemporaryFolder folder;
  save_safetensors(folder / "w.safetensors", file_of(tiny()).tensors);
  const LoadedBackbone loaded = load_backbone({.path = folder / "w.safetensors"});
  CHECK_FALSE(loaded.random);
  CHECK(loaded.match.matched == loaded.match.wanted);
  ParameterStore store;
  const Backbone original = make_backbone(store, "backbone.", tiny());
  store.allocate({.dtype = Dtype::f32}, 1, false);
  Context context(1);
  const Tensor image = context.tensor({Dtype::f32, Shape{1, 32, 32, 3}});
  for (int64_t i = 0; i < image.shape().count(); ++i)
    image.view().as<float>()[i] = static_cast<float>(i % 17) / 17;
  const Tensor a = batch_features(context, original, image, {}),
               b = batch_features(context, loaded.backbone, image, {});
  for (int64_t i = 0; i < 64; ++i) CHECK(a.view().as<float>()[i] == b.view().as<float>()[i]);
  CHECK_THROWS_AS(load_backbone({.path = folder / "none"}), UsageError);
}

TEST_CASE("a random backbone is a function of its seed") {
  BackboneOverrides overrides{.arch = "vit_tiny", .depth = 1, .image_size = 32};
  const auto weight = [&](uint64_t seed) {
    const LoadedBackbone network = load_backbone({.path = "", .overrides = overrides, .seed = seed});
    CHECK(network.random);
    return network.parameters->tensor(network.parameters->find("backbone.cls_token")).view().as<float>()[0];
  };
  CHECK(weight(1) == weight(1));
  CHECK(weight(1) != weight(2));
}
