#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

#include "train/options.h"

namespace dino {

/// The options of a training run as a command line gives them: what was said is kept and applied at once by `resolve`, so that the order
/// of flags and files does not matter. Must stay where it is (`options` points into `config`).
struct TrainRequest {
  TrainConfig config;
  std::vector<Option> options = options_of(config);
  std::vector<std::pair<Option*, std::string>> flags;
  std::string config_file, recipe;

  TrainRequest() { config.channels = 0; }  // as the images have
  TrainRequest(const TrainRequest&) = delete;
  TrainRequest& operator=(const TrainRequest&) = delete;

  /// Adds --config and one option for each of `options` to `command`, which must not outlive this.
  void add_to(CLI::App& command);

  /// Brings `config` up to date: defaults < --recipe < --config < flags. A run that goes on has what it began with in place of a
  /// recipe. Throws UsageError naming option and value, and what `apply_recipe` throws.
  void resolve();
};

}  // namespace dino
