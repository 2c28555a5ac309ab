#include "bench/cuda_gates/goals.h"

#include <fnmatch.h>

#include <cstdio>

namespace dino::bench {
namespace {

struct Goal {
  std::string pattern, figure, reason;
  double bound = 0;
  bool needed = false;  ///< by a kernel that would miss the goal before

  bool is_for(const std::string& kernel, const std::string& name) const {
    return figure == name && fnmatch(pattern.c_str(), kernel.c_str(), 0) == 0;
  }
  bool holds(const std::string& value) const {
    for (const double number : numbers(value))
      if (figure == "tensor_useful" ? number < bound : number > bound) return false;
    return true;
  }
};

std::vector<Goal> read_goals(const std::string& path) {
  std::vector<Goal> goals;
  std::ifstream file = open(path);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    Goal goal;
    std::istringstream words(line);
    check<FormatError>(static_cast<bool>(words >> goal.pattern >> goal.figure >> goal.bound), path, ": ", line,
                       ": expected pattern figure bound [reason]");
    std::getline(words >> std::ws, goal.reason);
    goals.push_back(std::move(goal));
  }
  return goals;
}

/// The goal that counts for a kernel's figure, if there is one, which is needed if the one that would count without it is missed.
const Goal* goal_of(std::vector<Goal>& goals, const std::string& kernel, const std::string& figure, const std::string& value) {
  Goal *last = nullptr, *before = nullptr;
  for (Goal& goal : goals)
    if (goal.is_for(kernel, figure)) before = std::exchange(last, &goal);
  if (before && !before->holds(value)) last->needed = true;
  return last;
}

}  // namespace

int compare_with_goals(const FigureTable& table, const std::string& path) {
  std::vector<Goal> goals = read_goals(path);
  int compared = 0, missed = 0, excepted = 0, unneeded = 0;
  for (const auto& [kernel, figures] : table)
    for (const auto& [figure, value] : figures) {
      const Goal* goal = goal_of(goals, kernel, figure, value);
      if (!goal) continue;
      ++compared;
      if (!goal->reason.empty()) ++excepted;
      if (goal->holds(value)) continue;
      ++missed;
      std::printf("MISSED   %s: %s %s, goal %g\n", kernel.c_str(), figure.c_str(), value.c_str(), goal->bound);
    }
  for (const Goal& goal : goals)
    if (!goal.reason.empty() && !goal.needed) {
      ++unneeded;
      std::printf("UNNEEDED %s %s %g: take it out of the goals\n", goal.pattern.c_str(), goal.figure.c_str(), goal.bound);
    }
  std::printf("%d figures have goals: %d missed, %d by an exception\n", compared, missed, excepted);
  return missed + unneeded > 0 ? 1 : 0;
}

}  // namespace dino::bench
