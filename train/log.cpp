#include "train/log.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "kernels/error.h"

namespace dino {
namespace {

/// The whole lines of `path` that belong to steps before `step`.
std::vector<nlohmann::json> lines_before(const std::string& path, int64_t step) {
  std::ifstream file(path, std::ios::binary);
  std::vector<nlohmann::json> kept;
  for (std::string line; std::getline(file, line) && !file.eof();) {
    auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    if (json["step"].get<int64_t>() < step) kept.push_back(std::move(json));
  }
  return kept;
}

}  // namespace

StepLog::StepLog(const std::string& path, int64_t step) : path_(path), lines_(lines_before(path, step)) {
  std::string kept;
  for (const nlohmann::json& line : lines_) kept += line.dump() + "\n";
  write_file(path, {bytes_of_text(kept)});
  file_ = std::fopen(path.c_str(), "ab");
  check(file_ != nullptr, path, ": cannot be written: ", std::strerror(errno));
}

Signs signs_of(const nlohmann::json& line) {
  const auto value = [&](const char* name) {
    const auto found = line.find(name);
    return found != line.end() && found->is_number() ? found->get<double>() : Signs::kUnknown;
  };
  return {.step = line["step"].get<int64_t>(),
          .teacher_entropy = value("teacher_entropy"),
          .marginal_entropy = value("marginal_entropy"),
          .teacher_temp = value("teacher_temp"),
          .feature_std = value("feature_std"),
          .half_life = value("teacher_half_life_steps")};
}

StepLog::~StepLog() { std::fclose(file_); }

void StepLog::write(const nlohmann::json& line) {
  const std::string text = line.dump() + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file_) == text.size() && std::fflush(file_) == 0;
  check(written, path_, ": cannot be written: ", std::strerror(errno));
}

}  // namespace dino
