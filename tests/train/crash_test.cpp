#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "kernels/philox.h"
#include "tests/train/run_folder.h"

using namespace dino;
using testing::Folder;

namespace {

/// Starts the program in the background; its output goes nowhere. `limit` is the largest file that it may write, in bytes.
pid_t start(const std::string& arguments, rlim_t limit = RLIM_INFINITY) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child != 0) return child;
  const int null = open("/dev/null", O_RDWR);
  dup2(null, STDOUT_FILENO);
  dup2(null, STDERR_FILENO);
  if (limit != RLIM_INFINITY) {
    const rlimit file_size{limit, limit};
    setrlimit(RLIMIT_FSIZE, &file_size);
    std::signal(SIGXFSZ, SIG_IGN);
  }
  execl("/bin/sh", "sh", "-c", ("exec " + std::string(DINO_PROGRAM) + " " + arguments).c_str(), nullptr);
  _exit(127);
}

/// Exit code of a child, or 128 + the signal that ended it.
int wait_for(pid_t child) {
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool still_running(pid_t child) {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

int steps_logged(const std::string& run) {
  const std::string log = testing::read_file(run + "/log.jsonl");
  return static_cast<int>(std::count(log.begin(), log.end(), '\n'));
}

}  // namespace

TEST_CASE("a run that is killed at random moments and started again ends with the same bytes") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  // Long enough that most of the kills hit a run that is still going.
  const int kills = std::getenv("DINO_LONG_TESTS") ? 50 : 8;
  const std::string options = " --epochs " + std::to_string(40 * kills) + " --warmup-epochs 1 --checkpoint-every-steps 2 --use-bn-in-head true";
  REQUIRE(testing::run_program(testing::small_arguments(images, folder / "straight") + options).code == 0);

  Random random(1, Purpose::test, 0);
  int killed = 0;
  for (int i = 0; i < kills; ++i) {
    const pid_t child = start(testing::small_arguments(images, folder / "killed") + options);
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + random.below(250)));
    kill(child, SIGKILL);
    killed += wait_for(child) == 128 + SIGKILL;
  }
  INFO(killed << " of " << kills << " were still running");
  CHECK(2 * killed > kills);
  REQUIRE(testing::run_program(testing::small_arguments(images, folder / "killed") + options).code == 0);
  for (const char* file : {"/checkpoint.safetensors", "/log.jsonl", "/checkpoint0020.safetensors"}) {
    INFO(file);
    const std::string expected = testing::read_file((folder / "straight") + file);
    CHECK_FALSE(expected.empty());
    CHECK(testing::read_file((folder / "killed") + file) == expected);
  }
}

TEST_CASE("signals end a run with the state saved and their own exit codes") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  const std::string options = " --epochs 2000 --warmup-epochs 1 --saveckp-freq 0";
  const std::pair<int, int> expected[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGUSR1, 75}};
  for (const auto& [signal, code] : expected) {
    const std::string run = folder / ("run" + std::to_string(signal));
    const pid_t child = start(testing::small_arguments(images, run) + options);
    for (int i = 0; i < 1000 && steps_logged(run) < 5 && still_running(child); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(child, signal);
    CHECK(wait_for(child) == code);
    CHECK(testing::fs::exists(run + "/checkpoint.safetensors"));
    const int steps = steps_logged(run);
    CHECK(steps >= 5);
    // Goes on where it stopped.
    const auto more = testing::run_program(testing::small_arguments(images, run) + options + " --steps " + std::to_string(steps + 2));
    CHECK(more.code == 0);
    CHECK(more.err.find("going on at step " + std::to_string(steps)) != std::string::npos);
    CHECK(steps_logged(run) == steps + 2);
  }
}

TEST_CASE("a full disk ends a run with an error and leaves the last checkpoint whole") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  REQUIRE(testing::run_program(testing::small_arguments(images, folder / "run") + " --steps 4").code == 0);
  const std::string before = testing::read_file(folder / "run/checkpoint.safetensors");
  const pid_t child = start(testing::small_arguments(images, folder / "run"), before.size() / 2);
  CHECK(wait_for(child) == 1);
  CHECK(testing::read_file(folder / "run/checkpoint.safetensors") == before);
  CHECK_FALSE(testing::fs::exists(folder / "run/checkpoint.safetensors.tmp"));
  CHECK(testing::run_program(testing::small_arguments(images, folder / "run")).code == 0);
}
