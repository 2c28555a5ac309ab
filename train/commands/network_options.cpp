#include "train/commands/network_options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>

namespace dino {
namespace {

LoadOptions complete(const NetworkOptions& options) {
  LoadOptions load = options.load;
  if (!options.conv_widths.empty()) load.overrides.conv_widths = options.conv_widths;
  if (!options.mean.empty()) load.overrides.mean = options.mean;
  if (!options.deviation.empty()) load.overrides.deviation = options.deviation;
  return load;
}

std::string describe(const BackboneRecipe& recipe, const Backbone& backbone) {
  const BackboneConfig& config = recipe.backbone;
  std::string text = config.arch;
  if (const auto* vit = std::get_if<VisionTransformer>(&backbone))
    text += str(", patch ", vit->config().patch, ", ", vit->config().depth, " blocks, ", vit->config().heads,
                " heads", config.gelu == Activation::gelu_tanh ? ", gelu by tanh" : "");
  return text + str(", dim ", feature_dim(backbone), ", images of ", recipe.image_size, " pixels, ",
                    config.channels, " channels");
}

}  // namespace

LoadedBackbone NetworkOptions::load_network() const {
  check<UsageError>(!pixels(), "--arch pixels is not a network; only eval knn takes it");
  LoadOptions options = complete(*this);
  options.placement = placement_named(device, precision);
  LoadedBackbone network = load_backbone(options);
  std::cerr << "network: " << describe(network.recipe, network.backbone) << '\n';
  if (network.random)
    std::cerr << "weights: none given, the network is random (seed " << load.seed << ")\n";
  else
    std::cerr << "weights: " << load.path << ": " << network.match.text() << '\n';
  return network;
}

FeatureConfig NetworkOptions::feature_config(const BackboneRecipe& recipe) const {
  check<UsageError>(batch_size > 0, "--batch-size must be positive; got ", batch_size);
  FeatureConfig config{.batch_size = batch_size};
  config.images = {static_cast<int>(recipe.image_size), static_cast<int>(recipe.backbone.channels),
                   recipe.mean, recipe.deviation, recipe.samples};
  return config;
}

FeatureConfig NetworkOptions::pixel_config() const {
  const LoadOptions load_options = complete(*this);
  constexpr int64_t kPixels = 32;
  BackboneRecipe recipe{.image_size = load_options.overrides.image_size.value_or(kPixels)};
  recipe.backbone.channels = load_options.overrides.channels.value_or(3);
  apply_pixel_type(recipe, load_options.overrides);
  if (load_options.overrides.mean) recipe.mean = *load_options.overrides.mean;
  if (load_options.overrides.deviation) recipe.deviation = *load_options.overrides.deviation;
  return feature_config(recipe);
}

void add_network_options(CLI::App& command, NetworkOptions& options) {
  const std::string network = "Network (read from the weights where not given)", weights = "Weights";
  BackboneOverrides& o = options.load.overrides;
  command
      .add_option("--weights,--pretrained-weights", options.load.path,
                  "Checkpoint of ours, .pth of the reference, or safetensors (reference, timm, Hugging Face "
                  "names); none: random weights")
      ->group(weights);
  command
      .add_option("--checkpoint-key", options.load.checkpoint_key,
                  "Which network of a training checkpoint: teacher or student")
      ->capture_default_str()
      ->check(CLI::IsMember({"teacher", "student"}))
      ->group(weights);
  command.add_flag("--allow-partial", options.load.allow_partial, "Go on if some tensors do not match")
      ->group(weights);
  command.add_option("--seed", options.load.seed, "Of random weights and of all drawing")
      ->capture_default_str()
      ->group(weights);
  command.add_option("--arch", o.arch, "vit_tiny, vit_small, vit_base, resnet18 to resnet152, conv_small or hybrid_small")
      ->group(network);
  command.add_option("--patch-size", o.patch_size, "Pixels of a patch's side")->group(network);
  command.add_option("--channels", o.channels, "Channels of the images: 1 to 64")->group(network);
  command.add_option("--pixel-type", o.pixel_type, "What a pixel's channel is: uint8, uint16 or float32")->group(network);
  command.add_option("--embed-dim", o.embed_dim, "Width")->group(network);
  command.add_option("--depth", o.depth, "Blocks")->group(network);
  command.add_option("--heads", o.heads, "Attention heads (dim / 64 for foreign weights)")->group(network);
  command.add_option("--mlp-ratio", o.mlp_ratio, "Hidden over outer width of the MLPs")->group(network);
  command.add_option("--gelu", o.gelu, "erf, or tanh for weights that were trained with it")->group(network);
  command.add_option("--conv-widths", options.conv_widths, "Channels of the stages of conv_small")
      ->delimiter(',')
      ->group(network);
  command.add_option("--conv-pool", o.conv_pool, "Cells of a side of conv_small's pooled map")
      ->group(network);
  command.add_option("--mean", options.mean, "Normalisation, one value per channel")
      ->delimiter(',')
      ->group(network);
  command.add_option("--std", options.deviation, "Normalisation, one value per channel")
      ->delimiter(',')
      ->group(network);
}

void add_device_options(CLI::App& command, NetworkOptions& options) {
  command.add_option("--device", options.device, "auto, cpu or cuda")->capture_default_str();
  command.add_option("--precision", options.precision, "f32, or bf16")->capture_default_str();
}

void add_image_options(CLI::App& command, NetworkOptions& options) {
  command.add_option("--image-size", options.load.overrides.image_size,
                     "Pixels of a side that the network sees: short side to 8/7 of it, then centre crop");
  command.add_option("--batch-size,--batch-size-per-gpu", options.batch_size, "Images per forward pass")
      ->capture_default_str();
  command.add_option("--threads", options.threads, "0: one per processor")->capture_default_str();
  add_device_options(command, options);
}

void add_ignored_options(CLI::App& command, const std::vector<std::string>& names) {
  for (const std::string& name : names)
    command
        .add_option_function<std::string>(
            "--" + name,
            [name](const std::string&) {
              std::cerr << "note: --" << name << " has no meaning here and is ignored\n";
            },
            "Of the reference implementation; ignored")
        ->expected(0, 1)
        ->group("");
}

void add_data_options(CLI::App& command, EvaluationData& data) {
  command.add_option("--train", data.train,
                     "Labelled training images: folder of class folders, list, .tar, IDX, CIFAR .bin");
  command.add_option("--val", data.val, "Labelled images to be classified");
  command.add_option("--data-path", data.data_path, "Folder with train and val in it, instead of the two");
}

void EvaluationData::resolve() {
  if (!data_path.empty()) {
    if (train.empty()) train = (std::filesystem::path(data_path) / "train").string();
    if (val.empty()) val = (std::filesystem::path(data_path) / "val").string();
  }
  check<UsageError>(!train.empty(), "--train is missing: labelled training images");
  check<UsageError>(!val.empty(), "--val is missing: labelled images to be classified");
}

std::unique_ptr<Dataset> open_images(const std::string& path, ImageKind kind) {
  std::unique_ptr<Dataset> dataset = Dataset::open(path, kind);
  std::cerr << "data: " << path << ": " << dataset->size() << " images, " << dataset->class_names().size()
            << " classes\n";
  return dataset;
}

std::unique_ptr<Dataset> open_labelled(const std::string& path, ImageKind kind) {
  std::unique_ptr<Dataset> dataset = open_images(path, kind);
  check<UsageError>(dataset->labelled(), path,
                    ": not every image has a label; give a folder with one subfolder per class, "
                    "or a list of `path label`");
  return dataset;
}

Progress progress_of(const std::string& what) {
  if (!isatty(STDERR_FILENO)) return {};
  return [what](int64_t done, int64_t total) {
    std::cerr << '\r' << what << ": " << done << " of " << total << (done >= total ? "\n" : "") << std::flush;
  };
}

void log_lines(const std::string& prefix, const std::vector<std::string>& lines) {
  for (const std::string& line : lines) std::cerr << prefix << line << '\n';
}

FeatureSet features_of(Context& context, const LoadedBackbone& network, const Dataset& dataset,
                       const FeatureConfig& config, const std::string& what) {
  FeatureSet set = extract_features(context, network.backbone, dataset, config, progress_of(what));
  log_lines("skipped: ", set.failed);
  return set;
}

void calibrate_if_random(Context& context, LoadedBackbone& network, const Dataset& dataset,
                         const FeatureConfig& config) {
  if (!network.random) return;
  if (const int64_t images =
          calibrate_batch_norm(context, network.backbone, *network.parameters, dataset, config))
    std::cerr << "batch norm: statistics of the random network taken from " << images << " images\n";
}

}  // namespace dino
