#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "train/commands/commands.h"
#include "train/options.h"
#include "train/session.h"

namespace dino {
namespace {

/// What the command line said, before it is applied over a configuration file.
struct Request {
  TrainConfig config;
  std::vector<Option> options = options_of(config);
  std::vector<std::pair<Option*, std::string>> flags;
  std::string config_file;
  bool dump_config = false;
};

/// Flags of the reference implementation that scripts may pass and that mean nothing here.
constexpr std::pair<const char*, const char*> kReferenceOnly[] = {
    {"--use-fp16", "the number format is --precision"},
    {"--dist-url", "one process trains"},
    {"--local-rank", "one process trains"},
};

std::string joined(const std::vector<std::string>& values) {
  std::string text;
  for (const std::string& value : values) text += (text.empty() ? "" : ",") + value;
  return text;
}

std::string default_text(const Option& option) {
  const nlohmann::json value = option.get();
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  return text.empty() ? "" : " [" + text + "]";
}

void add_option(CLI::App& command, Request& request, Option& option) {
  std::string names = "--" + option.name;
  for (const std::string& alias : option.aliases) names += ",--" + alias;
  auto* added = command.add_option_function<std::vector<std::string>>(
      names, [&request, &option](const std::vector<std::string>& values) { request.flags.emplace_back(&option, joined(values)); },
      option.help + default_text(option));
  added->group(option.group)->expected(option.truth_value ? 0 : 1, option.max_values);
  if (option.truth_value) added->default_str("true");  // what the bare flag means
  // A flag that is given twice counts as it was given last, as in the reference implementation.
  if (option.max_values <= 2) added->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

void resolve(Request& request) {
  if (!request.config_file.empty()) read_config_file(request.config_file, request.options);
  for (const auto& [option, text] : request.flags) {
    option->set(option->truth_value && text.empty() ? "true" : text);
    option->source = "flag";
  }
}

void dump(const Request& request) {
  for (const Option& option : request.options)
    std::printf("%-28s %-24s %s\n", option.name.c_str(), option.get().dump().c_str(), option.source.c_str());
}

}  // namespace

void add_train_command(CLI::App& parent, int& exit_code) {
  auto* command = parent.add_subcommand("train", "Train DINO on a folder of images; goes on from --out if it holds a checkpoint");
  auto request = std::make_shared<Request>();
  command->add_option("--config", request->config_file, "options from a JSON file, such as a run's config.json")->group("Run");
  command->add_flag("--dump-config", request->dump_config, "print each option's value and where it came from, and end")->group("Run");
  for (Option& option : request->options) add_option(*command, *request, option);
  for (const auto& [name, why] : kReferenceOnly)
    command->add_option_function<std::string>(
        name, [name = name, why = why](const std::string&) { std::fprintf(stderr, "%s has no effect here: %s\n", name, why); }, why)
        ->group("Accepted from the reference, without effect");
  command->callback([request, &exit_code] {
    resolve(*request);
    if (request->dump_config) dump(*request);
    else exit_code = run_session(request->config);
  });
}

}  // namespace dino
