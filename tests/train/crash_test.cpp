#include <csignal>
#include <cstdlib>
#include <thread>

#include "kernels/philox.h"
#include "tests/train/process.h"

using namespace dino;
using testing::Folder;
using testing::start;
using testing::steps_logged;
using testing::still_running;
using testing::wait_for;

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
  const pid_t child = start(testing::small_arguments(images, folder / "run"), {.largest_file = before.size() / 2});
  CHECK(wait_for(child) == 1);
  CHECK(testing::read_file(folder / "run/checkpoint.safetensors") == before);
  CHECK_FALSE(testing::fs::exists(folder / "run/checkpoint.safetensors.tmp"));
  CHECK(testing::run_program(testing::small_arguments(images, folder / "run")).code == 0);
}
