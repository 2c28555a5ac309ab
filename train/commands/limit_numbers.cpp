#include <CLI/CLI.hpp>

#include "kernels/error.h"
#include "train/commands/commands.h"
#include "train/limits.h"

namespace dino {
namespace {

/// What CLI11 calls the type of an option.
enum class Number { none, whole, natural, real };

Number number_in(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  return type == "INT"     ? Number::whole
         : type == "UINT"  ? Number::natural
         : type == "FLOAT" ? Number::real
                           : Number::none;
}

/// What is wrong with `text`; empty if nothing is. CLI11 itself takes numbers that are too large for the
/// largest, and no numbers as such.
std::string problem_of(Number kind, const std::string& name, const std::string& text) {
  try {
    if (kind == Number::whole) number_of<int64_t>(name, text);
    if (kind == Number::natural) number_of<uint64_t>(name, text);
    if (kind == Number::real) number_of<double>(name, text);
    return "";
  } catch (const UsageError& error) {
    return std::string(error.what()).substr(name.size() + 3);  // CLI11 says --name itself
  }
}

}  // namespace

void limit_numbers(CLI::App& parent) {
  for (CLI::Option* option : parent.get_options()) {
    const Number kind = number_in(*option);
    if (kind == Number::none) continue;
    const std::string name = option->get_lnames().front();
    option->check([kind, name](const std::string& text) { return problem_of(kind, name, text); });
  }
  for (CLI::App* command : parent.get_subcommands([](const CLI::App*) { return true; }))
    limit_numbers(*command);
}

}  // namespace dino
