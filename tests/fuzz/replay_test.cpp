#include <catch2/catch.hpp>

#include "tests/engine/files.h"
#include "tests/fuzz/targets.h"

using namespace dino;

namespace {

std::span<const uint8_t> bytes_of(const std::string& text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

}  // namespace

TEST_CASE("every reader of files takes its seeds, and takes or refuses what damage makes of them") {
  for (const fuzz::Target& target : fuzz::targets()) {
    INFO(target.name);
    int refused = 0;
    unsigned number = 0;
    for (const std::string& seed : target.seeds()) {
      INFO("seed " << number);
      CHECK(fuzz::read_or_refuse(target, bytes_of(seed)));
      for (unsigned i = 0; i < 60; ++i) refused += !fuzz::read_or_refuse(target, bytes_of(test::mutated(seed, 1000 * number + i)));
      ++number;
    }
    // Every line is a path, or an image that could not be read.
    if (target.name != "bad_images") CHECK(refused > 0);
  }
}
