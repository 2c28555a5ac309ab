#pragma once

#include "kernels/attention_head.h"

/// `attention_head` for values in bf16 on processors that multiply pairs of them (AVX512_BF16): scores, probabilities and
/// their gradients are rounded to bf16 where they are multiplied, sums and softmax are in f32, as on tensor cores.
namespace dino::attention_head::dot_products {

/// Whether this processor can, and the sizes suit: more than one query, and heads of a multiple of 32 columns.
bool suits(const Size& size);

/// Bytes of 64-byte aligned scratch memory.
size_t forward_scratch_bytes(const Size& size);
size_t backward_scratch_bytes(const Size& size);

void forward(const Forward<BFloat16>& head, std::byte* scratch);
void backward(const Backward<BFloat16>& head, std::byte* scratch);

}  // namespace dino::attention_head::dot_products
