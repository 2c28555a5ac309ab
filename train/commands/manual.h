#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

namespace dino {

/// One option as the command line knows it.
struct ManualOption {
  std::string group;                ///< heading under which --help lists it
  std::vector<std::string> names;   ///< with dashes, the first is the one to use
  std::string value;                ///< what follows it; empty for a flag
  std::string help;
  bool required = false;
  bool files = false;               ///< takes paths
  std::vector<std::string> choices; ///< values it can take, if these are few
};

/// One command: `path` is "dino_engine" itself, or for example "dino_engine eval knn".
struct ManualCommand {
  std::string path, help;
  std::vector<ManualOption> options;
  std::vector<std::string> commands;  ///< names of the commands below it
};

/// `app` and all commands below it, in the order of --help.
std::vector<ManualCommand> manual_of(const CLI::App& app);

/// The same text as --help in other forms: a man page (roff, section 1), and a page of Markdown.
std::string to_man_page(const std::vector<ManualCommand>& manual, const std::string& version, const std::string& footer);
std::string to_markdown(const std::vector<ManualCommand>& manual, const std::string& footer);

/// A script that completes commands, options, and values in bash, zsh or fish. Throws UsageError for another shell.
std::string completion_script(const std::vector<ManualCommand>& manual, const std::string& shell);

}  // namespace dino
