#pragma once

#include "cublas/gemm.h"
#include "cublas/lt_objects.h"

namespace emulator::blas {

/// Fills in what the descriptor's epilogue adds to the product. Null pointers pass: heuristics do not need
/// them. Throws Rejected.
void set_epilogue(const MatmulObject& matmul, Gemm& gemm);

/// Throws Rejected (INVALID_VALUE) if a pointer that the epilogue needs is null or not aligned.
void require_epilogue_pointers(const Gemm& gemm, const MatmulObject& matmul);

/// All epilogues that are emulated, or-ed together: the value of CUBLASLT_ALGO_CAP_EPILOGUE_MASK.
constexpr unsigned kEpilogueMask = 1 | 2 | 4 | 8 | 16 | 32 | 64 | 128 | 256 | 512;

}  // namespace emulator::blas
