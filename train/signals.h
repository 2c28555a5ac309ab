#pragma once

namespace dino {

/// While alive, SIGINT, SIGTERM and SIGUSR1 only set a flag, so that a run can save and leave. A second SIGINT or SIGTERM
/// ends the process at once. One object at a time.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  /// The signal that arrived, or 0.
  int received() const;
};

/// Exit code of a run that saved and left because of `signal`: 75 for SIGUSR1 (a scheduler wants it started again), else
/// 128 + signal.
int exit_code_of(int signal);

}  // namespace dino
