#include "tests/train/run_folder.h"

using namespace dino;
using testing::Folder;
using testing::read_file;
using testing::run_program;

namespace {

/// What bash offers for the last of these words.
std::string completed(const std::string& words) {
  const Folder folder;
  const std::string script = folder / "complete.sh";
  std::ofstream(script) << "source <(" << DINO_PROGRAM << " completion bash)\n"
                        << "COMP_WORDS=(" << words << ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_dino_engine\necho \"${COMPREPLY[*]}\" >" << (folder / "reply")
                        << "\n";
  REQUIRE(std::system(("bash " + script).c_str()) == 0);
  return read_file(folder / "reply");
}

}  // namespace

TEST_CASE("docs/command_line.md is what the program says of itself") {
  const auto page = run_program("manual --format markdown");
  CHECK(page.code == 0);
  // If this fails: dino_engine manual --format markdown > docs/command_line.md
  CHECK(page.out == read_file(std::string(DINO_SOURCE_DIR) + "/docs/command_line.md"));
}

TEST_CASE("the man page has every option of train that --help has") {
  const std::string help = run_program("train --help").out, page = run_program("manual").out;
  int options = 0;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    const size_t begin = line.find("--");
    if (begin == std::string::npos || begin > 6) continue;
    std::string name = line.substr(begin, line.find_first_of(" ,", begin) - begin);
    for (size_t dash = 0; (dash = name.find('-', dash)) != std::string::npos; dash += 2) name.insert(dash, "\\");
    INFO(name);
    CHECK(page.find("\\fB" + name) != std::string::npos);
    ++options;
  }
  CHECK(options > 60);
}

TEST_CASE("bash completes commands, options and values") {
  CHECK(completed("dino_engine trai") == "train\n");
  CHECK(completed("dino_engine eval k") == "knn\n");
  CHECK(completed("dino_engine eval knn --nb") == "--nb-knn\n");
  CHECK(completed("dino_engine train --optimizer l") == "lars\n");
  CHECK(completed("dino_engine train --out-d") == "--out-dim\n");
  CHECK(completed("dino_engine train --data x") == "\n");  // left to the shell, which knows files
}

TEST_CASE("completion for a shell that nobody has is refused") {
  const auto outcome = run_program("completion powershell");
  CHECK(outcome.code == 2);
  CHECK_THAT(outcome.err, Catch::Contains("bash, zsh or fish"));
}

TEST_CASE("quiet leaves errors on stderr, and verbose shows every step") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  const std::string arguments = testing::small_arguments(images, folder / "quiet") + " --steps 3 --log-every 100";
  const auto quiet = run_program(arguments + " --quiet");
  CHECK(quiet.code == 0);
  CHECK(quiet.err.empty());
  const auto failed = run_program("train --quiet --data " + (folder / "missing") + " --out " + (folder / "none"));
  CHECK(failed.code == 3);
  CHECK_THAT(failed.err, Catch::StartsWith("dino_engine: "));
  const auto verbose = run_program(testing::small_arguments(images, folder / "verbose") + " --steps 3 --log-every 100 -v");
  for (const char* step : {"step 1/", "step 2/", "step 3/"}) CHECK_THAT(verbose.err, Catch::Contains(step));
}
