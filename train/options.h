#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/config.h"

namespace dino {

/// One option of `train`: its name without dashes in front, its help, and access to its value.
struct Option {
  std::string name;
  std::vector<std::string> aliases;  ///< names of the reference implementation where they differ
  std::string group, help;
  int max_values = 1;                ///< on the command line; text has them separated by commas
  bool truth_value = false;          ///< may stand without a value, which means true
  /// Sets the value from text. Throws UsageError for text that is no such value.
  std::function<void(const std::string& text)> set;
  std::function<nlohmann::json()> get;
  std::string source = "default";    ///< where the value came from: default, recipe, run (what a run that goes on began with), config or flag
  std::string reason{};              ///< why a recipe gave it this value
};

/// All options of `config`, which must outlive the result.
std::vector<Option> options_of(TrainConfig& config);

/// Sets options from a run's config.json (an object from names to values). Throws UsageError naming file and key.
void read_config_file(const std::string& path, std::vector<Option>& options);

/// The resolved configuration as in config.json: names and values, without those that do not shape the result (`out`).
nlohmann::json to_json(const std::vector<Option>& options);

/// Finds an option by name or alias, dashes and underscores alike; null if there is none.
Option* find_option(std::vector<Option>& options, const std::string& name);

}  // namespace dino
