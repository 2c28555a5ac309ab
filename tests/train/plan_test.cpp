#include <cstdlib>
#include <nlohmann/json.hpp>

#include "tests/train/run_folder.h"
#include "train/checkpoint.h"
#include "train/preflight.h"
#include "train/trainer.h"

using namespace dino;
using nlohmann::json;
using testing::Folder;
using testing::run_program;

namespace {

/// The cache of the programs that a test runs.
struct Cache {
  std::string before;
  bool set = false;
  explicit Cache(const std::string& path) {
    if (const char* value = std::getenv("XDG_CACHE_HOME")) {
      before = value;
      set = true;
    }
    ::setenv("XDG_CACHE_HOME", path.c_str(), 1);
  }
  ~Cache() { set ? ::setenv("XDG_CACHE_HOME", before.c_str(), 1) : ::unsetenv("XDG_CACHE_HOME"); }
};

std::string plan_arguments(const std::string& data, const std::string& out) {
  return "plan" + testing::small_arguments(data, out).substr(std::string("train").size());
}

void copy_image(const std::string& images, const std::string& from, const std::string& to) {
  testing::fs::copy_file(images + "/class0/" + from, images + "/class1/" + to);
}

uint64_t bytes_in(const testing::fs::path& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : testing::fs::directory_iterator(folder)) bytes += entry.file_size();
  return bytes;
}

}  // namespace

TEST_CASE("plan tells in one JSON object what is in the data and what the run will need, and writes nothing") {
  const Folder folder;
  const Cache cache(folder / "cache");
  const std::string images = testing::make_images(folder, 12);
  copy_image(images, "image1000.ppm", "copy.ppm");
  std::ofstream(images + "/class0/broken.ppm") << "P6 nonsense";
  const auto outcome = run_program(plan_arguments(images, folder / "run") + " --json --device cpu --precision f32");
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const json plan = json::parse(outcome.out);
  CHECK(plan["data"]["images"] == 14);
  CHECK(plan["data"]["readable"] == 13);
  CHECK(plan["data"]["remembered"] == 0);
  REQUIRE(plan["data"]["unreadable"].size() == 1);
  CHECK(plan["data"]["unreadable"][0]["path"] == images + "/class0/broken.ppm");
  CHECK(plan["data"]["duplicates"] == json::array({json::array({images + "/class0/image1000.ppm", images + "/class1/copy.ppm"})}));
  CHECK(plan["data"]["classes"] == json{{"class0", 7}, {"class1", 7}});
  CHECK(plan["data"]["width"]["median"] == 24);
  CHECK(plan["configuration"]["out-dim"] == 24);
  CHECK(plan["schedule"]["steps_per_epoch"] == 3);
  CHECK(plan["schedule"]["steps"] == 9);
  CHECK(plan["memory"]["bytes"] > plan["memory"]["activations"]);
  CHECK(plan["time"]["steps_timed"] == 10);
  CHECK(plan["time"]["images_per_second"].get<double>() > 0);
  CHECK(plan["time"]["seconds"].get<double>() == Approx(9 * plan["time"]["seconds_per_step"].get<double>()));
  CHECK(plan["disk"]["free"] > plan["disk"]["missing"]);
  CHECK_FALSE(testing::fs::exists(folder / "run"));

  const json again = json::parse(run_program(plan_arguments(images, folder / "run") + " --json --no-timing").out);
  CHECK(again["data"]["remembered"] == 14);
  CHECK_FALSE(again.contains("time"));
  json data = again["data"], before = plan["data"];
  data.erase("remembered");
  before.erase("remembered");
  CHECK(data == before);
}

TEST_CASE("plan tells people the same in words") {
  const Folder folder;
  const Cache cache(folder / "cache");
  const std::string images = testing::make_images(folder, 12);
  for (int i = 0; i < 5; ++i) copy_image(images, "image1000.ppm", str("copy", i, ".ppm"));
  const auto outcome = run_program(plan_arguments(images, folder / "run") + " --local-crops-size 22 --patch-size 2");
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  for (const char* part : {"17 images", "2 classes with 6 to 11 images", "below 22", "24 x 20", "copies       5", "copy0.ppm = ", "and 2 more",
                           "vit_tiny", "3 epochs of 4 steps of 4 images: 12 steps", "memory", "images/s", "checkpoints of"})
    CHECK_THAT(outcome.out, Catch::Contains(part));
}

TEST_CASE("plan refuses what train would refuse, before it looks at images") {
  const Folder folder;
  const Cache cache(folder / "cache");
  const std::string images = testing::make_images(folder, 12);
  const auto refused = [&](const std::string& more, int code, const std::string& message) {
    INFO(more);
    const auto outcome = run_program(plan_arguments(images, folder / "run") + " " + more);
    CHECK(outcome.code == code);
    CHECK_THAT(outcome.err, Catch::Contains(message));
  };
  refused("--batch-size 13", 2, "use --batch-size 12");
  refused("--batch-size 0", 2, "between 1 and");
  refused("--warmup-epochs 4", 2, "use --warmup-epochs 0.3");
  refused("--warmup-teacher-temp-epochs 4", 2, "up to --epochs 3");
  refused("--epochs 0", 2, "use --epochs 1");
  refused("--epochs 1e300", 2, "between 0 and 1e+15");
  refused("--accumulate 3", 2, "use --accumulate 2");
  refused("--patch-size 12", 2, "use --patch-size 8");
  refused("--teacher-temp 0", 2, "such as 0.04");
  refused("--data " + (folder / "missing"), 3, "missing");
  refused("--out-dim 20000000 --epochs 100000 --saveckp-freq 1", 2, "are free; --");
  refused("--epochs 1000000000 --saveckp-freq 0", 2, "--log-every");
  CHECK_FALSE(testing::fs::exists(folder / "cache"));
}

TEST_CASE("plan ends with exit code 3 when nothing can be read, or too much cannot") {
  const Folder folder;
  const Cache cache(folder / "cache");
  testing::fs::create_directories(folder.path / "bad");
  for (int i = 0; i < 5; ++i) std::ofstream(folder / ("bad/" + std::to_string(i) + ".ppm")) << "nothing";
  const auto nothing = run_program(plan_arguments(folder / "bad", folder / "run") + " --json");
  CHECK(nothing.code == 3);
  CHECK_THAT(nothing.err, Catch::Contains("none of 5 images can be read"));
  CHECK(json::parse(nothing.out)["data"]["unreadable"].size() == 5);
  const std::string images = testing::make_images(folder, 8);
  for (const char* name : {"a", "b"}) std::ofstream(images + "/class0/" + name + ".ppm") << "nothing";
  const auto much = run_program(plan_arguments(images, folder / "run") + " --no-timing");
  CHECK(much.code == 3);
  CHECK_THAT(much.err, Catch::Contains("--max-bad-fraction 0.2 would do"));
  CHECK_THAT(much.out, Catch::Contains("unreadable"));
  CHECK(run_program(plan_arguments(images, folder / "run") + " --no-timing --max-bad-fraction 0.2").code == 0);
}

TEST_CASE("train begins with what a look at the data tells, and a run that goes on does not") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  copy_image(images, "image1000.ppm", "copy.ppm");
  const std::string arguments = testing::small_arguments(images, folder / "run");
  const auto first = run_program(arguments + " --steps 1");
  REQUIRE(first.code == 0);
  CHECK_THAT(first.err, Catch::Contains("data: 1 of 13 images are exact copies of others"));
  CHECK_THAT(first.err, Catch::Contains("memory: "));
  const auto second = run_program(arguments + " --steps 2");
  REQUIRE(second.code == 0);
  CHECK_THAT(second.err, !Catch::Contains("copies of others"));
  CHECK_THAT(second.err, Catch::Contains("memory: "));
}

TEST_CASE("train refuses at once what cannot be read or stored") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  const auto stored = run_program(testing::small_arguments(images, folder / "run") + " --out-dim 20000000 --epochs 100000 --saveckp-freq 1");
  CHECK(stored.code == 2);
  CHECK_THAT(stored.err, Catch::Contains("are free; --"));
  CHECK_FALSE(testing::fs::exists(folder / "run"));
  testing::fs::create_directories(folder.path / "bad");
  for (int i = 0; i < 5; ++i) std::ofstream(folder / ("bad/" + std::to_string(i) + ".ppm")) << "nothing";
  const auto unreadable = run_program(testing::small_arguments(folder / "bad", folder / "run"));
  CHECK(unreadable.code == 3);
  CHECK_THAT(unreadable.err, Catch::Contains("none of 5 images can be read"));
  CHECK_FALSE(testing::fs::exists(folder / "run"));
}

TEST_CASE("a run writes what was planned for the disk") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  for (const auto& [frequency, keep, scored] : {std::tuple{1, 0, false}, {1, 2, true}, {2, 0, true}, {0, 0, false}}) {
    INFO("every " << frequency << ", keep " << keep);
    const std::string out = folder / str("run", frequency, keep);
    TrainConfig config = testing::small_config(images, out);
    config.epochs = 5;
    config.saveckp_freq = frequency;
    config.keep = keep;
    config.eval_every = scored;
    const RunPlan plan(config, 12);
    const DiskNeed need = disk_need(config, plan, state_size(config).checkpoint);
    CHECK(need.present == 0);
    REQUIRE(run_program(testing::small_arguments(images, out) +
                        str(" --epochs 5 --saveckp-freq ", frequency, " --keep ", keep, " --eval-every ", int{scored}))
                .code == 0);
    const uint64_t checkpoint = testing::fs::file_size(out + "/checkpoint.safetensors");
    CHECK(static_cast<double>(need.checkpoint) == Approx(checkpoint).epsilon(0.1));
    // While the last one was written there were one more in work and, with --keep, an old one.
    int64_t checkpoints = 0;
    for (const auto& entry : testing::fs::directory_iterator(out)) checkpoints += entry.path().extension() == ".safetensors";
    CHECK(need.checkpoints == checkpoints + 1 + (keep > 0));
    CHECK(need.total >= bytes_in(out));
    const uint64_t log = testing::fs::file_size(out + "/log.jsonl");
    CHECK(need.log >= log);
    CHECK(need.log <= 5 * log);
    const DiskNeed later = disk_need(config, plan, need.checkpoint);
    CHECK(later.present > 0);
    CHECK(later.missing() < need.missing());
    CHECK(later.missing() >= need.checkpoint);
  }
}

TEST_CASE("what is advised for a disk that is too small does fit") {
  const Folder folder;
  TrainConfig config = testing::small_config("data", folder / "run");
  config.epochs = 100;
  config.saveckp_freq = 1;
  const RunPlan plan(config, 12);
  const uint64_t checkpoint = 1'000'000;
  const auto advice = [&](uint64_t free) -> std::string {
    try {
      check_disk(config, disk_need(config, plan, checkpoint), free);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  };
  const DiskNeed need = disk_need(config, plan, checkpoint);
  CHECK(advice(need.total).empty());
  const std::string keep = advice(need.total - 1);
  CHECK_THAT(keep, Catch::Contains("--keep 98 would do") && Catch::Contains(config.out));
  config.keep = 98;
  CHECK(advice(need.total - 1).empty());
  config.keep = 0;
  CHECK_THAT(advice(need.log + 4 * checkpoint), Catch::Contains("--keep 1 would do"));
  config.keep = 1;
  CHECK(advice(need.log + 4 * checkpoint).empty());
  CHECK_THAT(advice(need.log + 3 * checkpoint), Catch::Contains("--saveckp-freq 0 would do"));
  config.saveckp_freq = 0;
  CHECK(advice(need.log + 3 * checkpoint).empty());
  CHECK_THAT(advice(need.log + checkpoint), Catch::Contains("--out-dim"));
}

TEST_CASE("the time of steps is measured on the run itself, however short its schedule") {
  const Folder folder;
  const auto images = Dataset::open(testing::make_images(folder, 12));
  TrainConfig config = testing::small_config(folder / "images", folder / "run");
  config.epochs = 1;
  config.steps = 1;
  int64_t last = -1;
  const Speed speed = measure_speed(config, *images, 10, [&](int64_t done, int64_t all) {
    CHECK(done == last + 1);
    CHECK(all == 14);
    last = done;
  });
  CHECK(last == 13);
  CHECK(speed.steps == 10);
  CHECK(speed.images_per_second == Approx(4 / speed.seconds_per_step));
  CHECK(speed.waiting >= 0);
  CHECK(speed.waiting <= 1);
  CHECK_FALSE(testing::fs::exists(folder / "run"));
}

TEST_CASE("the parameters that are told are those of the networks") {
  const Folder folder;
  const auto images = Dataset::open(testing::make_images(folder, 12));
  const TrainConfig config = testing::small_config(folder / "images", folder / "run");
  Trainer trainer(config, *images);
  const StateSize size = state_size(config);
  CHECK(size.backbone + size.head == trainer.student().parameters().parameter_count());
  CHECK(size.head > 0);
}
