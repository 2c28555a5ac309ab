#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>

#include "tests/train/run_folder.h"
#include "train/report/line_chart.h"
#include "train/report/markup.h"

using namespace dino;
using testing::Folder;
using testing::run_program;

namespace {

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

/// The first tag that does not close what was opened last; empty if all do.
std::string unbalanced_tag(const std::string& html) {
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z0-9]+)[^>]*?(/?)>");
  for (std::sregex_iterator at(html.begin(), html.end(), tag), end; at != end; ++at) {
    const std::string name = (*at)[2];
    if ((*at)[3] == "/" || name == "meta" || name == "img") continue;
    if ((*at)[1] != "/") open.push_back(name);
    else if (open.empty() || open.back() != name) return name;
    else open.pop_back();
  }
  return open.empty() ? "" : open.back();
}

/// The program's report of a small run on images in a folder with a hostile name.
std::string make_report(const Folder& folder) {
  const std::string images = testing::make_images(folder, 12);
  testing::fs::rename(testing::fs::path(images) / "class0", testing::fs::path(images) / "<script>x");
  const auto trained = run_program(testing::small_arguments(images, folder / "run") + " --saveckp-freq 2 --val " + images);
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  const auto reported = run_program("report --images 3 --run " + (folder / "run"));
  INFO(reported.err);
  REQUIRE(reported.code == 0);
  return testing::read_file(folder / "run/report.html");
}

}  // namespace

TEST_CASE("a report shows what was logged, needs nothing else, and takes no name for markup") {
  const Folder folder;
  const std::string html = make_report(folder);
  CHECK(unbalanced_tag(html) == "");
  // Loss, targets, k-NN, prototypes, unreadable images and four schedules; then a curve each for loss over ln(out-dim), center,
  // deviation and rank of the features, and the teacher's half-life in steps and epochs.
  CHECK(count_of(html, "<svg") == 9 + 6);
  CHECK(count_of(html, "src=\"data:image/png;base64,") == count_of(html, "<img"));
  // Crops: 3 images of 1 + 2 + 2 pictures. Three checkpoints: 3 images with attention and 5 neighbours. 3 hardest images with 2 crops.
  CHECK(count_of(html, "<img") == 3 * 5 + 3 * 3 * 7 + 3 * 3);
  CHECK(html.find("Machine of the run") != std::string::npos);
  for (const char* outside : {"http:", "https:", "<script", "url(", "<link", "@import"}) {
    INFO(outside);
    CHECK(html.find(outside) == std::string::npos);
  }
  CHECK(html.find("&lt;script&gt;x") != std::string::npos);
  std::istringstream log(testing::read_file(folder / "run/log.jsonl"));
  for (std::string line; std::getline(log, line);)
    CHECK(html.find("loss " + short_number(nlohmann::json::parse(line)["loss"].get<double>(), 5)) != std::string::npos);
  CHECK(html.find("momentum-teacher-end") != std::string::npos);
}

TEST_CASE("a report without its images still has the curves, and says what is missing") {
  const Folder folder;
  make_report(folder);
  testing::fs::remove_all(folder / "images");
  const auto outcome = run_program("report --json --run " + (folder / "run") + " --out " + (folder / "other.html"));
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  CHECK(nlohmann::json::parse(outcome.out)["notes"].size() == 1);
  const std::string html = testing::read_file(folder / "other.html");
  CHECK(html.find("<img") == std::string::npos);
  CHECK(html.find("--data says where the images are now") != std::string::npos);
  CHECK(count_of(html, "<svg") == 9 + 6);
}

TEST_CASE("a report of something that is not a run is refused with the place of the fault") {
  const Folder folder;
  const auto fails = [&](const std::string& message) {
    const auto outcome = run_program("report --run " + (folder / "run"));
    CHECK(outcome.code == 3);
    CHECK_THAT(outcome.err, Catch::Contains(message));
    CHECK(!testing::fs::exists(folder / "run/report.html"));
  };
  fails("is not a folder");
  testing::fs::create_directories(folder / "run");
  fails("config.json: does not exist");
  std::ofstream(folder / "run/config.json") << "{\"data\": \"nowhere\"}";
  fails("log.jsonl: cannot be read");
  std::ofstream(folder / "run/log.jsonl") << "";
  fails("no step was logged yet");
  std::ofstream(folder / "run/log.jsonl") << "{\"step\": 0, \"epoch\": 1}\n{\"step\": \"many\", \"epoch\": 2}\n";
  fails("log.jsonl: line 2 is not");
}

TEST_CASE("ticks are round numbers inside of the range") {
  CHECK(round_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(round_ticks(0.003, 0.011, 4) == std::vector<double>{0.004, 0.006, 0.008, 0.01});
  CHECK(round_ticks(-1, 1, 4) == std::vector<double>{-1, -0.5, 0, 0.5, 1});
  CHECK(round_ticks(7, 7, 4) == std::vector<double>{7});
}

TEST_CASE("bytes become base64 with its padding") {
  const auto encoded = [](const std::string& bytes) {
    return data_uri(std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())).substr(std::string("data:image/png;base64,").size());
  };
  CHECK(encoded("") == "");
  CHECK(encoded("f") == "Zg==");  // the examples of RFC 4648
  CHECK(encoded("fo") == "Zm8=");
  CHECK(encoded("foo") == "Zm9v");
  CHECK(encoded("foobar") == "Zm9vYmFy");
  CHECK(encoded("\xFB\xFF") == "+/8=");
}

TEST_CASE("a chart with one value, and a long one, is drawn within its frame") {
  for (const size_t length : {1, 5000}) {
    Curve curve{"c", {}};
    for (size_t i = 0; i < length; ++i) curve.points.push_back({static_cast<double>(i), 1e6 * static_cast<double>(i % 7)});
    const std::string svg = to_svg({.title = "t", .x_name = "x", .curves = {curve}});
    CHECK(count_of(svg, "<rect") == std::min<size_t>(length, 240));
    CHECK(svg.find("nan") == std::string::npos);
    CHECK(svg.find("inf") == std::string::npos);
  }
}
