#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "kernels/cuda_memory.h"

/// What CTest takes for a skipped test.
constexpr int kSkipped = 77;

int main(int argc, char** argv) {
  if (const std::string problem = dino::cuda::problem(); !problem.empty()) {
    const char* required = std::getenv("DINO_REQUIRE_CUDA");
    const bool must_run = required && std::strcmp(required, "0") != 0;
    std::cerr << (must_run ? "DINO_REQUIRE_CUDA is set, but " : "skipped: ") << problem << '\n';
    return must_run ? 1 : kSkipped;
  }
  std::cerr << dino::cuda::runtime() << ", " << dino::cuda::devices().front().name << '\n';
  return Catch::Session().run(argc, argv);
}
