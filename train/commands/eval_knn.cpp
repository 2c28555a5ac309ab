#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "train/commands/commands.h"
#include "train/commands/network_options.h"
#include "train/evaluate/knn.h"

namespace dino {
namespace {

struct Options {
  NetworkOptions network;
  EvaluationData data;
  KnnConfig knn;
};

/// Features of both sets, by the network or as plain pixels.
std::pair<FeatureSet, FeatureSet> both_features(Context& context, const Options& options,
                                                FeatureConfig& config) {
  if (options.network.pixels()) {
    config = options.network.pixel_config();
    const auto train = open_labelled(options.data.train, config.images.kind());
    const auto val = open_labelled(options.data.val, config.images.kind());
    return {extract_pixels(context, *train, config, progress_of("train")),
            extract_pixels(context, *val, config, progress_of("val"))};
  }
  LoadedBackbone network = options.network.load_network();
  config = options.network.feature_config(network.recipe);
  const auto train = open_labelled(options.data.train, config.images.kind());
  const auto val = open_labelled(options.data.val, config.images.kind());
  calibrate_if_random(context, network, *train, config);
  FeatureSet train_features = features_of(context, network, *train, config, "train");
  return {std::move(train_features), features_of(context, network, *val, config, "val")};
}

void eval_knn(Options options) {
  options.data.resolve();
  Context context = options.network.make_context();
  FeatureConfig config;
  const auto [train, val] = both_features(context, options, config);
  const KnnResult result = knn(context, train, val, options.knn);
  log_lines("note: ", result.notes);
  if (options.network.json) {
    nlohmann::json object = to_json(result);
    object["protocol"]["features"] = options.network.pixels() ? "pixels" : "cls";
    object["protocol"]["dim"] = train.dim;
    object["protocol"]["image_size"] = config.images.size;
    object["skipped"] = train.failed.size() + val.failed.size();
    std::cout << object.dump() << '\n';
    return;
  }
  for (const KnnScore& score : result.scores)
    std::cout << score.k << "-NN classifier result: Top1: " << score.top1 << ", Top5: " << score.top5 << '\n';
}

}  // namespace

void add_eval_commands(CLI::App& parent) {
  CLI::App* eval = parent.add_subcommand("eval", "Measure how good the features of a network are");
  eval->require_subcommand(1);
  add_eval_knn_command(*eval);
  add_eval_linear_command(*eval);
}

void add_eval_knn_command(CLI::App& eval) {
  CLI::App& command = *eval.add_subcommand(
      "knn", "Weighted k-nearest-neighbour classification; --arch pixels for a baseline without network");
  auto options = std::make_shared<Options>();
  options->network.batch_size = 128;
  add_data_options(command, options->data);
  add_network_options(command, options->network);
  add_image_options(command, options->network);
  command.add_option("--nb-knn,--k", options->knn.k, "Numbers of neighbours")->capture_default_str();
  command.add_option("--temperature", options->knn.temperature, "Of the votes: exp(cosine / temperature)")
      ->capture_default_str();
  command.add_flag("--json", options->network.json, "One JSON object on stdout");
  add_ignored_options(command, {"num-workers", "use-cuda", "dist-url", "local-rank"});
  command.callback([options] { eval_knn(*options); });
}

}  // namespace dino
