#include "train/recipe.h"

#include <map>
#include <nlohmann/json.hpp>

#include "tests/train/run_folder.h"

using namespace dino;
using testing::Folder;
using testing::run_program;

namespace {

const char* const kTables[] = {"imagenet", "imagenet-boosted", "small", "tiny-images", "continue"};

/// A configuration and its options, some of them as flags.
struct Request {
  TrainConfig config;
  std::vector<Option> options = options_of(config);

  explicit Request(const std::map<std::string, std::string>& flags = {}) {
    for (const auto& [name, text] : flags) {
      find_option(options, name)->set(text);
      find_option(options, name)->source = "flag";
    }
  }
  Request(const Request&) = delete;
  const Option& at(const std::string& name) { return *find_option(options, name); }
};

nlohmann::json dumped(const std::string& arguments) {
  const auto outcome = run_program("train --dump-config --json " + arguments);
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  return nlohmann::json::parse(outcome.out);
}

}  // namespace

TEST_CASE("every line of every recipe is a value that its option takes, with a reason, once, and the whole can be trained with") {
  for (const char* name : kTables) {
    INFO(name);
    Request request;
    request.config.data = "photos";
    std::map<std::string, int> seen;
    for (const RecipeValue& value : recipe_table(name)) {
      INFO(value.option);
      choose(request.options, value);
      CHECK(request.at(value.option).source == "recipe");
      CHECK(request.at(value.option).reason.size() > 5);
      CHECK(++seen[value.option] == 1);
    }
    CHECK_NOTHROW(check_config(request.config));
    CHECK_NOTHROW(RunPlan(request.config, 20000));
  }
}

TEST_CASE("auto chooses what can be trained for any number and size of images, whatever was set before") {
  for (const int64_t images : {1, 2, 15, 100, 999, 12'000, 60'000, 150'000, 1'281'167, 20'000'000})
    for (const int64_t side : {1, 8, 28, 32, 63, 64, 96, 159, 160, 224, 375, 4000})
      for (const std::map<std::string, std::string>& flags :
           {std::map<std::string, std::string>{}, {{"arch", "vit_tiny"}}, {{"epochs", "2"}}, {{"patch-size", "7"}}, {{"batch-size", "1"}}}) {
        Request request(flags);
        request.config.data = "photos";
        apply_auto({images, side}, request.options, request.config);
        INFO(images << " images of " << side << " pixels, " << to_json(request.options).dump());
        CHECK_NOTHROW(check_config(request.config));
        CHECK_NOTHROW(RunPlan(request.config, images));
        for (const auto& [name, text] : flags) CHECK(request.at(name).source == "flag");
        for (const Option& option : request.options) CHECK((option.source == "recipe") == !option.reason.empty());
      }
}

TEST_CASE("auto fits prototypes, batches, teacher and crops to the data, and says so in numbers") {
  Request photos;
  apply_auto({12'000, 375}, photos.options, photos.config);
  CHECK(photos.config.arch == "vit_small");
  CHECK(photos.config.out_dim == 512);
  CHECK(photos.at("out-dim").reason.starts_with("12,000 images: 512 prototypes, about 23.4 images for each"));
  CHECK(photos.config.batch_size == 128);
  CHECK(photos.config.epochs == 215);  // 93 steps each
  CHECK(photos.config.augment.global_crops_size == 224);
  CHECK(photos.config.augment.local_crops_size == 96);
  CHECK(photos.config.momentum_teacher == Approx(0.9931));  // half-life 100 of 19,995 steps
  CHECK(photos.config.momentum_teacher_end == 1);

  Request tiny;
  apply_auto({20'000, 32}, tiny.options, tiny.config);
  CHECK(tiny.config.arch == "conv_small");
  CHECK(tiny.config.out_dim == 1024);
  CHECK(tiny.config.augment.global_crops_size == 32);
  CHECK(tiny.config.augment.local_crops_size == 16);
  CHECK(tiny.config.momentum_teacher == Approx(0.9664));  // half-life 20.3 of 4,056 steps
  CHECK(tiny.config.momentum_teacher_end == Approx(0.9986));

  Request many;
  apply_auto({1'281'167, 375}, many.options, many.config);
  CHECK(many.config.out_dim == 65536);
  CHECK(many.config.teacher_temp == 0.07);
  CHECK(many.config.momentum_teacher == Approx(0.996));

  Request own({{"batch-size", "16"}, {"epochs", "10"}});
  apply_auto({12'000, 375}, own.options, own.config);
  CHECK(own.at("momentum-teacher").reason.starts_with("7,500 steps"));
}

TEST_CASE("auto looks at the shorter sides of images, and passes over those that cannot be read") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 5);  // 24 x 20
  std::ofstream(images + "/class0/broken.ppm") << "P6 nonsense";
  const DataFacts facts = look_at(*Dataset::open(images));
  CHECK(facts.images == 6);
  CHECK(facts.side == 20);
  testing::fs::create_directories(folder.path / "bad");
  std::ofstream(folder / "bad/broken.ppm") << "P6 nonsense";
  CHECK_THROWS_AS(look_at(*Dataset::open(folder / "bad")), DataError);
}

TEST_CASE("a recipe stands above the defaults and below --config and flags, and --dump-config says where each value came from and why") {
  const Folder folder;
  std::ofstream(folder / "some.json") << R"({"lr": 0.002, "epochs": 7})";
  const auto all = dumped("--recipe tiny-images --epochs 5 --config " + (folder / "some.json") + " --out " + (folder / "run"));
  const auto is = [&](const char* name, const nlohmann::json& value, const char* source) {
    INFO(name);
    CHECK(all[name]["value"] == value);
    CHECK(all[name]["source"] == source);
    CHECK(all[name].contains("reason") == (std::string(source) == "recipe"));
  };
  is("student-temp", 0.1, "default");
  is("arch", "conv_small", "recipe");
  is("lr", 0.002, "config");
  is("epochs", 5.0, "flag");
  const auto text = run_program("train --dump-config --recipe tiny-images --out " + (folder / "run"));
  CHECK_THAT(text.out, Catch::Contains("recipe   learns within minutes, a transformer from scratch"));
  const auto plain = dumped("--out " + (folder / "run"));
  for (const auto& [name, option] : plain.items()) CHECK(option["source"] == (name == "out" ? "flag" : "default"));
}

TEST_CASE("recipes that do not exist or lack what they need end with exit code 2") {
  for (const auto& [arguments, message] : {std::pair("--recipe photographs", "known: auto, imagenet, imagenet-boosted, resnet50, small, tiny-images, continue"),
                                           {"--recipe smal", "did you mean small"},
                                           {"--recipe auto", "--data"},
                                           {"--recipe continue --data photos", "--init"}}) {
    const auto outcome = run_program(std::string("train --dump-config ") + arguments);
    INFO(outcome.err);
    CHECK(outcome.code == 2);
    CHECK_THAT(outcome.err, Catch::Contains(message));
    CHECK(outcome.out.empty());
  }
}

TEST_CASE("a run that began with a recipe goes on with what it began with, whatever the recipe or the data say now") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 40), run = folder / "run";
  const std::string common = "--data " + images + " --out " + run + " --head-hidden-dim 32 --conv-widths 8,8 --epochs 2 --threads 2";
  const auto first = run_program("train --recipe auto " + common + " --steps 1");
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK_THAT(first.err, Catch::Contains("recipe auto: set"));
  const auto stored = nlohmann::json::parse(testing::read_file(run + "/config.json"));
  CHECK(stored["out-dim"] == 512);
  CHECK(stored["batch-size"] == 16);
  testing::make_images(folder, 400);
  const auto second = run_program("train --recipe imagenet " + common + " --steps 2");
  INFO(second.err);
  CHECK(second.code == 0);
  CHECK_THAT(second.err, Catch::Contains("goes on with the options that it began with") && Catch::Contains("going on at step 1"));
  CHECK_THAT(second.err, !Catch::Contains("out-dim is now"));
  const auto now = nlohmann::json::parse(testing::read_file(run + "/config.json"));
  CHECK(now["out-dim"] == 512);
  CHECK(now["momentum-teacher"] == stored["momentum-teacher"]);
}
