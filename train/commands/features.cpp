#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "augment/image_kind.h"
#include "engine/atomic_file.h"
#include "engine/npy.h"
#include "train/commands/commands.h"
#include "train/commands/network_options.h"
#include "train/evaluate/knn.h"
#include "train/json_text.h"
#include "train/limits.h"

namespace dino {
namespace {

struct Options {
  NetworkOptions network;
  std::string data, out, pool = "cls";
  int64_t n_last_blocks = 1;
  bool avgpool = false, l2 = false;
};

nlohmann::json description(const Options& options, const FeatureConfig& config, const FeatureSet& set) {
  return {{"paths", set.names},
          {"labels", set.labels},
          {"classes", set.classes},
          {"images", set.images},
          {"dim", set.dim},
          {"skipped", set.failed},
          {"protocol",
           {{"pool", options.pool},
            {"n_last_blocks", options.n_last_blocks},
            {"avgpool_patchtokens", options.avgpool},
            {"l2", options.l2},
            {"image_size", config.images.size},
            {"channels", config.images.channels},
            {"pixel_type", name_of(config.images.samples)}}}};
}

void extract(const Options& options) {
  check<UsageError>(options.out.ends_with(".npy"), "--out must end in .npy; got ", shown_value(options.out));
  const std::filesystem::path folder = std::filesystem::path(options.out).parent_path();
  std::error_code unknown;
  check<UsageError>(folder.empty() || std::filesystem::is_directory(folder, unknown), "--out ",
                    shown_value(options.out), ": its folder does not exist");
  const std::string beside = std::filesystem::path(options.out).replace_extension(".json").string();
  check_writable(options.out);
  check_writable(beside);
  Context context = options.network.make_context();
  LoadedBackbone network = options.network.load_network();
  FeatureConfig config = options.network.feature_config(network.recipe);
  config.pool = pool_of(options.pool);
  config.n_last_blocks = options.n_last_blocks;
  config.avgpool = options.avgpool;
  config.l2 = options.l2;
  feature_length(network.backbone, config);  // throws for a combination that cannot be
  const auto dataset = open_images(options.data, config.images.kind());
  calibrate_if_random(context, network, *dataset, config);
  const FeatureSet set = features_of(context, network, *dataset, config, "features");
  std::vector<std::string> notes;
  check_features(set, options.data, notes);
  log_lines("note: ", notes);

  save_npy(options.out, set.values, {set.images, set.dim});
  write_file(beside, {bytes_of_text(json_text(description(options, config, set)) + "\n")});
  if (options.network.json)
    std::cout << json_text(nlohmann::json{{"features", options.out},
                                          {"description", beside},
                                          {"images", set.images},
                                          {"dim", set.dim},
                                          {"skipped", set.failed.size()}})
              << '\n';
  else
    std::cout << options.out << ": " << set.images << " x " << set.dim << ", " << set.failed.size()
              << " skipped\n";
}

}  // namespace

void add_features_command(CLI::App& parent) {
  CLI::App& command = *parent.add_subcommand(
      "features", "Write the features of images as .npy, and their paths and labels as .json");
  auto options = std::make_shared<Options>();
  command.add_option("--data,--data-path", options->data, "Images: folder, list, .tar, IDX, CIFAR .bin")
      ->required();
  command.add_option("--out", options->out, "The .npy file, [images, dim]")->required();
  add_network_options(command, options->network);
  add_image_options(command, options->network);
  command.add_option("--pool", options->pool, "Tokens: cls, mean (of the patches), cls+mean")
      ->capture_default_str();
  command.add_option("--n-last-blocks", options->n_last_blocks, "CLS tokens of so many blocks")
      ->capture_default_str();
  command.add_flag("--avgpool-patchtokens", options->avgpool, "CLS and mean patch token, element by element");
  command.add_flag("--l2", options->l2, "Scale every feature to length 1");
  command.add_flag("--json", options->network.json, "One JSON object on stdout");
  add_ignored_options(command, {"num-workers"});
  command.callback([options] { extract(*options); });
}

}  // namespace dino
