#pragma once

#include <array>
#include <cstdint>

#include "kernels/device.h"

namespace dino {

/// What a random number is for. Draws of different purposes are independent, whatever their indices.
enum class Purpose : uint32_t {
  initialization = 1,  ///< a: parameter number, b: element block
  shuffle = 2,         ///< a: epoch
  augment = 3,         ///< a: global sample position in the run, b: crop number
  replacement = 4,     ///< a: global sample position in the run, b: attempt
  drop_path = 5,       ///< a: step, b: layer and branch
  probe = 6,           ///< evaluation: shuffling and augmentation of a linear probe
  test = 7,
};

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, 2011): ten rounds over a 128-bit counter with a 64-bit key.
struct Philox {
  uint32_t key[2];

  /// The key of one (seed, purpose) pair.
  DINO_HOST_DEVICE Philox(uint64_t seed, Purpose purpose)
      : key{static_cast<uint32_t>(seed),
            static_cast<uint32_t>(seed >> 32) ^ (static_cast<uint32_t>(purpose) << 24)} {}

  struct Block {
    uint32_t word[4];
  };

  /// Block number `block` of the sequence named by (a, b): four independent 32-bit words.
  DINO_HOST_DEVICE Block operator()(uint64_t a, uint32_t b, uint32_t block) const {
    uint32_t c0 = block, c1 = b, c2 = static_cast<uint32_t>(a), c3 = static_cast<uint32_t>(a >> 32);
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
      const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
  }
};

/// 24 random bits as a float in [0, 1).
DINO_HOST_DEVICE inline float uniform_from(uint32_t word) {
  return static_cast<float>(word >> 8) * (1.0f / 16777216.0f);
}

/// The words of one (seed, purpose, a, b) sequence, one after the other.
class Random {
 public:
  DINO_HOST_DEVICE Random(uint64_t seed, Purpose purpose, uint64_t a, uint32_t b = 0)
      : philox_(seed, purpose), a_(a), b_(b) {}

  DINO_HOST_DEVICE uint32_t bits() {
    if (used_ == 4) {
      block_ = philox_(a_, b_, next_block_++);
      used_ = 0;
    }
    return block_.word[used_++];
  }

  /// Uniform in [0, 1) with 24 bits.
  DINO_HOST_DEVICE float uniform() { return uniform_from(bits()); }

  /// Uniform in [low, high), computed in float.
  DINO_HOST_DEVICE float uniform(float low, float high) { return low + (high - low) * uniform(); }

  /// Uniform integer in [0, n), n > 0. The bias of the multiply-shift map is below n / 2^32.
  DINO_HOST_DEVICE uint32_t below(uint32_t n) {
    return static_cast<uint32_t>((uint64_t{bits()} * n) >> 32);
  }

 private:
  Philox philox_;
  uint64_t a_;
  uint32_t b_;
  uint32_t next_block_ = 0;
  int used_ = 4;
  Philox::Block block_{};
};

}  // namespace dino
