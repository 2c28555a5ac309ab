#pragma once

#include <string>

#include "bench/cuda_gates/figures.h"

namespace dino::bench {

/// Compares a table with goals and prints what misses them. A line of goals is
///   pattern figure bound [reason]
/// and the last one that fits a kernel (as patterns of file names do in a shell) and a figure counts. Shares of useful work are bounded below,
/// other figures above. Lines with a reason are exceptions: one that no kernel needs is as wrong as a goal that is missed.
/// Returns 0 if all is well, else 1. Throws FormatError for lines that are not of this form.
int compare_with_goals(const FigureTable& table, const std::string& goals);

}  // namespace dino::bench
