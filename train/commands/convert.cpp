#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/safetensors.h"
#include "models/checkpoint_names.h"
#include "train/commands/commands.h"
#include "train/json_text.h"
#include "train/limits.h"

namespace dino {
namespace {

struct Options {
  std::string in, out, style = "reference", checkpoint_key = "teacher";
  bool full = false, json = false;
};

bool of_head(const NamedTensor& tensor) {
  return tensor.name.starts_with("head.") || tensor.name.starts_with("predictor.");
}

/// Backbone and head under the names of the reference's training checkpoints.
TensorFile with_head(const std::vector<NamedTensor>& tensors) {
  TensorFile file;
  file.metadata["format"] = "pt";
  for (const NamedTensor& tensor : tensors) {
    file.tensors.push_back(tensor);
    if (!of_head(tensor)) file.tensors.back().name = "backbone." + tensor.name;
  }
  return file;
}

void convert(const Options& options) {
  check<UsageError>(options.out.ends_with(".safetensors"),
                    "convert: the output must end in .safetensors; got ", shown_value(options.out));
  check_writable(options.out);
  check<UsageError>(!options.full || options.style == "reference",
                    "--full needs --to reference: ", options.style, " has no names for a projection head");
  const WeightsFile weights = load_weights(options.in, options.checkpoint_key);
  const std::vector<NamedTensor>& all = weights.tensors.tensors;
  std::vector<NamedTensor> kept;
  for (const NamedTensor& tensor : all)
    if (options.full || !of_head(tensor)) kept.push_back(tensor);
  check<UsageError>(!kept.empty(), options.in, ": there are no tensors of a backbone");
  TensorFile file = options.full ? with_head(kept) : with_names_of(options.style, kept);
  if (const auto config = weights.tensors.metadata.find("config"); config != weights.tensors.metadata.end())
    file.metadata.insert(*config);
  save_safetensors(options.out, file);
  if (options.json)
    std::cout << json_text(nlohmann::json{{"out", options.out},
                                          {"from", weights.style},
                                          {"to", options.style},
                                          {"tensors", kept.size()},
                                          {"of", all.size()}})
              << '\n';
  else
    std::cout << options.out << ": " << kept.size() << " of " << all.size() << " tensors, " << weights.style
              << " to " << options.style << (kept.size() < all.size() ? "; the head is left out\n" : "\n");
}

}  // namespace

void add_convert_command(CLI::App& parent) {
  CLI::App& command = *parent.add_subcommand(
      "convert", "Write the backbone of any checkpoint as safetensors with other names");
  auto options = std::make_shared<Options>();
  command.add_option("in", options->in, "Checkpoint of ours, .pth, or safetensors")->required();
  command.add_option("out", options->out, "The .safetensors file")->required();
  command.add_option("--to", options->style, "reference, timm (the same names), or hf")
      ->capture_default_str()
      ->check(CLI::IsMember({"reference", "timm", "hf"}));
  command.add_option("--checkpoint-key", options->checkpoint_key, "teacher or student")
      ->capture_default_str()
      ->check(CLI::IsMember({"teacher", "student"}));
  command.add_flag("--full", options->full, "With the projection head, as backbone.* and head.*");
  command.add_flag("--json", options->json, "One JSON object on stdout");
  command.callback([options] { convert(*options); });
}

}  // namespace dino
