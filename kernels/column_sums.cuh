#pragma once

#include "kernels/cuda_stream.h"
#include "kernels/op.h"

/// Sums of a matrix over its rows, in an order that only its shape decides: gradients of biases.
namespace dino::cuda {

/// Scratch memory that column_sums() needs for `x`, in bytes.
size_t column_sums_scratch(const View& x);

/// sums[j] = Σ_i x[i, j], or with mode add added to what is there; x is f32 or bf16, its rows may be strided; `sums`
/// [cols] is f32 or bf16. `scratch` is aligned to 16 bytes and not part of either.
void column_sums(CudaStream& stream, const View& x, const View& sums, GradMode mode, void* scratch);

}  // namespace dino::cuda
