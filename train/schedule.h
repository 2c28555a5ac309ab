#pragma once

#include <cstdint>

namespace dino {

/// Cosine schedule with linear warm-up over the steps of a run, as the reference implementation of DINO indexes it: the
/// warm-up goes from `start` to `base` with both ends included, so the peak comes twice, and `final` is approached but
/// never reached.
struct CosineSchedule {
  double base = 0, final = 0;
  int64_t steps = 0;         ///< of the whole run
  int64_t warmup_steps = 0;
  double start = 0;          ///< of the warm-up

  /// The value of global step `step`, counted from 0; the last value after the end.
  double at(int64_t step) const;
};

/// Teacher temperature per epoch: `warmup_epochs` values from `start` to `final`, both ends included, then `final`.
struct TemperatureSchedule {
  double start = 0.04, final = 0.04;
  int64_t warmup_epochs = 0;

  double at(int64_t epoch) const;
};

}  // namespace dino
