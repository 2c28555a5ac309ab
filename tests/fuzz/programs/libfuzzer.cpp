#include <cstddef>

#include "tests/fuzz/targets.h"

// One program per target; DINO_FUZZ_TARGET is its name.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const dino::fuzz::Target& target = dino::fuzz::target_named(DINO_FUZZ_TARGET);
  dino::fuzz::read_or_refuse(target, {data, size});
  return 0;
}
