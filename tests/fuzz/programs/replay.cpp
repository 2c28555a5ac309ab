#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernels/error.h"
#include "tests/fuzz/targets.h"

namespace fs = std::filesystem;
using namespace dino;

namespace {

void write_seeds(const std::string& folder) {
  for (const fuzz::Target& target : fuzz::targets()) {
    const fs::path place = fs::path(folder) / target.name;
    fs::create_directories(place);
    int number = 0;
    for (const std::string& seed : target.seeds()) std::ofstream(place / str("seed", number++), std::ios::binary) << seed;
  }
}

void replay(const fuzz::Target& target, const fs::path& path) {
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::directory_iterator(path)) replay(target, entry.path());
    return;
  }
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const bool read = fuzz::read_or_refuse(target, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  std::printf("%s: %s\n", path.c_str(), read ? "read" : "refused");
}

}  // namespace

// Plain programs for any compiler: write the seeds of all targets, or let one target read files, such as those that a fuzzer found.
int main(int argc, char** argv) try {
  if (argc == 3 && std::strcmp(argv[1], "--write-seeds") == 0) {
    write_seeds(argv[2]);
    return 0;
  }
  check<UsageError>(argc >= 3, "usage: fuzz_replay --write-seeds FOLDER | fuzz_replay TARGET FILE-OR-FOLDER...");
  const fuzz::Target& target = fuzz::target_named(argv[1]);
  for (int i = 2; i < argc; ++i) replay(target, argv[i]);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "fuzz_replay: %s\n", error.what());
  return 1;
}
