#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace fs = std::filesystem;

namespace {

// The rooms that each room may include from; tests, bench and docs use everything.
const std::map<std::string, std::set<std::string>> kBelow = {
    {"kernels", {"kernels"}},
    {"engine", {"kernels", "engine"}},
    {"models", {"kernels", "engine", "models"}},
    {"augment", {"kernels", "engine", "augment"}},
    {"train", {"kernels", "engine", "models", "augment", "train"}},
};

template <class F>
void for_sources(const std::string& room, F&& f) {
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(DINO_SOURCE_DIR) / room)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".h" || extension == ".cpp" || extension == ".cu" || extension == ".cuh") f(entry.path());
  }
}

}  // namespace

TEST_CASE("includes point down only and are written from the root") {
  const std::regex include("^\\s*#\\s*include\\s*\"([^\"]+)\"");
  int seen = 0;
  for (const auto& [room, below] : kBelow)
    for_sources(room, [&, &allowed = below](const fs::path& path) {
      std::ifstream file(path);
      std::smatch match;
      for (std::string line; std::getline(file, line);) {
        if (!std::regex_search(line, match, include)) continue;
        const std::string target = match[1];
        INFO(path.string() << ": " << target);
        CHECK(allowed.count(target.substr(0, target.find('/'))) == 1);
        CHECK(fs::exists(fs::path(DINO_SOURCE_DIR) / target));
        ++seen;
      }
    });
  CHECK(seen > 100);
}

TEST_CASE("files stay small") {
  for (const auto& [room, below] : kBelow)
    for_sources(room, [](const fs::path& path) {
      std::ifstream file(path);
      int lines = 0;
      for (std::string line; std::getline(file, line);) ++lines;
      INFO(path.string());
      CHECK(lines <= 450);
    });
}

// nvcc names unnamed namespaces after a hash of the path, which changes the code that it makes from folder to folder.
TEST_CASE("kernels live in namespaces named after their files") {
  int seen = 0;
  for_sources("kernels", [&](const fs::path& path) {
    if (path.extension() != ".cu") return;
    std::ifstream file(path);
    INFO(path.string());
    for (std::string line; std::getline(file, line);) {
      CHECK(line.find("namespace {") == std::string::npos);
      if (line.starts_with("inline namespace ")) CHECK(line == "inline namespace " + path.stem().string() + "_cu {");
    }
    ++seen;
  });
  CHECK(seen > 30);
}

TEST_CASE("the code in docs/embedding.md is part of the program that the tests build against an installed copy") {
  const auto lines_of = [](const std::string& name) {
    std::ifstream file(fs::path(DINO_SOURCE_DIR) / name);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line.substr(std::min(line.size(), line.find_first_not_of(' '))));
    return lines;
  };
  const auto program = lines_of("tests/consumer/main.cpp"), page = lines_of("docs/embedding.md");
  int blocks = 0;
  for (auto line = page.begin(); line != page.end(); ++line) {
    if (*line != "```cpp") continue;
    const auto end = std::find(line, page.end(), "```");
    INFO("the block that begins with " << line[1]);
    CHECK(std::search(program.begin(), program.end(), line + 1, end) != program.end());
    ++blocks;
    line = end;
  }
  CHECK(blocks == 6);
}
