#include "train/commands/train_request.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "train/recipe.h"

namespace dino {
namespace {

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

void add_option(CLI::App& command, TrainRequest& request, Option& option) {
  std::string names = "--" + option.name;
  for (const std::string& alias : option.aliases) names += ",--" + alias;
  auto* added = command.add_option_function<std::vector<std::string>>(
      names, [&request, &option](const std::vector<std::string>& values) { request.flags.emplace_back(&option, joined(values)); },
      option.help + default_text(option));
  added->group(option.group)
      ->expected(option.truth_value ? 0 : 1, option.max_values)
      ->allow_extra_args(false);
  if (option.truth_value) added->default_str("true");  // what the bare flag means
  // A flag that is given twice counts as it was given last, as in the reference implementation.
  if (option.max_values <= 2) added->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

}  // namespace

void TrainRequest::add_to(CLI::App& command) {
  command.add_option("--config", config_file, "options from a JSON file, such as a run's config.json")->group("Run");
  command.add_option("--recipe", recipe, "values for a kind of data, which --config and flags override: " + recipe_list() + "; auto looks at the images")->group("Run");
  for (Option& option : options) add_option(command, *this, option);
  for (const auto& [name, why] : kReferenceOnly)
    command
        .add_option_function<std::string>(
            name, [name = name, why = why](const std::string&) { std::fprintf(stderr, "%s has no effect here: %s\n", name, why); }, why)
        ->group("Accepted from the reference, without effect");
}

void TrainRequest::resolve() {
  if (!config_file.empty()) read_config_file(config_file, options);
  for (const auto& [option, text] : flags) {
    option->set(option->truth_value && text.empty() ? "true" : text);
    option->source = "flag";
  }
  if (!recipe.empty()) apply_recipe(recipe, options, config);
}

}  // namespace dino
