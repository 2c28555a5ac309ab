#pragma once

#include <cstdint>

namespace dino {

/// A non-linearity. gelu is the exact one, x · Φ(x), gelu_tanh its approximation by tanh.
enum class Activation : uint8_t { none, relu, gelu, gelu_tanh };

inline constexpr bool is_gelu(Activation activation) {
  return activation == Activation::gelu || activation == Activation::gelu_tanh;
}

}  // namespace dino
