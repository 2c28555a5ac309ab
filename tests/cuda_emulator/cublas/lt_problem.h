#pragma once

#include "cublas/gemm.h"
#include "cublas/lt_objects.h"

namespace emulator::blas {

/// The descriptors of one cublasLtMatmul.
struct LtProblem {
  MatmulObject matmul;
  LayoutObject a, b, c, d;
};

/// Reads the descriptors; throws Rejected if one is null or stale.
LtProblem unpack_problem(cublasLtMatmulDesc_t matmul, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                         cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d);

/// Checks every rule that can be judged without addresses, and says what is to be computed (addresses of A …
/// D and of alpha and beta are left open). Throws Rejected: INVALID_VALUE for contradictions, NOT_SUPPORTED
/// for combinations that the library, or the emulator, lacks.
Gemm gemm_of(const LtProblem& problem);

/// Checks a combination of types; the arguments are values of cublasComputeType_t and cudaDataType. Throws
/// Rejected (NOT_SUPPORTED).
void require_types(int compute, int scale, int a, int b, int c, int d);

/// One layout as a matrix; throws Rejected for layouts that are impossible or not emulated.
Matrix matrix_of(const char* name, const LayoutObject& layout);

/// How a compute type treats f32 inputs.
InputRounding rounding_of(int compute);

}  // namespace emulator::blas
