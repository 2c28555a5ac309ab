#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/config.h"

namespace dino {

/// What a run wrote into its folder.
struct RunRecord {
  std::string folder;
  TrainConfig config;
  nlohmann::json options;            ///< config.json
  nlohmann::json machine;            ///< machine.json: names and values of where the run was last; null if there is none
  std::vector<nlohmann::json> log;   ///< the objects of log.jsonl, in its order
  std::vector<std::string> weights;  ///< checkpoints that were kept, oldest first, and the last one

  /// The values of `key` where they are finite numbers, over the epoch.
  std::vector<std::pair<double, double>> values(const std::string& key) const;
};

/// Reads the folder of a run, also one that is going on: a last line that is not whole yet is left out. Throws DataError for
/// a folder without configuration or log, and names file and line where they are not what `train` writes.
RunRecord read_run(const std::string& folder);

}  // namespace dino
