#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "kernels/error.h"
#include "models/registry.h"
#include "train/commands/commands.h"
#include "train/limits.h"

namespace {

/// --out_dim and --out-dim are one flag.
std::vector<std::string> normalized_arguments(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  for (std::string& argument : arguments)
    if (argument.starts_with("--")) std::replace(argument.begin(), argument.begin() + static_cast<long>(std::min(argument.find('='), argument.size())), '_', '-');
  return arguments;
}

/// The command that the arguments reached, for messages about its flags.
CLI::App& innermost(CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? app : innermost(*chosen.front());
}

/// "knn: ", or nothing where no command was reached.
std::string place(CLI::App& app) {
  CLI::App& command = innermost(app);
  return &command == &app ? "" : command.get_name() + ": ";
}

std::string unknown_argument(CLI::App& app) {
  CLI::App& command = innermost(app);
  const auto remaining = app.remaining(true);
  const std::string unknown = remaining.empty() ? "?" : remaining.front().substr(0, remaining.front().find('='));
  std::vector<std::string> candidates;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) candidates.push_back("--" + name);
  for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; })) candidates.push_back(sub->get_name());
  const std::string near = dino::nearest(unknown, candidates);
  return dino::str(place(app), dino::shown_value(unknown), " is not known",
                   near.empty() ? "" : dino::str("; did you mean ", near, "?"));
}

/// Where errors go: stderr, also after `be_quiet`.
std::FILE* errors = stderr;

/// Sends all that is written to stderr nowhere, but for errors.
void be_quiet() {
  const int copy = dup(STDERR_FILENO);
  std::FILE* const kept = copy < 0 ? nullptr : fdopen(copy, "w");
  if (!kept) return;
  errors = kept;
  static_cast<void>(std::freopen("/dev/null", "w", stderr));
}

/// A program that was started without stdin, stdout or stderr must not write results into the first file that
/// it opens.
void open_missing_descriptors() {
  int descriptor = open("/dev/null", O_RDONLY);
  while (descriptor >= 0 && descriptor <= STDERR_FILENO) descriptor = open("/dev/null", O_RDONLY);
  if (descriptor >= 0) close(descriptor);
}

/// Makes one line of `message`, whatever is in the names and values that it quotes.
std::string one_line(const std::string& message) {
  std::string line;
  for (const char c : message) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (c == '\n')
      line += "\\n";
    else
      line += control ? '?' : c;
  }
  return line;
}

int fail(int code, const std::string& message) {
  std::fprintf(errors, "dino_engine: %s\n", one_line(message).c_str());
  std::fflush(errors);
  return code;
}

int run_program(int argc, char** argv) {
  CLI::App app{"Trains DINO (self-distillation with no labels) on a folder of images and turns the result into features.", "dino_engine"};
  app.set_version_flag("--version", DINO_VERSION);
  app.require_subcommand(1);
  app.fallthrough();  // so that --quiet may also come behind the command
  app.add_flag_callback("-q,--quiet", be_quiet, "Nothing on stderr but errors");
  app.footer("Exit codes: 0 done; 1 failure; 2 usage or configuration; 3 data; 4 diverged or collapsed; 75 saved, please start again; 130, 143 stopped by signal, state saved.");
  int exit_code = 0;
  dino::add_train_command(app, exit_code);
  dino::add_plan_command(app);
  dino::add_eval_commands(app);
  dino::add_features_command(app);
  dino::add_attention_command(app);
  dino::add_convert_command(app);
  dino::add_report_command(app);
  dino::add_info_command(app);
  dino::add_manual_commands(app);
  dino::limit_numbers(app);
  std::vector<std::string> arguments = normalized_arguments(argc, argv);
  std::reverse(arguments.begin(), arguments.end());  // the order that CLI11 takes
  try {
    app.parse(arguments);
  } catch (const CLI::ExtrasError&) {
    return fail(2, unknown_argument(app));
  } catch (const CLI::ParseError& error) {
    const bool no_command = !innermost(app).get_subcommands([](const CLI::App*) { return true; }).empty();
    if (no_command && !app.remaining(true).empty()) return fail(2, unknown_argument(app));
    if (error.get_exit_code() == 0) return app.exit(error);
    return fail(2, dino::str(place(app), error.what(), "; see --help"));
  }
  return exit_code;
}

/// Runs the program; exceptions become one line and an exit code.
int guarded(int argc, char** argv) {
  try {
    return run_program(argc, argv);
  } catch (const dino::DivergedError& error) {
    return fail(4, error.what());
  } catch (const dino::DataError& error) {
    return fail(3, error.what());
  } catch (const dino::UsageError& error) {
    return fail(2, error.what());
  } catch (const dino::FormatError& error) {
    return fail(2, error.what());
  } catch (const std::bad_alloc&) {
    return fail(1, "out of memory; a smaller --batch-size needs less");
  } catch (const std::exception& error) {
    return fail(1, error.what());
  }
}

/// Ends with an error if results were lost: a full disk behind stdout, or no stdout at all.
int with_results_written(int code) {
  errno = 0;
  std::cout.flush();
  const bool lost = std::fflush(stdout) != 0 || std::ferror(stdout) || !std::cout;
  if (!lost || code != 0) return code;
  if (errno == 0) static_cast<void>(!write(STDOUT_FILENO, "\n", 1));  // it was lost earlier: ask for the reason again
  return fail(1, dino::str("stdout: results cannot be written",
                           errno ? dino::str(": ", std::strerror(errno)) : std::string()));
}

}  // namespace

int main(int argc, char** argv) {
  open_missing_descriptors();
  return with_results_written(guarded(argc, argv));
}
