#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "train/commands/commands.h"
#include "train/commands/network_options.h"
#include "train/evaluate/linear.h"

namespace dino {
namespace {

struct Options {
  NetworkOptions network;
  EvaluationData data;
  LinearConfig linear;
  std::vector<double> lr;
  std::string protocol = "cached", out;
  std::optional<int64_t> n_last_blocks;
  std::optional<bool> avgpool;

  bool reference() const { return protocol == "reference"; }
};

/// The tokens of the paper: the last four CLS tokens of the smaller vision transformers; the last CLS token
/// and the mean patch of larger ones.
void choose_tokens(const Options& options, const Backbone& backbone, FeatureConfig& config) {
  constexpr int64_t kLarge = 768, kBlocks = 4;
  if (const auto* vit = std::get_if<VisionTransformer>(&backbone)) {
    const bool large = vit->dim() >= kLarge;
    config.avgpool = options.avgpool.value_or(large && options.n_last_blocks.value_or(1) == 1);
    config.n_last_blocks =
        options.n_last_blocks.value_or(config.avgpool ? 1 : std::min(kBlocks, vit->config().depth));
  } else {
    check<UsageError>(options.n_last_blocks.value_or(1) == 1 && !options.avgpool.value_or(false),
                      "--n-last-blocks and --avgpool-patchtokens need a network with tokens");
  }
  feature_length(backbone, config);  // throws for a combination that cannot be
}

/// Prints every validation and appends it to log.jsonl in the output folder, if there is one.
LinearLog log_to(const std::string& folder) {
  auto file = std::make_shared<std::ofstream>();
  if (!folder.empty()) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    check<UsageError>(!error, "--out ", folder, ": cannot be made: ", error.message());
    file->open(std::filesystem::path(folder) / "log.jsonl", std::ios::trunc);
    check<UsageError>(static_cast<bool>(*file), "--out ", folder, ": cannot write log.jsonl in it: ", std::strerror(errno));
  }
  return [file, folder](const LinearEpoch& epoch) {
    const nlohmann::json line = to_json(epoch);
    std::cerr << "epoch " << epoch.epoch << ": train loss " << line["train_loss"] << ", top1 "
              << line["test_acc1"] << '\n';
    if (!file->is_open()) return;
    *file << line.dump() << std::endl;
    check(file->good(), folder, ": cannot write log.jsonl: ", std::strerror(errno));
  };
}

void print(const LinearResult& result) {
  for (const LinearScore& score : result.sweep) {
    std::cout << "lr " << score.lr << ": Top1: " << score.last.top1;
    if (result.classes >= 5) std::cout << ", Top5: " << score.last.top5;
    std::cout << " (best Top1: " << score.best.top1 << " after epoch " << score.best_epoch << ")\n";
  }
  const LinearScore& best = result.sweep[result.best];
  std::cout << "Linear classifier result: Top1: " << best.last.top1;
  if (result.classes >= 5) std::cout << ", Top5: " << best.last.top5;
  std::cout << " (lr " << best.lr << ")\n";
}

void eval_linear(Options options) {
  options.data.resolve();
  options.linear.batch_size = options.network.batch_size;
  options.linear.seed = options.network.load.seed;
  if (options.reference()) options.linear.lr = {0.001};
  if (!options.lr.empty()) options.linear.lr = options.lr;

  Context context = options.network.make_context();
  LoadedBackbone network = options.network.load_network();
  FeatureConfig config = options.network.feature_config(network.recipe);
  choose_tokens(options, network.backbone, config);
  const auto train = open_labelled(options.data.train, config.images.kind());
  const auto val = open_labelled(options.data.val, config.images.kind());
  calibrate_if_random(context, network, *train, config);
  const LinearLog log = log_to(options.out);
  const FeatureSet val_features = features_of(context, network, *val, config, "val");
  const LinearResult result =
      options.reference() ? linear_probe_augmented(context, network.backbone, *train, val_features, config,
                                                   options.linear, log)
                          : linear_probe(context, features_of(context, network, *train, config, "train"),
                                         val_features, options.linear, log);
  log_lines("note: ", result.notes);

  nlohmann::json object = to_json(result, options.linear);
  nlohmann::json& protocol = object["protocol"];
  protocol["name"] = options.protocol;
  protocol["n_last_blocks"] = config.n_last_blocks;
  protocol["avgpool_patchtokens"] = config.avgpool;
  protocol["image_size"] = config.images.size;
  if (!options.out.empty())
    save_linear((std::filesystem::path(options.out) / "linear.safetensors").string(), result);
  if (options.network.json)
    std::cout << object.dump() << '\n';
  else
    print(result);
}

}  // namespace

void add_eval_linear_command(CLI::App& eval) {
  CLI::App& command = *eval.add_subcommand("linear", "A linear classifier on frozen features");
  auto options = std::make_shared<Options>();
  options->network.batch_size = 128;
  add_data_options(command, options->data);
  add_network_options(command, options->network);
  add_image_options(command, options->network);
  command
      .add_option("--protocol", options->protocol,
                  "cached: features computed once, several learning rates; reference: random crops anew in "
                  "every epoch")
      ->capture_default_str()
      ->check(CLI::IsMember({"cached", "reference"}));
  command.add_option("--epochs", options->linear.epochs, "Passes over the training images")
      ->capture_default_str();
  command
      .add_option(
          "--lr", options->lr,
          "Base learning rates, times batch / 256 (default: a sweep; with --protocol reference 0.001)")
      ->delimiter(',');
  command.add_option("--val-freq", options->linear.val_freq, "Epochs between validations")
      ->capture_default_str();
  command.add_option("--n-last-blocks", options->n_last_blocks,
                     "CLS tokens of so many blocks (default: 4, or 1 if dim is 768 or more)");
  command
      .add_option("--avgpool-patchtokens", options->avgpool,
                  "Also the mean patch token (default: if dim is 768 or more)")
      ->expected(0, 1);
  command.add_option("--out,--output-dir", options->out, "Folder for linear.safetensors and log.jsonl");
  command.add_flag("--json", options->network.json, "One JSON object on stdout");
  add_ignored_options(command, {"num-workers", "num-labels", "dist-url", "local-rank"});
  command.callback([options] { eval_linear(*options); });
}

}  // namespace dino
