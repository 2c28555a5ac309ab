#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/doctor.h"

namespace dino {

/// log.jsonl: one JSON object per logged step, each on one line. The file holds no times, so that equal runs write equal
/// logs.
class StepLog {
 public:
  /// Opens `path` for appending after cutting it back to lines whose "step" is below `step`, as well as anything that is
  /// not a whole line. Throws Error if it cannot be written.
  StepLog(const std::string& path, int64_t step);
  ~StepLog();
  StepLog(const StepLog&) = delete;
  StepLog& operator=(const StepLog&) = delete;

  void write(const nlohmann::json& line);

  /// The lines that were kept when it was opened.
  const std::vector<nlohmann::json>& lines() const { return lines_; }

 private:
  std::string path_;
  std::vector<nlohmann::json> lines_;
  std::FILE* file_;
};

/// What a line of the log says of the run's health: the same for the session that wrote it and for one that goes on. The line must have a
/// whole number "step"; whatever else is missing or no number is unknown.
Signs signs_of(const nlohmann::json& line);

}  // namespace dino
