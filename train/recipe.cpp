#include "train/recipe.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"
#include "models/registry.h"
#include "train/image_settings.h"

namespace dino {
namespace {

using Table = std::vector<RecipeValue>;

/// The reference's README, "Boosting DINO performance": 73.3 % k-NN, 76.0 % linear on ImageNet.
Table imagenet() {
  return {{"arch", "vit_small", "the reference's network (README)"},
          {"patch-size", "16", "14 x 14 patches of a 224-pixel crop (README)"},
          {"out-dim", "65536", "69.7 % k-NN, more than with 1,024 to 16,384 or 262,144 prototypes (paper, appendix)"},
          {"epochs", "300", "README; 72.8 % k-NN after 300 epochs, 70.9 % after 100 (paper, appendix)"},
          {"batch-size", "1024", "16 GPUs with 64 images each (README)"},
          {"accumulate", "16", "parts of 64 images, as on 16 GPUs: exactly the result of the whole batch in a fraction of its memory"},
          {"teacher-temp", "0.07", "README"},
          {"warmup-teacher-temp-epochs", "30", "README; a constant 0.08 collapses, 0.04 to 0.07 does not (paper, appendix)"},
          {"norm-last-layer", "false", "README; safe with small networks only"}};
}

/// What the reference's released ViT-S/16 was trained with: 74.5 % k-NN, 77.0 % linear.
Table imagenet_boosted() {
  Table table = imagenet();
  const Table more = {{"epochs", "800", "74.5 % k-NN, 72.8 % after 300 epochs (paper, appendix)"},
                      {"local-crops-number", "10", "released arguments; 74.6 % linear, 73.8 % with 6 (paper, table 8)"},
                      {"global-crops-scale", "0.25,1", "released arguments; 69.7 % k-NN at 0.24, 68.0 % at 0.16 (paper, appendix)"},
                      {"local-crops-scale", "0.05,0.25", "released arguments: up to where global crops begin"},
                      {"clip-grad", "0", "released arguments: no clipping"},
                      {"min-lr", "1e-5", "released arguments"}};
  for (const RecipeValue& value : more) {
    std::erase_if(table, [&](const RecipeValue& old) { return old.option == value.option; });
    table.push_back(value);
  }
  return table;
}

/// The reference's README, "ResNet-50 and other convnets trainings": 67.5 % k-NN, 75.3 % linear after its released, longer training.
Table resnet50() {
  return {{"arch", "resnet50", "the reference's convolutional network (README)"},
          {"optimizer", "sgd", "README: for convolutional networks"},
          {"lr", "0.03", "README; grows with batches as the default does"},
          {"weight-decay", "1e-4", "README"},
          {"weight-decay-end", "1e-4", "README: constant"},
          {"global-crops-scale", "0.14,1", "README"},
          {"local-crops-scale", "0.05,0.14", "README"},
          {"batch-size", "512", "8 GPUs with 64 images each (README); batch norm does not allow --accumulate"},
          {"out-dim", "65536", "the reference's default"}};
}

/// Photographs, some thousand to a hundred thousand of them.
Table small() {
  return {{"arch", "vit_small", "the paper's smallest transformer"},
          {"patch-size", "16", "14 x 14 patches of a 224-pixel crop (paper)"},
          {"out-dim", "4096", "69.3 % k-NN against 69.7 % with 65,536 even on ImageNet (paper, appendix), and fewer prototypes than images"},
          {"epochs", "200", "20,000 images in batches of 128: 31,000 steps"},
          {"batch-size", "128", "57.9 % k-NN against 59.9 % with 1,024 (paper, table 9), and 8 times as many steps per epoch"},
          {"momentum-teacher", "0.99", "a half-life of 69 steps; 0.996 has 173, meant for runs of 125,000 steps and more"},
          {"local-crops-number", "6", "73.8 % linear, 74.6 % with 10 at a fifth more time (paper, table 8)"},
          {"global-crops-scale", "0.32,1", "69.8 % k-NN, the best of 0.08 to 0.48 (paper, appendix)"},
          {"local-crops-scale", "0.05,0.32", "up to where global crops begin (paper, appendix)"}};
}

/// What was measured on the projection head and the crops of 28- and 32-pixel images; see docs/results.md.
Table tiny_head_and_crops() {
  return {{"head-hidden-dim", "512", "as measured on CIFAR-10 (docs/results.md)"},
          {"head-bottleneck-dim", "128", "as measured on CIFAR-10 (docs/results.md)"},
          {"use-bn-in-head", "true", "without it, an earlier search on Fashion-MNIST learned nothing (74.1 to 74.3 % k-NN); with it, up to 84 %"},
          {"sinkhorn", "3", "83.7 % k-NN, 82.5 % with centering, after 300 steps of an earlier search on Fashion-MNIST"},
          {"lr", "0.008", "0.004 at batches of 128, as in the demo"},
          {"min-lr", "1e-5", "as in the demo"},
          {"weight-decay-end", "0.04", "constant, as in the demo"},
          {"drop-path-rate", "0", "as measured on CIFAR-10 (docs/results.md); transformers only"},
          {"local-crops-number", "4", "as in the demo and on CIFAR-10 (docs/results.md)"},
          {"local-crops-scale", "0.1,0.4", "a tenth of a 32 x 32 image has 10 x 10 pixels; as in the demo"},
          {"saturation", "0.4", "as measured on CIFAR-10 (docs/results.md)"},
          {"blur-prob-global1", "0.3", "as measured on CIFAR-10 (docs/results.md)"},
          {"blur-prob-global2", "0.3", "as of the first global crop"},
          {"blur-prob-local", "0.3", "as of the global crops"},
          {"blur-sigma", "0.3,1", "radii in pixels: 2 would be a sixteenth of the image (docs/results.md)"},
          {"solarize-prob", "0.1", "as measured on CIFAR-10 (docs/results.md)"}};
}

/// Images of about 32 pixels, such as CIFAR's.
Table tiny_images() {
  Table table = {{"arch", "conv_small", "learns within minutes, a transformer from scratch does not (docs/results.md)"},
                 {"patch-size", "4", "8 x 8 patches of a 32-pixel crop; transformers only"},
                 {"global-crops-size", "32", "as large as the images"},
                 {"local-crops-size", "16", "half of that, and whole patches"},
                 {"out-dim", "1024", "20,000 images: 20 for each prototype, as for ImageNet's 65,536 (docs/results.md)"},
                 {"batch-size", "128", "as in the demo and on CIFAR-10 (docs/results.md)"},
                 {"epochs", "10", "50,000 images in batches of 128: 3,900 steps; about 900 were enough to beat pixels in the demo"},
                 {"warmup-epochs", "1", "a tenth of the run, as in the demo"},
                 {"freeze-last-layer", "0.3", "about 100 steps of 50,000 images (docs/results.md)"},
                 {"momentum-teacher", "0.97", "a half-life of 23 steps: runs of some thousand steps (docs/results.md)"},
                 {"momentum-teacher-end", "0.998", "a half-life of 346 steps; at 1 the teacher would stop to learn (docs/results.md)"}};
  for (RecipeValue& value : tiny_head_and_crops()) table.push_back(std::move(value));
  return table;
}

/// Training that goes on from --init on other images.
Table going_on() {
  return {{"lr", "0.0001", "a fifth of the default: weights that have learned are refined, not learned anew"},
          {"freeze-backbone-epochs", "1", "until the new projection head fits the features, its gradients would only disturb them"},
          {"layer-decay", "0.75", "early layers serve all images; the rate of fine-tuned ViT-B in MAE (He et al., 2022), 0.65 in BEiT (Bao et al., 2022)"},
          {"warmup-epochs", "2", "one of them with the backbone frozen"},
          {"epochs", "20", "feature_similarity_to_init in the log tells how far the run went"},
          {"out-dim", "4096", "69.3 % k-NN against 69.7 % with 65,536 on ImageNet (paper, appendix), for fewer images"},
          {"weight-decay-end", "0.04", "constant: a short run that must not shrink what it was given"}};
}

struct Named {
  const char* name;
  Table (*table)();  ///< null for auto
};
constexpr Named kRecipes[] = {{"auto", nullptr},       {"imagenet", imagenet},       {"imagenet-boosted", imagenet_boosted}, {"resnet50", resnet50},
                              {"small", small},        {"tiny-images", tiny_images}, {"continue", going_on}};

const Named& find_recipe(const std::string& name) {
  std::vector<std::string> names;
  for (const Named& recipe : kRecipes) {
    if (name == recipe.name) return recipe;
    names.emplace_back(recipe.name);
  }
  const std::string near = nearest(name, names);
  throw UsageError(str("--recipe ", name, " is not known", near.empty() ? "" : str("; did you mean ", near, "?"), " (known: ", recipe_list(), ")"));
}

int64_t chosen(const std::vector<Option>& options, const char* source) {
  return std::count_if(options.begin(), options.end(), [&](const Option& option) { return option.source == source; });
}

/// What the run whose checkpoint this is began with: the options that shape its result.
void go_on(const std::string& checkpoint, std::vector<Option>& options) {
  const TensorFile file = load_safetensors(checkpoint);
  const auto recorded = file.metadata.find("config");
  const auto before = recorded == file.metadata.end() ? nlohmann::json() : nlohmann::json::parse(recorded->second, nullptr, false);
  check<FormatError>(before.is_object(), checkpoint, ": is no training checkpoint: its metadata has no config");
  for (Option& option : options) {
    const auto value = before.find(option.name);
    if (option.source != "default" || value == before.end()) continue;
    option.set(value->is_string() ? value->get<std::string>() : value->dump());
    option.source = "run";
  }
}

}  // namespace

std::string recipe_list() {
  std::string text;
  for (const Named& recipe : kRecipes) text += str(text.empty() ? "" : ", ", recipe.name);
  return text;
}

void choose(std::vector<Option>& options, const RecipeValue& value) {
  Option* option = find_option(options, value.option);
  check(option != nullptr, "recipe: ", value.option, " is not an option");
  if (option->source != "default") return;
  option->set(value.value);
  option->source = "recipe";
  option->reason = value.reason;
}

std::vector<RecipeValue> recipe_table(const std::string& name) {
  const Named& recipe = find_recipe(name);
  check<UsageError>(recipe.table != nullptr, "recipe: ", name, " depends on the data");
  return recipe.table();
}

DataFacts look_at(const Dataset& dataset) {
  constexpr size_t kLookedAt = 64;
  const size_t count = std::min(kLookedAt, dataset.size());
  std::vector<int64_t> sides;
  std::string first_failure;
  for (size_t i = 0; i < count; ++i) {
    try {
      int64_t side = 0;
      // A JPEG tells its size before it is decoded, and is then decoded as small as can be.
      const Image image = dataset.load_reduced(i * dataset.size() / count, [&](int height, int width) {
        side = std::min(height, width);
        return 8;
      });
      sides.push_back(side > 0 ? side : std::min(image.height, image.width));
    } catch (const DataError& error) {
      if (first_failure.empty()) first_failure = error.what();
    }
  }
  check<DataError>(!sides.empty(), "--recipe auto: none of ", count, " images can be read; the first: ", first_failure);
  const auto middle = sides.begin() + static_cast<int64_t>(sides.size() / 2);
  std::nth_element(sides.begin(), middle, sides.end());
  return {static_cast<int64_t>(dataset.size()), *middle};
}

void apply_recipe(const std::string& name, std::vector<Option>& options, TrainConfig& config) {
  const Named& recipe = find_recipe(name);
  const std::string checkpoint = (std::filesystem::path(config.out) / "checkpoint.safetensors").string();
  std::error_code unknown;
  if (std::filesystem::exists(checkpoint, unknown)) {
    go_on(checkpoint, options);
    std::fprintf(stderr, "recipe: %s goes on with the options that it began with; --recipe is for new runs\n", config.out.c_str());
    return;
  }
  if (recipe.table) {
    for (const RecipeValue& value : recipe.table()) choose(options, value);
    check<UsageError>(name != "continue" || !config.init.empty(), "--recipe continue needs --init: the weights to go on from");
  } else {
    check<UsageError>(!config.data.empty(), "--recipe auto needs --data");
    const std::unique_ptr<Dataset> dataset = Dataset::open(config.data);
    TrainConfig settled = config;
    settle_kind(settled, *dataset);
    apply_auto(look_at(*dataset), options, config);
  }
  std::fprintf(stderr, "recipe %s: set %ld options; --dump-config tells why\n", name.c_str(), static_cast<long>(chosen(options, "recipe")));
}

}  // namespace dino
