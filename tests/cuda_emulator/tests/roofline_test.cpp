#include <catch2/catch.hpp>

#include <unistd.h>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "count/counters.h"
#include "count/record.h"
#include "count/roofline.h"
#include "tests/hand_built.h"

using namespace emulator;
using namespace emulator::roofline;

namespace {

constexpr const char* kPtxas = R"(ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstPf' for 'sm_90'
ptxas info    : Function properties for _Z5firstPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4096 bytes smem, 360 bytes cmem[0]
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    16 bytes stack frame, 24 bytes spill stores, 32 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 360 bytes cmem[0]
)";

Work shaped(std::uint64_t blocks, std::uint64_t threads) {
  Work kernel;
  kernel.grid = {blocks, 1, 1};
  kernel.block = {threads, 1, 1};
  kernel.launches = 1;
  return kernel;
}

/// A file that is gone at the end of the test.
struct Scratch {
  std::string path =
      (std::filesystem::temp_directory_path() / ("roofline_test_" + std::to_string(::getpid()))).string();
  explicit Scratch(const std::string& text) { std::ofstream(path) << text; }
  ~Scratch() { std::filesystem::remove(path); }
};

}  // namespace

TEST_CASE("the output of ptxas -v is read per entry function") {
  std::istringstream text(kPtxas);
  const auto resources = read_ptxas(text);
  REQUIRE(resources.size() == 2);
  CHECK(resources.at("_Z5firstPf").registers == 40);
  CHECK(resources.at("_Z5firstPf").shared == 4096);
  CHECK(resources.at("second").registers == 255);
  CHECK(resources.at("second").spill_stores == 24);
  CHECK(resources.at("second").spill_loads == 32);
}

TEST_CASE("occupancy is that of the occupancy calculator") {
  const Gpu& h100 = *find_gpu("h100");
  const Occupancy threads = occupancy_of(h100, shaped(264, 1024), 32, 0);
  CHECK(threads.blocks == 2);
  CHECK(threads.limit == std::string("threads"));
  CHECK(threads.occupancy == 1.0);
  CHECK(threads.waves == 1);
  CHECK(threads.tail_efficiency == 1.0);
  CHECK(occupancy_of(h100, shaped(1, 224), 127, 0).blocks == 2);  // 128 registers: 16 warps
  CHECK(occupancy_of(h100, shaped(1, 224), 127, 0).limit == std::string("registers"));
  CHECK(occupancy_of(h100, shaped(1, 32), 16, 0).limit == std::string("blocks"));
  CHECK(occupancy_of(h100, shaped(1, 128), 32, 74 * 1024).blocks == 3);  // (74 + 1) * 3 <= 228
  CHECK(occupancy_of(h100, shaped(1, 128), 32, 228 * 1024).blocks == 0);
  const Occupancy tail = occupancy_of(h100, shaped(265, 1024), 32, 0);
  CHECK(tail.waves == 2);
  CHECK(tail.tail_efficiency == Approx(265.0 / 528));
}

TEST_CASE("the binding term of the lower bound is named") {
  const Gpu& h100 = *find_gpu("h100");
  Work kernel = shaped(132, 256);
  kernel.compulsory_bytes = 3.35e9;  // 1 ms
  kernel.sectors = 3.35e9 / 32;
  CHECK(bounds_of(h100, kernel)[0].name == std::string("HBM, compulsory bytes"));
  CHECK(bounds_of(h100, kernel)[0].seconds == Approx(1e-3));
  kernel.sectors *= 8;
  CHECK(bounds_of(h100, kernel)[0].name == std::string("L2, sector bytes"));
  kernel.tensor_flops = 989.4e10;
  CHECK(bounds_of(h100, kernel)[0].name == std::string("tensor cores"));
  CHECK(bounds_of(h100, kernel)[0].seconds == Approx(1e-2));
  kernel.shared_wavefronts = 132 * 1.98e9;
  CHECK(bounds_of(h100, kernel)[0].name == std::string("shared-memory wavefronts"));
  CHECK(bounds_of(h100, kernel)[0].seconds == Approx(1.0));
}

TEST_CASE("counters that the emulator writes are read back, per launch") {
  forget_kernel_records();
  HandBuilt built(4, 64);
  built.program.classes[0] = Class::fp32;
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<std::unique_ptr<LaunchCounts>> workers;
    workers.push_back(std::make_unique<LaunchCounts>(built.launch));
    LaunchCounts::PerProgram& counts = workers[0]->of(&built.program);
    counts.executed[0] = 8;
    counts.lanes[0] = 256;
    workers[0]->memory->touched.write(4096, 1024);
    workers[0]->memory->counts.global_stores = {.requests = 8, .sectors = 32, .useful_bytes = 1024};
    finish_counts(built.launch, workers);
  }
  const Scratch file(counters_json());
  const std::vector<Work> kernels = read_counters(file.path);
  REQUIRE(kernels.size() == 1);
  CHECK(kernels[0].mangled == "hand_built");
  CHECK(kernels[0].grid[0] == 4);
  CHECK(kernels[0].fp32_ops == 256);
  CHECK(kernels[0].compulsory_bytes == 1024);
  CHECK(kernels[0].sectors == 32);

  std::ostringstream out, error;
  CHECK(run(std::vector<std::string>{file.path, "--gpu", "l4"}, out, error) == 0);
  CHECK(out.str().find("hand_built") != std::string::npos);
  CHECK(out.str().find("time estimate: at least") != std::string::npos);
  CHECK(out.str().find("bound by HBM, compulsory bytes") != std::string::npos);
}

TEST_CASE("an unknown GPU, a file that is none and wrong arguments end with 2") {
  std::ostringstream out, error;
  const Scratch file("{\"kernels\": [{}]}");
  CHECK(run(std::vector<std::string>{file.path, "--gpu", "voodoo"}, out, error) == 2);
  CHECK(error.str().find("expected one of h100, h200, a100") != std::string::npos);
  CHECK(run(std::vector<std::string>{file.path}, out, error) == 2);
  CHECK(run(std::vector<std::string>{"/nowhere.json"}, out, error) == 2);
  CHECK(error.str().find("/nowhere.json: cannot be opened") != std::string::npos);
  CHECK(run(std::vector<std::string>{}, out, error) == 2);
  CHECK(run(std::vector<std::string>{file.path, "--gpu"}, out, error) == 2);
  CHECK(out.str().empty());
}
