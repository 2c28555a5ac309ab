#pragma once

#include <bit>
#include <cstdint>

namespace dino {

/// The upper half of an f32: 8 bits of exponent, 7 of fraction. The CPU stores it and computes in f32.
struct BFloat16 {
  uint16_t bits = 0;

  BFloat16() = default;
  /// The nearest, ties to even; NaN stays NaN.
  explicit BFloat16(float value) {
    const uint32_t all = std::bit_cast<uint32_t>(value);
    const bool nan = value != value;
    bits = static_cast<uint16_t>((nan ? all | 0x400000u : all + 0x7FFFu + (all >> 16 & 1)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

}  // namespace dino
