#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/machine.h"

namespace dino::bench {

/// Processor time that was used so far: by this process (RUSAGE_SELF), or by its children that have ended
/// (RUSAGE_CHILDREN).
inline double processor_seconds(int whose) {
  rusage used{};
  getrusage(whose, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/// A process that computes for 5 ms, then sleeps for 5 ms, and so on: half a processor, as long as the object lives.
class BusyNeighbour {
 public:
  BusyNeighbour() : begin_(Clock::now()), process_(fork()) {
    check(process_ >= 0, "a process beside cannot be started");
    if (process_ == 0) work();
  }
  ~BusyNeighbour() { end(); }
  BusyNeighbour(const BusyNeighbour&) = delete;
  BusyNeighbour& operator=(const BusyNeighbour&) = delete;

  /// Ends it. Returns the share of a processor that it had.
  double end() {
    if (process_ <= 0) return 0;
    const double seconds = seconds_since(begin_);
    kill(process_, SIGKILL);
    const double before = processor_seconds(RUSAGE_CHILDREN);
    waitpid(process_, nullptr, 0);
    process_ = 0;
    return (processor_seconds(RUSAGE_CHILDREN) - before) / seconds;
  }

 private:
  [[noreturn]] static void work() {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    constexpr double kSeconds = 0.005;
    const timespec pause{.tv_sec = 0, .tv_nsec = static_cast<long>(kSeconds * 1e9)};
    for (;;) {
      for (const auto start = Clock::now(); seconds_since(start) < kSeconds;) {
      }
      nanosleep(&pause, nullptr);
    }
  }

  Clock::time_point begin_;
  pid_t process_;
};

}  // namespace dino::bench
