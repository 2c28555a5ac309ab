#include <thread>

#include "tests/train/process.h"

using namespace dino;
using testing::Folder;

namespace {

/// Starts a long run, and does `harm` once it has made some steps.
template <class F>
int code_after(const std::string& arguments, const std::string& run, const F& harm) {
  const pid_t child = testing::start(arguments);
  for (int i = 0; i < 1000 && testing::steps_logged(run) < 5 && testing::still_running(child); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  REQUIRE(testing::still_running(child));
  harm();
  return testing::wait_for(child);
}

void cut_short(const std::string& folder, size_t files) {
  for (const auto& entry : testing::fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && files > 0) {
      testing::fs::resize_file(entry.path(), 20);
      --files;
    }
}

}  // namespace

TEST_CASE("data that vanish during training end the run with exit code 3, and it goes on when they are back") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run";
  const std::string train = testing::small_arguments(images, run) + " --precision f32 --epochs 2000 --saveckp-freq 0";
  const auto vanish = [&] { testing::fs::rename(images, folder / "elsewhere"); };
  CHECK(code_after(train, run, vanish) == 3);
  REQUIRE(testing::fs::exists(run + "/checkpoint.safetensors"));
  // While they are away nothing is touched.
  const auto before = testing::contents_of(run);
  const testing::Outcome away = testing::run_program(train);
  CHECK(away.code == 3);
  CHECK_THAT(testing::error_line(away), Catch::Contains(images));
  CHECK(testing::contents_of(run) == before);

  testing::fs::rename(folder / "elsewhere", images);
  const int steps = testing::steps_logged(run);
  testing::fs::remove(run + "/bad_images.txt");
  const testing::Outcome back = testing::run_program(train + " --steps " + std::to_string(steps + 3));
  CHECK(back.code == 0);
  CHECK_THAT(back.err, Catch::Contains("going on at step"));
}

TEST_CASE("images that are cut short during training are listed, and end the run when they are too many") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run";
  const std::string train = testing::small_arguments(images, run) + " --precision f32 --epochs 100 --warmup-epochs 1 --saveckp-freq 0";
  CHECK(code_after(train, run, [&] { cut_short(images, 1); }) == 0);
  const std::string listed = testing::read_file(run + "/bad_images.txt");
  CHECK(std::count(listed.begin(), listed.end(), '\n') == 1);
  CHECK_THAT(listed, Catch::Contains("truncated"));
  const std::string other = folder / "other", more = testing::small_arguments(images, other) + " --epochs 2000 --saveckp-freq 0";
  CHECK(code_after(more, other, [&] { cut_short(images, 6); }) == 3);
  CHECK(testing::fs::exists(other + "/checkpoint.safetensors"));
}

TEST_CASE("an archive that is cut short during training ends the run with exit code 3 and its state saved") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run", archive = folder / "images.tar";
  REQUIRE(std::system(("tar -C " + images + " -cf " + archive + " .").c_str()) == 0);
  const std::string train = testing::small_arguments(archive, run) + " --epochs 2000 --saveckp-freq 0";
  CHECK(code_after(train, run, [&] { testing::fs::resize_file(archive, 700); }) == 3);
  CHECK(testing::fs::exists(run + "/checkpoint.safetensors"));
}
