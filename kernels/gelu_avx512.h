#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"

/// GELU on values in bf16 without a detour through memory in f32, for processors with AVX512_BF16.
namespace dino::gelu_avx512 {

/// Whether this processor is one.
bool supported();

/// y = x Φ(x), with a relative error of 1e-5 before it is rounded.
void forward(const BFloat16* x, BFloat16* y, int64_t n);

/// dx = or += dy · (Φ(x) + x φ(x)), rounded once.
void backward(const BFloat16* x, const BFloat16* dy, BFloat16* dx, int64_t n, bool add);

}  // namespace dino::gelu_avx512
