#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "kernels/error.h"
#include "train/commands/commands.h"
#include "train/commands/manual.h"

namespace dino {

void add_manual_commands(CLI::App& parent) {
  auto* completion = parent.add_subcommand("completion", "Print a script that completes commands and options in a shell");
  auto shell = std::make_shared<std::string>();
  completion->add_option("shell", *shell, "bash, zsh or fish")->required();
  completion->callback([shell, &parent] { std::cout << completion_script(manual_of(parent), *shell); });

  auto* manual = parent.add_subcommand("manual", "Print the manual of all commands");
  auto format = std::make_shared<std::string>("man");
  manual->add_option("--format", *format, "man or markdown")->capture_default_str();
  manual->callback([format, &parent] {
    check<UsageError>(*format == "man" || *format == "markdown", "--format ", *format, " is not known; man or markdown");
    std::cout << (*format == "man" ? to_man_page(manual_of(parent), DINO_VERSION, parent.get_footer()) : to_markdown(manual_of(parent), parent.get_footer()));
  });
}

}  // namespace dino
