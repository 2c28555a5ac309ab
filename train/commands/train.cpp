#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "train/commands/commands.h"
#include "train/commands/train_request.h"
#include "train/json_text.h"
#include "train/replay.h"
#include "train/session.h"

namespace dino {
namespace {

void dump(const std::vector<Option>& options) {
  for (const Option& option : options) {
    const std::string source = option.source + (option.reason.empty() ? "" : "   " + option.reason);
    std::printf("%-28s %-24s %s\n", option.name.c_str(), json_text(option.get()).c_str(), source.c_str());
  }
}

/// One object from names to value, source and, for what a recipe chose, reason.
void dump_json(const std::vector<Option>& options) {
  auto all = nlohmann::json::object();
  for (const Option& option : options) {
    all[option.name] = {{"value", option.get()}, {"source", option.source}};
    if (!option.reason.empty()) all[option.name]["reason"] = option.reason;
  }
  std::printf("%s\n", json_text(all).c_str());
}

/// Options that nobody gave are those of the run in --out.
void use_options_of_run(TrainRequest& request) {
  std::string out;
  for (const auto& [option, text] : request.flags)
    if (option->name == "out") out = text;
  check<UsageError>(!out.empty(), "--replay needs --out: the folder of the run that has the step");
  if (request.config_file.empty()) request.config_file = (std::filesystem::path(out) / "config.json").string();
}

}  // namespace

void add_train_command(CLI::App& parent, int& exit_code) {
  auto* command = parent.add_subcommand("train", "Train DINO on a folder of images; goes on from --out if it holds a checkpoint");
  auto request = std::make_shared<TrainRequest>();
  auto dump_config = std::make_shared<bool>(false);
  auto json = std::make_shared<bool>(false);
  auto every_step = std::make_shared<bool>(false);
  auto replayed = std::make_shared<std::optional<int64_t>>();
  command->add_flag("-v,--verbose", *every_step, "show every step, not only those that are logged")->group("Run");
  command->add_flag("--dump-config", *dump_config, "print each option's value and where it came from, with a recipe's reasons, and end")->group("Run");
  command->add_flag("--json", *json, "with --dump-config or --replay: as one JSON object")->group("Run");
  command->add_option("--replay", *replayed, "repeat this step of the run in --out, print what it computed and what of it was not finite, and end; writes nothing")->group("Run");
  request->add_to(*command);
  command->callback([request, dump_config, json, every_step, replayed, &exit_code] {
    if (*replayed) use_options_of_run(*request);
    request->resolve();
    if (*replayed) replay_step(request->config, **replayed, *json);
    else if (*dump_config) *json ? dump_json(request->options) : dump(request->options);
    else exit_code = run_session(request->config, *every_step);
  });
}

}  // namespace dino
