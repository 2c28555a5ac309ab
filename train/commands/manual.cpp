#include "train/commands/manual.h"

#include <algorithm>
#include <sstream>

#include "kernels/error.h"

namespace dino {
namespace {

/// Names of choices in a help text: "auto, cpu or cuda" at its start, as the program writes them.
std::vector<std::string> choices_in(const std::string& help) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : help + "\n") {
    const bool part = std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    if (part) word += c;
    else if (!word.empty()) {
      words.push_back(std::exchange(word, {}));
      if (c != ',' && c != ' ') break;
    }
  }
  const auto joint = std::find(words.begin(), words.end(), "or");
  if (joint == words.end() || joint + 2 > words.end() || joint - words.begin() > 6) return {};
  std::vector<std::string> choices(words.begin(), joint);
  choices.push_back(*(joint + 1));
  // Prose has blanks without commas between its words; a list has one word between commas.
  const std::string start = help.substr(0, help.find(" or "));
  return std::count(start.begin(), start.end(), ' ') == std::count(start.begin(), start.end(), ',') ? choices : std::vector<std::string>{};
}

/// Without the default in brackets that options of `train` have at their end.
std::string without_default(const std::string& help) { return help.substr(0, help.rfind(" [")); }

ManualOption option_of(const CLI::Option& option) {
  ManualOption result;
  result.group = option.get_group();
  for (const std::string& name : option.get_lnames()) result.names.push_back("--" + name);
  for (const std::string& name : option.get_snames()) result.names.push_back("-" + name);
  const bool positional = result.names.empty();
  if (positional) result.names.push_back(option.get_name(true));
  const bool takes_value = option.get_items_expected_max() > 0 && !positional;
  result.value = takes_value ? "VALUE" : "";
  result.help = option.get_description();
  const std::string shown = option.get_default_str();
  if (!shown.empty() && result.help.find('[') == std::string::npos && takes_value) result.help += " [" + shown + "]";
  result.required = option.get_required();
  static const std::vector<std::string> paths = {"--data", "--val", "--train", "--weights", "--out", "--image", "--config", "--run", "--init"};
  result.files = positional || std::find(paths.begin(), paths.end(), result.names.front()) != paths.end();
  if (takes_value) result.choices = choices_in(without_default(option.get_description()));
  return result;
}

void collect(const CLI::App& app, const std::string& path, std::vector<ManualCommand>& manual) {
  ManualCommand command{path, app.get_description(), {}, {}};
  for (const CLI::Option* option : app.get_options()) command.options.push_back(option_of(*option));
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* sub : commands) command.commands.push_back(sub->get_name());
  manual.push_back(std::move(command));
  for (const CLI::App* sub : commands) collect(*sub, path + " " + sub->get_name(), manual);
}

std::string joined(const std::vector<std::string>& words, const std::string& between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) text.replace(at, what.size(), with);
  return text;
}

/// Text that roff prints as it is.
std::string roff(const std::string& text) {
  std::string safe = replaced(replaced(text, "\\", "\\e"), "-", "\\-");
  return safe.starts_with('.') || safe.starts_with('\'') ? "\\&" + safe : safe;
}

/// Text inside of single quotes, for all three shells.
std::string quoted(const std::string& text, const std::string& shell) {
  return "'" + (shell == "fish" ? replaced(replaced(text, "\\", "\\\\"), "'", "\\'") : replaced(text, "'", "'\\''")) + "'";
}

/// The words after "dino_engine".
std::string words_of(const ManualCommand& command) {
  const size_t blank = command.path.find(' ');
  return blank == std::string::npos ? "" : command.path.substr(blank + 1);
}

std::vector<std::string> completions_of(const ManualCommand& command) {
  std::vector<std::string> words = command.commands;
  for (const ManualOption& option : command.options)
    for (const std::string& name : option.names)
      if (name.starts_with("--")) words.push_back(name);
  return words;
}

/// One `case` per option with choices; both shells read it.
std::string value_cases(const ManualCommand& command, const std::string& before, const std::string& after) {
  std::string text;
  for (const ManualOption& option : command.options)
    if (!option.choices.empty()) text += str("      ", joined(option.names, "|"), ") ", before, joined(option.choices, " "), after, " ;;\n");
  return text;
}

/// bash, and zsh through its own emulation of bash's completion.
std::string bash_completion(const std::vector<ManualCommand>& manual) {
  std::string text =
      "_dino_engine() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command='' known=''\n"
      "  local i\n"
      "  for ((i = 1; i < COMP_CWORD; ++i)); do\n"
      "    case \"$command${command:+ }${COMP_WORDS[i]}\" in\n";
  std::vector<std::string> names;
  for (const ManualCommand& command : manual)
    if (!words_of(command).empty()) names.push_back("'" + words_of(command) + "'");
  text += "      " + joined(names, "|") + ") command=\"$command${command:+ }${COMP_WORDS[i]}\" ;;\n    esac\n  done\n  COMPREPLY=()\n  case \"$command\" in\n";
  for (const ManualCommand& command : manual) {
    text += str("  '", words_of(command), "')\n    known='", joined(completions_of(command), " "), "'\n");
    const std::string cases = value_cases(command, "COMPREPLY=($(compgen -W '", "' -- \"$word\")); return");
    if (!cases.empty()) text += "    case \"$before\" in\n" + cases + "    esac\n";
    text += "    ;;\n";
  }
  return text +
         "  esac\n"
         "  if [[ $word == -* || -z $command || $command == eval ]]; then COMPREPLY=($(compgen -W \"$known\" -- \"$word\")); fi\n"
         "}\n"
         "complete -o default -F _dino_engine dino_engine\n";
}

std::string fish_completion(const std::vector<ManualCommand>& manual) {
  std::string text = "complete -c dino_engine -f\n";
  for (const ManualCommand& command : manual) {
    std::string where;  // a condition: the words of the command were typed
    std::istringstream words(words_of(command));
    for (std::string word; words >> word;) where += (where.empty() ? "" : "; and ") + ("__fish_seen_subcommand_from " + word);
    if (where.empty()) where = "__fish_use_subcommand";
    for (const std::string& name : command.commands) {
      const auto below = std::find_if(manual.begin(), manual.end(), [&](const ManualCommand& other) { return other.path == command.path + " " + name; });
      text += str("complete -c dino_engine -n '", where, "' -a ", name, " -d ", quoted(below->help, "fish"), "\n");
    }
    for (const ManualOption& option : command.options) {
      if (!option.names.front().starts_with("--")) continue;
      text += str("complete -c dino_engine -n '", where, "' -l ", option.names.front().substr(2), option.value.empty() ? "" : " -r",
                  option.files ? " -F" : "", option.choices.empty() ? "" : " -a " + quoted(joined(option.choices, " "), "fish"), " -d ",
                  quoted(without_default(option.help), "fish"), "\n");
    }
  }
  return text;
}

}  // namespace

std::vector<ManualCommand> manual_of(const CLI::App& app) {
  std::vector<ManualCommand> manual;
  collect(app, app.get_name(), manual);
  return manual;
}

std::string to_man_page(const std::vector<ManualCommand>& manual, const std::string& version, const std::string& footer) {
  std::string text = str(".TH DINO_ENGINE 1 \"\" \"dino_engine ", version, "\" \"User Commands\"\n.SH NAME\ndino_engine \\- ",
                         roff(manual.front().help), "\n.SH SYNOPSIS\n.B dino_engine\n.I COMMAND\n[\\fIOPTIONS\\fR]\n");
  for (const ManualCommand& command : manual) {
    const bool whole = &command == &manual.front();
    text += str(".SH ", whole ? "OPTIONS" : roff(words_of(command)), "\n", whole ? "" : roff(command.help) + "\n");
    for (const ManualOption& option : command.options)
      text += str(".TP\n\\fB", roff(joined(option.names, ", ")), "\\fR", option.value.empty() ? "" : " \\fI" + option.value + "\\fR", "\n",
                  option.help.empty() ? "\\&" : roff(option.help), option.required ? " (required)" : "", "\n");
  }
  return text + ".SH EXIT STATUS\n" + roff(footer) + "\n";
}

std::string to_markdown(const std::vector<ManualCommand>& manual, const std::string& footer) {
  std::string text = str("# The command line\n\nWritten by `dino_engine manual --format markdown`; the same text as `--help` and the man page.\n\n", manual.front().help,
                         "\n\n", footer, "\n");
  const auto cell = [](const std::string& words) { return replaced(replaced(replaced(words, "|", "\\|"), "<", "&lt;"), "\n", " "); };
  for (const ManualCommand& command : manual) {
    text += str("\n## ", command.path, "\n\n", &command == &manual.front() ? "" : command.help + "\n\n");
    if (!command.commands.empty()) text += str("Commands: `", joined(command.commands, "`, `"), "`\n\n");
    std::string group;
    for (const ManualOption& option : command.options) {
      if (option.group != group || &option == &command.options.front())
        text += str(&option == &command.options.front() ? "" : "\n", "| ", group = option.group, " | |\n|---|---|\n");
      text += str("| `", joined(option.names, "`, `"), "` | ", cell(option.help), option.required ? " (required)" : "", " |\n");
    }
  }
  return text;
}

std::string completion_script(const std::vector<ManualCommand>& manual, const std::string& shell) {
  if (shell == "bash") return "# bash completion of dino_engine: source this, or put it where bash-completion looks\n" + bash_completion(manual);
  if (shell == "zsh")
    return "#compdef dino_engine\n# zsh completion of dino_engine: source this\nautoload -U +X bashcompinit && bashcompinit\n" + bash_completion(manual);
  if (shell == "fish") return "# fish completion of dino_engine: put this into ~/.config/fish/completions\n" + fish_completion(manual);
  throw UsageError(str("completion for ", shell, " does not exist; bash, zsh or fish"));
}

}  // namespace dino
