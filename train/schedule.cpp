#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dino {
namespace {

/// Value `i` of `n` evenly spaced values with both ends; rounded like numpy's, whose last one is exact.
double linspace(double first, double last, int64_t n, int64_t i) {
  if (n == 1) return first;
  if (i == n - 1) return last;
  return static_cast<double>(i) * ((last - first) / static_cast<double>(n - 1)) + first;
}

}  // namespace

double CosineSchedule::at(int64_t step) const {
  step = std::min(step, steps - 1);
  if (step < warmup_steps) return linspace(start, base, warmup_steps, step);
  const double angle = std::numbers::pi * static_cast<double>(step - warmup_steps) / static_cast<double>(steps - warmup_steps);
  return final + 0.5 * (base - final) * (1 + std::cos(angle));
}

double TemperatureSchedule::at(int64_t epoch) const {
  return epoch < warmup_epochs ? linspace(start, final, warmup_epochs, epoch) : final;
}

}  // namespace dino
