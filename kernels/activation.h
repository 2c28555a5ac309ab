#pragma once

#include <cstdint>

namespace dino {

/// A non-linearity fused into another op.
enum class Activation : uint8_t { none, relu, gelu };

}  // namespace dino
