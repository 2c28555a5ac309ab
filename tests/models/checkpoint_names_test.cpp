#include "models/checkpoint_names.h"

#include <catch2/catch.hpp>

#include "engine/safetensors.h"
#include "tests/engine/files.h"

using namespace dino;
using namespace dino::test;

namespace {

using Names = std::vector<std::string>;

/// Tensors of one element, valued 0, 1, 2, …
TensorFile file_of(const Names& names) {
  TensorFile file;
  for (const std::string& name : names) {
    file.tensors.push_back(tensor_of<float>(name, {1}, {static_cast<float>(file.tensors.size())}));
  }
  return file;
}

Names names_of(const TensorFile& file) {
  Names names;
  for (const NamedTensor& tensor : file.tensors) names.push_back(tensor.name);
  return names;
}

WeightsFile ours(const Names& names, const std::string& key = "teacher") {
  return with_our_names(file_of(names), key, "f");
}

/// A backbone of one block and width 2 under our names, and a tensor of the head.
std::vector<NamedTensor> backbone() {
  return {tensor_of<float>("cls_token", {1, 1, 2}, {1, 2}),
          tensor_of<float>("pos_embed", {1, 1, 2}, {3, 4}),
          tensor_of<float>("patch_embed.proj.weight", {2, 1, 1, 1}, {5, 6}),
          tensor_of<float>("patch_embed.proj.bias", {2}, {5, 6}),
          tensor_of<float>("blocks.0.norm1.weight", {2}, {7, 8}),
          tensor_of<float>("blocks.0.attn.qkv.weight", {6, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}),
          tensor_of<float>("blocks.0.attn.qkv.bias", {6}, {0, 1, 2, 3, 4, 5}),
          tensor_of<float>("blocks.0.attn.proj.bias", {2}, {0, 1}),
          tensor_of<float>("blocks.0.norm2.bias", {2}, {0, 1}),
          tensor_of<float>("blocks.0.mlp.fc1.bias", {2}, {0, 1}),
          tensor_of<float>("blocks.0.mlp.fc2.weight", {2, 1}, {0, 1}),
          tensor_of<float>("norm.weight", {2}, {9, 10}),
          tensor_of<float>("head.mlp.0.weight", {1}, {11})};
}

}  // namespace

TEST_CASE("the reference's prefixes are removed at the front only, and the head keeps its name") {
  const WeightsFile file = ours({"module.backbone.blocks.3.attn.qkv.weight", "backbone.module.norm.bias",
                                 "module.head.mlp.0.weight", "head.last_layer.weight_g", "x.backbone.y"});
  CHECK(file.style == "reference");
  CHECK(names_of(file.tensors) == Names{"blocks.3.attn.qkv.weight", "norm.bias", "head.mlp.0.weight",
                                        "head.last_layer.weight_g", "x.backbone.y"});
}

TEST_CASE("backbone-only files of the reference and of timm have our names already") {
  const Names names = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight",
                       "norm.bias"};
  CHECK(names_of(ours(names).tensors) == names);
}

TEST_CASE("one network of a checkpoint of ours is chosen by its key") {
  const Names names = {"student.backbone.norm.bias", "teacher.backbone.norm.bias", "teacher.head.mlp.0.bias",
                       "optimizer.exp_avg.backbone.norm.bias", "center"};
  const WeightsFile teacher = ours(names);
  CHECK(teacher.style == "dino_engine");
  CHECK(names_of(teacher.tensors) == Names{"norm.bias", "head.mlp.0.bias"});
  CHECK(to_floats(teacher.tensors.tensors[0]) == std::vector<float>{1});
  CHECK(names_of(ours(names, "student").tensors) == Names{"norm.bias"});
  CHECK(message_of<FormatError>([&] { ours({"student.norm.bias"}); }) ==
        "f: expected tensors named 'teacher....', found none");
}

TEST_CASE("two names that become one are refused") {
  CHECK(message_of<FormatError>([] {
          ours({"norm.bias", "module.norm.bias"});
        }) == "f: 'norm.bias': expected unique names, found this one twice after removing prefixes");
}

TEST_CASE("a backbone exported with Hugging Face's names comes back the same, with or without vit.") {
  const std::vector<NamedTensor> before = backbone();
  for (const std::string prefix : {"", "vit."}) {
    TensorFile hf = with_names_of("hf", before);
    CHECK(hf.metadata == std::map<std::string, std::string>{{"format", "pt"}});
    CHECK(hf.tensors.size() == before.size() - 1 + 4);
    for (NamedTensor& tensor : hf.tensors) tensor.name = prefix + tensor.name;
    hf.tensors.push_back(tensor_of<float>(prefix + "pooler.dense.weight", {1}, {0}));
    const WeightsFile after = with_our_names(hf, "teacher", "f");
    CHECK(after.style == "hf");
    REQUIRE(after.tensors.tensors.size() == before.size() - 1);
    for (size_t i = 0; i + 1 < before.size(); ++i) {
      INFO(before[i].name);
      CHECK(after.tensors.tensors[i].name == before[i].name);
      CHECK(after.tensors.tensors[i].shape == before[i].shape);
      CHECK(to_floats(after.tensors.tensors[i]) == to_floats(before[i]));
    }
  }
}

TEST_CASE("Hugging Face's names are those of ViTModel, and key is the middle third of qkv") {
  const TensorFile hf = with_names_of("hf", backbone());
  CHECK(names_of(hf) ==
        Names{"embeddings.cls_token", "embeddings.position_embeddings",
              "embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.projection.bias",
              "encoder.layer.0.layernorm_before.weight", "encoder.layer.0.attention.attention.query.weight",
              "encoder.layer.0.attention.attention.key.weight",
              "encoder.layer.0.attention.attention.value.weight",
              "encoder.layer.0.attention.attention.query.bias",
              "encoder.layer.0.attention.attention.key.bias",
              "encoder.layer.0.attention.attention.value.bias", "encoder.layer.0.attention.output.dense.bias",
              "encoder.layer.0.layernorm_after.bias", "encoder.layer.0.intermediate.dense.bias",
              "encoder.layer.0.output.dense.weight", "layernorm.weight"});
  const NamedTensor& key = *hf.find("encoder.layer.0.attention.attention.key.weight");
  CHECK(key.shape == std::vector<int64_t>{2, 2});
  CHECK(to_floats(key) == std::vector<float>{4, 5, 6, 7});
}

TEST_CASE("query, key and value must all be there, with one dtype and shape") {
  const std::string base = "encoder.layer.0.attention.attention.";
  const auto message = [](TensorFile file) {
    return message_of<FormatError>([&] { with_our_names(std::move(file), "teacher", "f"); });
  };
  CHECK(message(file_of({base + "query.bias", base + "value.bias"})) ==
        "f: 'blocks.0.attn.qkv.bias': expected query, key and value, found no attention.attention.key");
  TensorFile file = file_of({base + "query.bias", base + "key.bias"});
  file.tensors.push_back(tensor_of<float>(base + "value.bias", {2}, {1, 2}));
  CHECK_THAT(message(file), Catch::Contains("of one dtype and shape, found f32 [2] beside f32 [1]"));
  CHECK_THAT(message(file_of({base + "key.bias", "vit." + base + "key.bias"})),
             Catch::Contains("found twice"));
}

TEST_CASE("names that Hugging Face's ViTModel lacks are kept on reading and refused on writing") {
  CHECK(names_of(ours({"embeddings.cls_token", "embeddings.mask_token"}).tensors) ==
        Names{"cls_token", "embeddings.mask_token"});
  CHECK_THROWS_AS(with_names_of("hf", file_of({"layer1.0.conv1.weight"}).tensors), FormatError);
  CHECK_THROWS_AS(with_names_of("hf", file_of({"blocks.0.attn.qkv.weight"}).tensors), FormatError);
}

TEST_CASE("reference and timm exports hold the backbone under our names") {
  for (const char* style : {"reference", "timm"}) {
    const TensorFile file = with_names_of(style, backbone());
    CHECK(file.tensors.size() == backbone().size() - 1);
    CHECK(file.find("blocks.0.attn.qkv.weight") != nullptr);
    CHECK(file.find("head.mlp.0.weight") == nullptr);
  }
  CHECK_THROWS_AS(with_names_of("keras", backbone()), UsageError);
}

TEST_CASE("load_weights knows its formats by their contents, whatever the file's name") {
  const TemporaryFolder folder;
  save_safetensors(folder / "weights.bin", with_names_of("hf", backbone()));
  CHECK(load_weights(folder / "weights.bin").style == "hf");
  for (const char* key : {"teacher", "student"}) {
    const WeightsFile file = load_weights(golden("training_checkpoint.pth"), key);
    CHECK(file.style == "reference");
    CHECK(names_of(file.tensors) == Names{"cls_token", "norm.weight", "norm.bias", "head.mlp.weight",
                                          "head.mlp.bias", "head.last_layer.weight_g",
                                          "head.last_layer.weight_v"});
  }
  CHECK(load_weights(golden("tensors_legacy.pth")).tensors.find("dense") != nullptr);
}

TEST_CASE("load_weights says in one line which formats it reads") {
  const TemporaryFolder folder;
  for (const std::string text : {"", "\x89PNG\r\n\x1a\n", "\x80\x04N.", "some text of a user\n"}) {
    write_text(folder / "f", text);
    CHECK(message_of<FormatError>([&] { load_weights(folder / "f"); }) ==
          (folder / "f") +
              ": expected a safetensors file or a .pth file of torch.save, found another kind of file");
  }
  CHECK_THROWS_AS(load_weights(folder / "absent"), UsageError);
}
