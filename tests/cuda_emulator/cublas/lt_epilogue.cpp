#include "cublas/lt_epilogue.h"

#include <algorithm>

#include "cublas/report.h"

namespace emulator::blas {
namespace {

struct EpilogueRow {
  unsigned value;
  Activation activation;
  bool writes_aux;
  BiasUse bias;
};

constexpr EpilogueRow kRows[] = {
    {CUBLASLT_EPILOGUE_DEFAULT, Activation::none, false, BiasUse::none},
    {CUBLASLT_EPILOGUE_RELU, Activation::relu, false, BiasUse::none},
    {CUBLASLT_EPILOGUE_RELU_AUX, Activation::relu, true, BiasUse::none},
    {CUBLASLT_EPILOGUE_BIAS, Activation::none, false, BiasUse::add},
    {CUBLASLT_EPILOGUE_RELU_BIAS, Activation::relu, false, BiasUse::add},
    {CUBLASLT_EPILOGUE_RELU_AUX_BIAS, Activation::relu, true, BiasUse::add},
    {CUBLASLT_EPILOGUE_DRELU, Activation::relu_gradient, false, BiasUse::none},
    {CUBLASLT_EPILOGUE_DRELU_BGRAD, Activation::relu_gradient, false, BiasUse::gradient_of_d},
    {CUBLASLT_EPILOGUE_GELU, Activation::gelu, false, BiasUse::none},
    {CUBLASLT_EPILOGUE_GELU_AUX, Activation::gelu, true, BiasUse::none},
    {CUBLASLT_EPILOGUE_GELU_BIAS, Activation::gelu, false, BiasUse::add},
    {CUBLASLT_EPILOGUE_GELU_AUX_BIAS, Activation::gelu, true, BiasUse::add},
    {CUBLASLT_EPILOGUE_DGELU, Activation::gelu_gradient, false, BiasUse::none},
    {CUBLASLT_EPILOGUE_DGELU_BGRAD, Activation::gelu_gradient, false, BiasUse::gradient_of_d},
    {CUBLASLT_EPILOGUE_BGRADA, Activation::none, false, BiasUse::gradient_of_a},
    {CUBLASLT_EPILOGUE_BGRADB, Activation::none, false, BiasUse::gradient_of_b},
};

const EpilogueRow& row_of(unsigned epilogue) {
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const EpilogueRow& r) { return r.value == epilogue; });
  require_valid(row != std::end(kRows), "there is no epilogue ", epilogue);
  return *row;
}

bool is_gradient(const EpilogueRow& row) {
  return row.activation == Activation::relu_gradient || row.activation == Activation::gelu_gradient;
}

/// The auxiliary matrix: GELU's input, or the bits of ReLU.
void set_aux(const MatmulObject& matmul, bool is_mask, Gemm& gemm) {
  const std::int64_t multiple = is_mask ? 128 : 8;
  require_valid(matmul.aux_ld >= gemm.m(), "the auxiliary leading dimension ", matmul.aux_ld,
                " is less than D's rows ", gemm.m());
  require_valid(matmul.aux_ld % multiple == 0, "the auxiliary leading dimension ", matmul.aux_ld,
                " is not a multiple of ", multiple, is_mask ? " (bits of the ReLU mask)" : " (GELU)");
  require_valid(matmul.aux_stride >= 0 && matmul.aux_stride % multiple == 0, "the auxiliary batch stride ",
                matmul.aux_stride, " is not a multiple of ", multiple);
  const std::int64_t one = gemm.n() * matmul.aux_ld;
  require_valid(gemm.d.batch == 1 || matmul.aux_stride >= one, "the auxiliary batch stride ",
                matmul.aux_stride, " is less than one auxiliary matrix, ", one);
  require_supported(!gemm.d.row_major, "epilogues with an auxiliary matrix need a column-major D");
  if (is_mask) {
    require_valid(matmul.aux_type == -1, "the ReLU mask has no data type, the descriptor sets ",
                  matmul.aux_type);
    gemm.mask = matmul.aux;
    gemm.mask_ld_bits = matmul.aux_ld;
    gemm.mask_stride_bits = matmul.aux_stride;
    return;
  }
  require_valid(matmul.aux_type == -1 || type_of(matmul.aux_type) == gemm.d.type, "the auxiliary type ",
                matmul.aux_type, " (cudaDataType) is not D's type ", name_of(gemm.d.type));
  gemm.aux = {.name = "the auxiliary matrix",
              .address = matmul.aux,
              .type = gemm.d.type,
              .rows = gemm.m(),
              .columns = gemm.n(),
              .ld = matmul.aux_ld,
              .batch_stride = matmul.aux_stride,
              .batch = gemm.d.batch};
}

void set_bias(const MatmulObject& matmul, Gemm& gemm) {
  require_valid(matmul.bias_type == -1 || type_of(matmul.bias_type) == gemm.d.type, "the bias type ",
                matmul.bias_type, " (cudaDataType) is not D's type ", name_of(gemm.d.type));
  const std::int64_t length = gemm.bias_use == BiasUse::gradient_of_b ? gemm.n() : gemm.m();
  const bool written = gemm.bias_use != BiasUse::add;
  require_valid(matmul.bias_stride >= 0, "the bias batch stride ", matmul.bias_stride, " is negative");
  require_valid(!written || gemm.d.batch == 1 || matmul.bias_stride >= length,
                "the bias gradients of the batch overlap: the stride is ", matmul.bias_stride,
                " elements, one gradient takes ", length);
  gemm.bias = {.name = written ? "the bias gradient" : "the bias",
               .address = matmul.bias,
               .type = gemm.d.type,
               .rows = length,
               .columns = 1,
               .ld = length,
               .batch_stride = matmul.bias_stride,
               .batch = gemm.d.batch};
}

}  // namespace

void set_epilogue(const MatmulObject& matmul, Gemm& gemm) {
  const EpilogueRow& row = row_of(matmul.epilogue);
  gemm.activation = row.activation;
  gemm.writes_aux = row.writes_aux;
  gemm.bias_use = row.bias;
  const bool uses_aux = row.writes_aux || is_gradient(row);
  const bool for_32f = !gemm.in_f64 && matmul.scale_type == CUDA_R_32F;
  const bool gradient_of_input = row.bias == BiasUse::gradient_of_a || row.bias == BiasUse::gradient_of_b;
  require_supported(for_32f || (!uses_aux && !gradient_of_input), "epilogue ", row.value,
                    " needs a compute type of 32 bits, the descriptor has ", matmul.compute);
  require_supported(!gradient_of_input || !gemm.d.row_major, "epilogue ", row.value,
                    " needs a column-major D");
  if (uses_aux)
    set_aux(matmul, row.activation == Activation::relu || row.activation == Activation::relu_gradient, gemm);
  if (row.bias != BiasUse::none) set_bias(matmul, gemm);
}

void require_epilogue_pointers(const Gemm& gemm, const MatmulObject& matmul) {
  const bool uses_aux = gemm.writes_aux || gemm.activation == Activation::relu_gradient ||
                        gemm.activation == Activation::gelu_gradient;
  require_valid(!uses_aux || matmul.aux != nullptr, "epilogue ", matmul.epilogue,
                " needs an auxiliary pointer, it is null");
  require_valid(!uses_aux || reinterpret_cast<std::uintptr_t>(matmul.aux) % 16 == 0, "the auxiliary pointer ",
                matmul.aux, " is not a multiple of 16 bytes");
  require_valid(gemm.bias_use == BiasUse::none || matmul.bias != nullptr, "epilogue ", matmul.epilogue,
                " needs a bias pointer, it is null");
}

}  // namespace emulator::blas
