#pragma once

#include "kernels/op.h"

/// The products of linear_products.h in bf16 by AVX512_BF16, for shapes where that is faster than oneDNN.
namespace dino::pairs {

/// Whether the processor can, and the shapes suit: many rows, and lengths in whole vectors.
bool multiplies_rows(const View& x, const View& weight, bool transposed, const View& y);
bool multiplies_columns(const View& a, const View& b, const View& result);

/// As in linear_products.h.
void multiply_rows(CpuStream& stream, const View& x, const View& weight, bool transposed, const View& bias, const View& y, bool add);
void multiply_columns(CpuStream& stream, const View& a, const View& b, const View& result, bool add);

}  // namespace dino::pairs
