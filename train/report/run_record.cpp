#include "train/report/run_record.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "train/json_text.h"
#include "train/limits.h"
#include "train/options.h"

namespace dino {
namespace fs = std::filesystem;
namespace {

std::vector<nlohmann::json> read_log(const std::string& path) {
  std::ifstream file(path);
  check<DataError>(file.good(), path, ": cannot be read; `train --out ", fs::path(path).parent_path().string(), "` writes it");
  std::vector<nlohmann::json> lines;
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    if (file.eof()) break;  // a line without an end is being written
    auto value = nlohmann::json::parse(line, nullptr, false);
    const bool numbers = value.is_object() && value.contains("step") && value["step"].is_number() && value.contains("epoch") &&
                         value["epoch"].is_number();
    check<DataError>(numbers, path, ": line ", number, " is not a JSON object with step and epoch");
    lines.push_back(std::move(value));
  }
  check<DataError>(!lines.empty(), path, ": no step was logged yet");
  return lines;
}

/// checkpoint0000.safetensors, …, and checkpoint.safetensors last.
std::vector<std::string> checkpoints(const std::string& folder) {
  std::vector<std::string> kept;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const std::string number = name.starts_with("checkpoint") ? name.substr(10, name.find('.') - 10) : "";
    if (!number.empty() && name.ends_with(".safetensors") &&
        std::all_of(number.begin(), number.end(), ::isdigit))
      kept.push_back(entry->path().string());
  }
  std::sort(kept.begin(), kept.end());
  const std::string last = (fs::path(folder) / "checkpoint.safetensors").string();
  if (fs::exists(last, error)) kept.push_back(last);
  return kept;
}

}  // namespace

std::vector<std::pair<double, double>> RunRecord::values(const std::string& key) const {
  std::vector<std::pair<double, double>> result;
  for (const nlohmann::json& line : log) {
    const auto value = line.find(key);
    if (value == line.end() || !value->is_number() || !std::isfinite(value->get<double>())) continue;
    result.emplace_back(line["epoch"].get<double>(), value->get<double>());
  }
  return result;
}

RunRecord read_run(const std::string& folder) {
  std::error_code unknown;
  check<DataError>(fs::is_directory(folder, unknown), "--run ", shown_value(folder),
                   ": is not a folder; give the --out of a `train`");
  RunRecord run;
  run.folder = folder;
  const std::string config = (fs::path(folder) / "config.json").string();
  check<DataError>(fs::exists(config, unknown), config, ": does not exist; `train --out ", folder,
                   "` writes it");
  std::vector<Option> options = options_of(run.config);
  read_config_file(config, options);
  run.options = to_json(options);
  run.machine = json_in((fs::path(folder) / "machine.json").string());
  run.log = read_log((fs::path(folder) / "log.jsonl").string());
  run.weights = checkpoints(folder);
  return run;
}

}  // namespace dino
