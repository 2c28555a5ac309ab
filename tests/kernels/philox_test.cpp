#include "kernels/philox.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <set>

using namespace dino;

TEST_CASE("Philox4x32-10 gives its authors' known answers") {
  const auto block = [](uint32_t key0, uint32_t key1, uint64_t a, uint32_t b, uint32_t number) {
    Philox philox(0, Purpose::test);
    philox.key[0] = key0;
    philox.key[1] = key1;
    return philox(a, b, number);
  };
  const Philox::Block zeros = block(0, 0, 0, 0, 0);
  const uint32_t want_zeros[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const Philox::Block ones = block(~0u, ~0u, ~uint64_t{0}, ~0u, ~0u);
  const uint32_t want_ones[] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  for (int i = 0; i < 4; ++i) {
    CHECK(zeros.word[i] == want_zeros[i]);
    CHECK(ones.word[i] == want_ones[i]);
  }
}

TEST_CASE("sequences of other purposes, seeds and indices are other sequences") {
  std::set<uint32_t> first;
  int drawn = 0;
  for (const Purpose purpose : {Purpose::augment, Purpose::shuffle, Purpose::drop_path})
    for (uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40})
      for (uint64_t a : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 33})
        for (uint32_t b : {0u, 1u}) {
          first.insert(Random(seed, purpose, a, b).bits());
          ++drawn;
        }
  CHECK(static_cast<int>(first.size()) == drawn);
}

TEST_CASE("uniform numbers lie in [0, 1) with the right mean and variance") {
  Random random(3, Purpose::test, 0);
  double sum = 0, square = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = static_cast<double>(random.uniform());
    REQUIRE((u >= 0 && u < 1));
    sum += u;
    square += u * u;
  }
  // Five standard deviations of the mean and of the mean square.
  CHECK(std::abs(sum / kDraws - 0.5) < 5 * std::sqrt(1.0 / 12 / kDraws));
  CHECK(std::abs(square / kDraws - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / kDraws));
}
