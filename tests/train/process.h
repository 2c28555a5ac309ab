#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <string>
#include <vector>

#include "tests/train/run_folder.h"

namespace dino::testing {

/// The program as a process of its own.
struct Start {
  int out = -1, err = -1;                            ///< descriptors for what it prints; -1: nowhere
  rlim_t largest_file = RLIM_INFINITY;               ///< bytes; writing more fails, as on a full disk
  uid_t user = 0;                                    ///< who runs it, if this process may choose: 0 is nobody in particular
};

/// Starts the program in the background.
inline pid_t start(const std::string& arguments, const Start& how = {}) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child != 0) return child;
  const int nowhere = open("/dev/null", O_RDWR);
  dup2(how.out < 0 ? nowhere : how.out, STDOUT_FILENO);
  dup2(how.err < 0 ? nowhere : how.err, STDERR_FILENO);
  const rlimit file_size{how.largest_file, how.largest_file};
  setrlimit(RLIMIT_FSIZE, &file_size);
  std::signal(SIGXFSZ, SIG_IGN);  // an error, as a full disk gives, instead of a signal
  if (how.user != 0 && setuid(how.user) != 0) _exit(126);
  execl("/bin/sh", "sh", "-c", ("exec " + std::string(DINO_PROGRAM) + " " + arguments).c_str(), nullptr);
  _exit(127);
}

/// Exit code of a child, or 128 + the signal that ended it.
inline int wait_for(pid_t child) {
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

inline bool still_running(pid_t child) {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

/// Starts the program, reads what it says on stderr through a pipe, which no limit on files touches, and waits for it.
inline Outcome run_with(const std::string& arguments, Start how) {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  how.err = ends[1];
  const pid_t child = start(arguments, how);
  close(ends[1]);
  std::string said;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) said.append(part, static_cast<size_t>(n));
  close(ends[0]);
  return {wait_for(child), "", said};
}

/// How a process ended, and what it took.
struct Ending {
  int code;          ///< exit code, or 128 + signal
  std::string err;   ///< what it said on stderr
  long largest_kib;  ///< most memory it had
};

/// Runs the program with these arguments, which no shell looks at. It is killed after half a minute. `out`:
/// where stdout goes; -1: nowhere, -2: it has none.
inline Ending run_arguments(const std::vector<std::string>& arguments, int out = -1) {
  constexpr unsigned kMostSeconds = 30;
  std::vector<char*> pointers;
  std::string program = DINO_PROGRAM;
  pointers.push_back(program.data());
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    if (out == -2)
      close(STDOUT_FILENO);
    else
      dup2(out >= 0 ? out : open("/dev/null", O_WRONLY), STDOUT_FILENO);
    alarm(kMostSeconds);
    execv(program.c_str(), pointers.data());
    _exit(127);
  }
  close(ends[1]);
  std::string said;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) said.append(part, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  rusage used{};
  REQUIRE(wait4(child, &status, 0, &used) == child);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), said, used.ru_maxrss};
}

inline int steps_logged(const std::string& run) {
  const std::string log = read_file(run + "/log.jsonl");
  return static_cast<int>(std::count(log.begin(), log.end(), '\n'));
}

/// The last line of what the program said, if it is an error; empty otherwise.
inline std::string error_line(const std::string& err) {
  const size_t begin = err.rfind("dino_engine: ");
  if (begin == std::string::npos || (begin > 0 && err[begin - 1] != '\n')) return "";
  const std::string line = err.substr(begin);
  return line.find('\n') == line.size() - 1 ? line : "";
}
inline std::string error_line(const Outcome& outcome) { return error_line(outcome.err); }

/// Every file below `folder` with its contents.
inline std::map<std::string, std::string> contents_of(const std::string& folder) {
  std::map<std::string, std::string> files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder).string()] = read_file(entry.path().string());
  return files;
}

}  // namespace dino::testing
