#pragma once

#include <cstdint>

#include "cublas/matmul.h"
#include "cublas/memory.h"

namespace emulator::blas {

enum class Activation : std::uint8_t { none, relu, gelu, relu_gradient, gelu_gradient };
enum class BiasUse : std::uint8_t { none, add, gradient_of_d, gradient_of_a, gradient_of_b };

/// D = activation(alpha op(A) op(B) + beta C + bias) for every matrix of the batch, with what cuBLASLt's
/// epilogues read and write on the way.
struct Gemm {
  const char* call = "";  // for reports
  bool in_f64 = false;    // sums and epilogue; else f32
  InputRounding rounding = InputRounding::none;
  bool transpose_a = false, transpose_b = false;
  Matrix a, b, c, d;
  Scalar alpha, beta;
  Activation activation = Activation::none;
  bool writes_aux = false;  // GELU: its input; ReLU: whether its input is > 0
  Matrix aux;               // GELU: [m, n]
  void* mask = nullptr;     // ReLU: element (i, j) is bit (i + j * ld) % 8 of byte (i + j * ld) / 8
  std::int64_t mask_ld_bits = 0, mask_stride_bits = 0;
  BiasUse bias_use = BiasUse::none;
  Matrix bias;  // [m] (gradient_of_b: [n]), in D's type
  void* workspace = nullptr;
  std::int64_t workspace_bytes = 0;

  std::int64_t m() const { return d.rows; }
  std::int64_t n() const { return d.columns; }
  std::int64_t k() const { return transpose_a ? a.rows : a.columns; }
  std::int64_t mask_bytes() const { return ((d.batch - 1) * mask_stride_bits + n() * mask_ld_bits) / 8; }
  bool reads_c() const { return !beta.is_zero_at_call(); }
};

/// Throws Rejected unless all that the call reads and writes lies in live memory and no output overlaps an
/// input (C may be D).
void require_memory(const Gemm& gemm);

/// Does the work now: checks that inputs were written, computes, marks outputs. Reports instead of throwing.
void run(const Gemm& gemm);

}  // namespace emulator::blas
