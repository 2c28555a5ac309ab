#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>

#include "augment/dataset.h"
#include "engine/npy.h"
#include "engine/safetensors.h"
#include "tests/augment/fixtures.h"
#include "tests/train/process.h"

using namespace dino;
using testing::Folder;

namespace {

/// `count` images of five channels, in two class folders.
std::string make_wide(const Folder& folder, int count, SampleType type, bool arrays) {
  const std::string root = folder / "wide";
  for (int i = 0; i < count; ++i) {
    const auto image = fixtures::wide_pattern(20, 24, 5, type, i);
    const fixtures::Bytes bytes = arrays ? fixtures::npy(image, i % 2 == 1) : fixtures::wide_tiff(image);
    const std::string place = root + "/class" + std::to_string(i % 2);
    testing::fs::create_directories(place);
    std::ofstream(place + "/image" + std::to_string(100 + i) + (arrays ? ".npy" : ".tif"), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  return root;
}

nlohmann::json config_of(const std::string& run) { return nlohmann::json::parse(testing::read_file(run + "/config.json")); }

/// Number `index` of those in a text with commas.
double listed(const std::string& text, size_t index) {
  size_t begin = 0;
  for (size_t i = 0; i < index; ++i) begin = text.find(',', begin) + 1;
  return std::stod(text.substr(begin));
}

/// Mean and deviation of a channel over the images of a folder, each counting alike.
std::pair<double, double> direct_statistics(const std::string& images, ImageKind kind, size_t channel) {
  const auto dataset = Dataset::open(images, kind);
  double mean = 0, variance = 0;
  for (const bool second : {false, true})
    for (size_t i = 0; i < dataset->size(); ++i) {
      const Image image = dataset->load(i);
      const auto channels = static_cast<size_t>(kind.channels);
      const double share = static_cast<double>(channels) / static_cast<double>(image.values.size() * dataset->size());
      for (size_t at = channel; at < image.values.size(); at += channels) {
        const auto value = static_cast<double>(image.values[at]);
        (second ? variance : mean) += (second ? (value - mean) * (value - mean) : value) * share;
      }
    }
  return {mean, std::sqrt(variance)};
}

}  // namespace

TEST_CASE("a run on five channels of 16 bits or of floats finds out by itself, goes on with the same bytes, and its features follow") {
  const bool arrays = GENERATE(false, true);
  const SampleType type = arrays ? SampleType::float32 : SampleType::uint16;
  const Folder folder;
  const std::string images = make_wide(folder, 12, type, arrays), run = folder / "run", whole = folder / "whole";
  const std::string options = " --precision f32 --saveckp-freq 0 --eval-every 1";
  const testing::Outcome first = testing::run_program(testing::small_arguments(images, run) + options + " --steps 4");
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK_THAT(first.err, Catch::Contains(arrays ? "images: 5 channels of float32" : "images: 5 channels of uint16") && Catch::Contains("solarization are off"));
  const auto config = config_of(run);
  CHECK(config["channels"] == 5);
  CHECK(config["pixel-type"] == (arrays ? "float32" : "uint16"));
  for (size_t c = 0; c < 5; ++c) {
    const auto [mean, deviation] = direct_statistics(images, {5, type}, c);
    // config.json has six digits.
    CHECK(listed(config["mean"], c) == Approx(mean).epsilon(1e-5).margin(1e-5));
    CHECK(listed(config["std"], c) == Approx(deviation).epsilon(1e-5));
  }

  const testing::Outcome second = testing::run_program(testing::small_arguments(images, run) + options);
  REQUIRE(second.code == 0);
  CHECK_THAT(second.err, Catch::Contains("going on at step 4") && !Catch::Contains("--mean is now") && !Catch::Contains("standard deviation"));
  REQUIRE(testing::run_program(testing::small_arguments(images, whole) + options).code == 0);
  CHECK(testing::read_file(run + "/checkpoint.safetensors") == testing::read_file(whole + "/checkpoint.safetensors"));

  const testing::Outcome features =
      testing::run_program("features --weights " + run + "/checkpoint.safetensors --data " + images + " --out " + (folder / "f.npy") + " --threads 2");
  INFO(features.err);
  REQUIRE(features.code == 0);
  CHECK(load_npy(folder / "f.npy").shape == std::vector<int64_t>{12, 24});
  const auto protocol = nlohmann::json::parse(testing::read_file(folder / "f.json"))["protocol"];
  CHECK(protocol["channels"] == 5);
  CHECK(protocol["pixel_type"] == (arrays ? "float32" : "uint16"));
  const std::string image = images + "/class0/image100" + (arrays ? ".npy" : ".tif");
  CHECK(testing::run_program("attention --weights " + run + "/checkpoint.safetensors --image " + image + " --image-size 16 --threshold 0.5 --out " + (folder / "maps")).code == 0);
  CHECK(testing::read_file(folder / "maps/img.png").starts_with("\x89PNG"));
  CHECK(testing::run_program("eval knn --weights " + run + "/checkpoint.safetensors --train " + images + " --val " + images + " --threads 2").code == 0);
  CHECK(testing::run_program("report --run " + run + " --threads 2").code == 0);
}

TEST_CASE("damaged and odd files among images of many channels are listed and replaced, and plan names them") {
  const Folder folder;
  const std::string images = make_wide(folder, 24, SampleType::uint16, false), run = folder / "run";
  const auto put = [&](const std::string& name, const fixtures::Bytes& bytes) {
    std::ofstream(images + "/class0/" + name, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  };
  put("narrow.tif", fixtures::wide_tiff(fixtures::wide_pattern(20, 24, 4, SampleType::uint16)));
  fixtures::Bytes cut = fixtures::wide_tiff(fixtures::wide_pattern(20, 24, 5, SampleType::uint16));
  std::fill(cut.begin() + 8, cut.begin() + static_cast<ptrdiff_t>(cut.size() / 2), uint8_t{0});
  put("cut.tif", cut);
  const std::string train = testing::small_arguments(images, run) + " --precision f32 --saveckp-freq 0";
  const testing::Outcome plan = testing::run_program("plan" + train.substr(5) + " --no-timing --max-bad-fraction 0.2");
  INFO(plan.err);
  CHECK(plan.code == 0);
  CHECK_THAT(plan.out, Catch::Contains("narrow.tif: the image has 4 channels of uint16; 5 channels of uint16 are read here") && Catch::Contains("cut.tif") &&
                           Catch::Contains("5 channels, 16 bits"));
  const testing::Outcome done = testing::run_program(train + " --max-bad-fraction 0.2");
  INFO(done.err);
  CHECK(done.code == 0);
  const std::string listed = testing::read_file(run + "/bad_images.txt");
  CHECK_THAT(listed, Catch::Contains("narrow.tif") && Catch::Contains("cut.tif"));
  CHECK(std::count(listed.begin(), listed.end(), '\n') == 2);
}

TEST_CASE("weights that were made for three channels are refused for five in one line") {
  const Folder folder;
  const std::string color = testing::make_images(folder, 8), run = folder / "color", images = make_wide(folder, 8, SampleType::uint16, false);
  REQUIRE(testing::run_program(testing::small_arguments(color, run) + " --steps 1").code == 0);
  const testing::Outcome refused = testing::run_program(testing::small_arguments(images, folder / "wide_run") + " --init " + run + "/checkpoint.safetensors");
  CHECK(refused.code == 2);
  CHECK_THAT(testing::error_line(refused), Catch::Contains("made for images of 3 channels, these have 5"));
}
