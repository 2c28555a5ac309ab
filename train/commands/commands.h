#pragma once

#include <CLI/App.hpp>

namespace dino {

/// Each adds one command of the program to `parent`, with its options and a callback that does the work:
/// results on stdout, everything else on stderr. Callbacks throw UsageError, DataError, FormatError, which
/// main maps to exit codes.
void add_train_command(CLI::App& parent, int& exit_code);
void add_plan_command(CLI::App& parent);
/// `eval knn` and `eval linear`.
void add_eval_commands(CLI::App& parent);
void add_features_command(CLI::App& parent);
void add_attention_command(CLI::App& parent);
void add_convert_command(CLI::App& parent);
void add_report_command(CLI::App& parent);
void add_info_command(CLI::App& parent);
/// `completion` and `manual`, which print what the commands of `parent` say of themselves; they come last.
void add_manual_commands(CLI::App& parent);

/// Lets every option of `parent` and of the commands below it that is a number take only what train/limits.h
/// allows.
void limit_numbers(CLI::App& parent);

/// The commands under `eval`, for `add_eval_commands`.
void add_eval_knn_command(CLI::App& eval);
void add_eval_linear_command(CLI::App& eval);

}  // namespace dino
