#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/report/pictures.h"
#include "train/report/run_record.h"

namespace dino {

/// What a report shows apart from the run's own files.
struct ReportExtras {
  std::vector<PictureTable> pictures;
  std::vector<std::string> notes;  ///< what is missing, and why
  const nlohmann::json& machine;   ///< names and values
};

/// A run as one page of HTML that needs nothing else: summary, curves of what was logged, schedules, pictures, configuration and
/// machine. It follows the browser's light or dark theme.
std::string report_html(const RunRecord& run, const ReportExtras& extras);

}  // namespace dino
