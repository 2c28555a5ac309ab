#pragma once

#include "kernels/op.h"

/// The matrix products of linear layers on the CPU, by oneDNN, in f32 or in bf16 with sums in f32. Work is
/// cut into pieces that depend on the shapes only, so the bits of the results do not depend on the number of
/// threads.
namespace dino {

/// Whether oneDNN multiplies bf16 on this processor, if need be in f32.
bool multiplies_bf16();

/// Whether the processor has instructions for that (AVX512_BF16 or AMX), so that it is faster than f32.
bool multiplies_bf16_natively();

/// y [rows, n] = x [rows, k] · weight + bias, where weight is [n, k] if `transposed`, else [k, n]; `add` adds
/// that to y. x and weight are of one dtype, y of that or f32; rows may be strided. bias [n] is f32 or
/// absent.
void multiply_rows(CpuStream& stream, const View& x, const View& weight, bool transposed, const View& bias,
                   const View& y, bool add);

/// The most scratch memory that y = x [rows, k] · weightᵀ [k, n], and its two gradients take, in bytes.
size_t products_scratch(int64_t rows, int64_t k, int64_t n, Dtype dtype);

/// result [m, n] (f32) = or += aᵀ · b, summed over the rows of a [rows, m] and b [rows, n].
void multiply_columns(CpuStream& stream, const View& a, const View& b, const View& result, bool add);

}  // namespace dino
