#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "train/commands/commands.h"
#include "train/information.h"
#include "train/json_text.h"
#include "train/report/report.h"

namespace dino {
namespace {

constexpr size_t kMostStages = 3;  ///< checkpoints whose features are shown

struct Options {
  std::string run, out, data, device = "auto";
  int images = 6, threads = 0;
  bool json = false;
};

/// The first, some between, and the last of the checkpoints.
std::vector<std::string> stages_of(const std::vector<std::string>& weights) {
  if (weights.size() <= kMostStages) return weights;
  std::vector<std::string> stages;
  for (size_t i = 0; i < kMostStages; ++i) stages.push_back(weights[i * (weights.size() - 1) / (kMostStages - 1)]);
  return stages;
}

/// Pictures, or a note on why there are none: a report of the numbers is better than no report.
void add_pictures(const Options& options, const RunRecord& run, ReportExtras& extras) {
  if (options.images == 0) return;
  try {
    const std::unique_ptr<Dataset> dataset = Dataset::open(run.config.data, image_kind(run.config));
    extras.pictures.push_back(crop_pictures(run, *dataset, options.images));
    if (run.weights.empty()) extras.notes.push_back(run.folder + " holds no checkpoint yet: nothing to show of its features.");
    Context context(options.threads, device_named(options.device));
    for (const std::string& weights : stages_of(run.weights))
      extras.pictures.push_back(feature_pictures(context, run, weights, *dataset, options.images));
    if (!run.weights.empty()) extras.pictures.push_back(hardest_pictures(context, run, run.weights.back(), *dataset, options.images));
  } catch (const DataError& error) {
    extras.notes.push_back(str("Pictures: ", error.what(), ". --data says where the images are now."));
  } catch (const FormatError& error) {
    extras.notes.push_back(str("Pictures: ", error.what()));
  }
}

void make_report(const Options& options) {
  RunRecord run = read_run(options.run);
  const std::string out =
      options.out.empty() ? (std::filesystem::path(options.run) / "report.html").string() : options.out;
  check_writable(out);
  if (!options.data.empty()) run.config.data = options.data;
  const nlohmann::json machine = build_and_machine();
  ReportExtras extras{{}, {}, machine};
  add_pictures(options, run, extras);
  for (const std::string& note : extras.notes) std::cerr << "note: " << note << '\n';
  const std::string html = report_html(run, extras);
  write_file(out, {bytes_of_text(html)});
  if (options.json)
    std::cout << json_text(nlohmann::json{{"report", out}, {"bytes", html.size()}, {"notes", extras.notes}})
              << '\n';
  else
    std::cout << out << '\n';
}

}  // namespace

void add_report_command(CLI::App& parent) {
  CLI::App& command = *parent.add_subcommand("report", "Write one page of HTML about a run: curves, crops, attention, neighbours, configuration");
  auto options = std::make_shared<Options>();
  command.add_option("--run", options->run, "The --out folder of a `train`, finished or not")->required();
  command.add_option("--out", options->out, "The file to write (default: report.html in that folder)");
  command.add_option("--data,--data-path", options->data, "Where the run's images are now (default: where they were)");
  command.add_option("--images", options->images, "Images in each part; 0: none")->capture_default_str();
  command.add_option("--threads", options->threads, "0: one per processor")->capture_default_str();
  command.add_option("--device", options->device, "auto, cpu or cuda")->capture_default_str();
  command.add_flag("--json", options->json, "One JSON object on stdout");
  command.callback([options] { make_report(*options); });
}

}  // namespace dino
