#include "cublas/lt_problem.h"

#include <algorithm>
#include <limits>

#include "cublas/lt_epilogue.h"
#include "cublas/report.h"

namespace emulator::blas {
namespace {

/// One row of the table of supported types in the documentation of cublasLtMatmul (real types of at least 16
/// bits).
struct TypeRow {
  bool (*takes)(int compute);
  Type scale, inputs, output;
};

bool is_16f(int compute) { return compute == CUBLAS_COMPUTE_16F || compute == CUBLAS_COMPUTE_16F_PEDANTIC; }
bool is_32f(int compute) { return compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC; }
bool is_64f(int compute) {
  return compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC ||
         compute == CUBLAS_COMPUTE_64F_EMULATED_FIXEDPOINT;
}
bool is_fast_32f(int compute) {
  return compute == CUBLAS_COMPUTE_32F_FAST_16F || compute == CUBLAS_COMPUTE_32F_FAST_16BF ||
         compute == CUBLAS_COMPUTE_32F_FAST_TF32 || compute == CUBLAS_COMPUTE_32F_EMULATED_16BFX9;
}

constexpr TypeRow kTypeRows[] = {
    {is_16f, Type::f16, Type::f16, Type::f16},      {is_32f, Type::f32, Type::bf16, Type::bf16},
    {is_32f, Type::f32, Type::f16, Type::f16},      {is_32f, Type::f32, Type::bf16, Type::f32},
    {is_32f, Type::f32, Type::f16, Type::f32},      {is_32f, Type::f32, Type::f32, Type::f32},
    {is_fast_32f, Type::f32, Type::f32, Type::f32}, {is_64f, Type::f64, Type::f64, Type::f64},
};

const char* order_name(int order) { return order == CUBLASLT_ORDER_ROW ? "row-major" : "column-major"; }

void require_shapes(const Gemm& gemm) {
  const std::int64_t a_rows = gemm.transpose_a ? gemm.a.columns : gemm.a.rows;
  const std::int64_t b_rows = gemm.transpose_b ? gemm.b.columns : gemm.b.rows;
  const std::int64_t b_columns = gemm.transpose_b ? gemm.b.rows : gemm.b.columns;
  require_valid(gemm.k() == b_rows, "op(A) has ", gemm.k(), " columns but op(B) has ", b_rows, " rows");
  require_valid(gemm.d.rows == a_rows && gemm.d.columns == b_columns, "D is ", gemm.d.rows, " x ",
                gemm.d.columns, " but op(A) op(B) is ", a_rows, " x ", b_columns);
  require_valid(gemm.c.rows == gemm.d.rows && gemm.c.columns == gemm.d.columns, "C is ", gemm.c.rows, " x ",
                gemm.c.columns, " but D is ", gemm.d.rows, " x ", gemm.d.columns);
  require_valid(gemm.c.row_major == gemm.d.row_major, "C is ", order_name(gemm.c.row_major), " but D is ",
                order_name(gemm.d.row_major));
  for (const Matrix* matrix : {&gemm.a, &gemm.b, &gemm.c}) {
    require_valid(matrix->batch == gemm.d.batch, matrix->name, ": batch count ", matrix->batch,
                  ", but D has ", gemm.d.batch);
  }
  const std::int64_t one = (gemm.d.lines() - 1) * gemm.d.ld + gemm.d.line_length();
  require_valid(gemm.d.batch == 1 || gemm.d.batch_stride >= one,
                "D: the matrices of the batch overlap, the stride is ", gemm.d.batch_stride,
                " elements, one matrix takes ", one);
}

void require_plain(const MatmulObject& matmul) {
  require_supported(matmul.transpose_c == CUBLAS_OP_N, "op(C) can only be N, the descriptor says ",
                    matmul.transpose_c);
  require_supported(matmul.fill_mode == CUBLAS_FILL_MODE_FULL, "fill mode ", matmul.fill_mode,
                    " is not supported, only FULL");
  require_valid(matmul.pointer_mode >= CUBLASLT_POINTER_MODE_HOST &&
                    matmul.pointer_mode <= CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST,
                "there is no pointer mode ", matmul.pointer_mode);
  require_supported(matmul.pointer_mode <= CUBLASLT_POINTER_MODE_DEVICE, "pointer mode ", matmul.pointer_mode,
                    " (a vector of alphas) is for 8-bit inputs and not emulated");
  require_valid(matmul.alpha_stride == 0, "the alpha vector's batch stride is ", matmul.alpha_stride,
                " but alpha is no vector");
  const bool scales = matmul.a_scale != nullptr || matmul.b_scale != nullptr || matmul.c_scale != nullptr ||
                      matmul.d_scale != nullptr || matmul.d_out_scale != nullptr ||
                      matmul.aux_scale != nullptr;
  require_valid(!scales, "scale pointers are for 8-bit and 4-bit types only");
  require_valid(matmul.d_amax == nullptr && matmul.aux_amax == nullptr,
                "absolute maxima are for 8-bit types only");
  const bool modes = matmul.a_scale_mode != 0 || matmul.b_scale_mode != 0 || matmul.c_scale_mode != 0 ||
                     matmul.d_scale_mode != 0 || matmul.aux_scale_mode != 0 || matmul.d_out_scale_mode != 0;
  require_valid(!modes, "scale modes are for 8-bit and 4-bit types only");
  require_supported(matmul.emulation == nullptr, "emulation of f64 by fixed point is not emulated");
}

bool is_transposed(const char* name, int operation) {
  require_valid(operation >= CUBLAS_OP_N && operation <= CUBLAS_OP_CONJG, name, ": there is no operation ",
                operation);
  require_supported(operation != CUBLAS_OP_CONJG, name, ": the operation CONJG is not supported");
  return operation != CUBLAS_OP_N;  // OP_C is OP_T for real types
}

}  // namespace

InputRounding rounding_of(int compute) {
  switch (compute) {
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      return InputRounding::tf32;
    case CUBLAS_COMPUTE_32F_FAST_16BF:
      return InputRounding::bf16;
    case CUBLAS_COMPUTE_32F_FAST_16F:
      return InputRounding::f16;
    default:
      return InputRounding::none;
  }
}

void require_types(int compute, int scale, int a, int b, int c, int d) {
  const auto fits = [&](const TypeRow& row) {
    return row.takes(compute) && row.scale == type_of(scale) && row.inputs == type_of(a) &&
           row.inputs == type_of(b) && row.output == type_of(c) && row.output == type_of(d);
  };
  require_supported(
      std::any_of(std::begin(kTypeRows), std::end(kTypeRows), fits), "the combination compute type ", compute,
      ", scale type ", scale, ", A ", a, ", B ", b, ", C ", c, ", D ", d,
      " (cublasComputeType_t, cudaDataType) is not in the table of supported types, or not emulated");
}

Matrix matrix_of(const char* name, const LayoutObject& layout) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::int32_t>::max();
  require_valid(layout.rows > 0 && layout.columns > 0, name, ": has ", layout.rows, " rows and ",
                layout.columns, " columns");
  require_supported(layout.rows <= kMost && layout.columns <= kMost, name, ": ", layout.rows, " x ",
                    layout.columns, " is too large, rows and columns must fit in int32");
  require_valid(layout.order >= CUBLASLT_ORDER_COL && layout.order <= CUBLASLT_ORDER_COL32_2R_4R4, name,
                ": there is no order ", layout.order);
  require_supported(layout.order <= CUBLASLT_ORDER_ROW, name, ": order ", layout.order,
                    " is not emulated, only COL and ROW");
  const bool row_major = layout.order == CUBLASLT_ORDER_ROW;
  const auto least = static_cast<std::int64_t>(row_major ? layout.columns : layout.rows);
  require_valid(layout.ld >= least, name, ": leading dimension ", layout.ld, " is less than ",
                row_major ? "columns " : "rows ", least);
  require_valid(layout.batch >= 1, name, ": batch count ", layout.batch);
  require_valid(layout.batch_stride >= 0, name, ": the batch stride ", layout.batch_stride, " is negative");
  require_valid(layout.batch_mode <= CUBLASLT_BATCH_MODE_POINTER_ARRAY, name, ": there is no batch mode ",
                layout.batch_mode);
  require_supported(layout.batch_mode == CUBLASLT_BATCH_MODE_STRIDED, name,
                    ": arrays of pointers are not emulated");
  require_supported(layout.plane_offset == 0, name, ": planar complex matrices are not emulated");
  return {.name = name,
          .type = type_of(static_cast<int>(layout.type)),
          .rows = static_cast<std::int64_t>(layout.rows),
          .columns = static_cast<std::int64_t>(layout.columns),
          .ld = layout.ld,
          .row_major = row_major,
          .batch_stride = layout.batch_stride,
          .batch = layout.batch};
}

LtProblem unpack_problem(cublasLtMatmulDesc_t matmul, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                         cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
  return {unpack<MatmulObject>(matmul), unpack<LayoutObject>(a, "the layout of A"),
          unpack<LayoutObject>(b, "the layout of B"), unpack<LayoutObject>(c, "the layout of C"),
          unpack<LayoutObject>(d, "the layout of D")};
}

Gemm gemm_of(const LtProblem& problem) {
  const MatmulObject& matmul = problem.matmul;
  const auto type = [](const LayoutObject& layout) { return static_cast<int>(layout.type); };
  require_plain(matmul);
  require_types(matmul.compute, matmul.scale_type, type(problem.a), type(problem.b), type(problem.c),
                type(problem.d));
  Gemm gemm;
  gemm.in_f64 = is_64f(matmul.compute);
  gemm.rounding = rounding_of(matmul.compute);
  gemm.transpose_a = is_transposed("op(A)", matmul.transpose_a);
  gemm.transpose_b = is_transposed("op(B)", matmul.transpose_b);
  gemm.a = matrix_of("A", problem.a);
  gemm.b = matrix_of("B", problem.b);
  gemm.c = matrix_of("C", problem.c);
  gemm.d = matrix_of("D", problem.d);
  require_shapes(gemm);
  set_epilogue(matmul, gemm);
  return gemm;
}

}  // namespace emulator::blas
