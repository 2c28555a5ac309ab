#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "augment/decode.h"
#include "augment/input_file.h"
#include "train/commands/commands.h"
#include "train/commands/network_options.h"
#include "train/evaluate/attention_maps.h"
#include "train/json_text.h"

namespace dino {
namespace {

struct Options {
  NetworkOptions network;
  std::string image, out;
  std::vector<int> size = {480, 480};
  double threshold = 0;
};

void draw(const Options& options) {
  check<UsageError>(options.size.size() == 1 || options.size.size() == 2,
                    "--image-size takes one or two numbers");
  Context context = options.network.make_context();
  LoadedBackbone network = options.network.load_network();
  const auto* vit = std::get_if<VisionTransformer>(&network.backbone);
  check<UsageError>(vit != nullptr, "attention: ", network.recipe.backbone.arch,
                    " has no attention; a vision transformer has");
  const auto patch = static_cast<int>(vit->config().patch);
  const Image image =
      decode(read_file(options.image), {static_cast<int>(vit->config().channels), network.recipe.samples}, options.image);
  const PreparedImage prepared =
      prepare_for_attention(context, image, options.size.front(), options.size.back(), patch,
                            network.recipe.mean, network.recipe.deviation);
  const AttentionMaps maps = attention_maps(context, *vit, prepared.input);
  const std::vector<std::string> files =
      save_attention(options.out, prepared, maps, patch, options.threshold);
  if (options.network.json)
    std::cout << json_text(nlohmann::json{
                     {"files", files}, {"heads", maps.heads}, {"rows", maps.rows}, {"cols", maps.cols}})
              << '\n';
  else
    for (const std::string& file : files) std::cout << file << '\n';
}

}  // namespace

void add_attention_command(CLI::App& parent) {
  CLI::App& command = *parent.add_subcommand("attention", "Draw what the last block's CLS token looks at");
  auto options = std::make_shared<Options>();
  command.add_option("--image,--image-path", options->image, "One image file")->required();
  command
      .add_option("--out,--output-dir", options->out,
                  "Folder for img.png, attn-head*.png, attn-mean.png, attention.npy")
      ->required();
  add_network_options(command, options->network);
  command.add_option("--image-size", options->size, "Height and width that the image is resized to")
      ->expected(1, 2)
      ->capture_default_str();
  command
      .add_option("--threshold", options->threshold,
                  "Also mark the patches that hold this share of the attention; 0: do not")
      ->capture_default_str();
  command.add_option("--threads", options->network.threads, "0: one per processor")->capture_default_str();
  add_device_options(command, options->network);
  command.add_flag("--json", options->network.json, "One JSON object on stdout");
  command.callback([options] { draw(*options); });
}

}  // namespace dino
