#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "train/step.h"

namespace dino {

/// What a training run says about itself on stderr: one line that is rewritten on a terminal, plain lines elsewhere.
class ProgressLine {
 public:
  /// Rates count images from `first_step` on. With `every_step`, each step has a line of its own, also on a terminal.
  ProgressLine(int64_t first_step, int64_t last_step, double epochs, int64_t batch_size, double log_of_out_dim, bool every_step = false);

  /// After step `step` (counted from 0). `logged` says whether a log line was written; without a terminal only these
  /// steps are shown. `seconds_waited` is the total time spent waiting for data; `health` is the doctor's verdict, or empty.
  void show(int64_t step, double epoch, const StepReport& report, double learning_rate, double seconds_waited, bool logged,
            std::string_view health);

  /// Prints a message on a line of its own.
  void say(const std::string& message);

 private:
  void clear();

  bool terminal_, every_step_;
  int64_t first_step_, last_step_, batch_size_;
  double epochs_, log_of_out_dim_;
  size_t shown_width_ = 0;
  std::chrono::steady_clock::time_point start_, last_shown_;
};

}  // namespace dino
