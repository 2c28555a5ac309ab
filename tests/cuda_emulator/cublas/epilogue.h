#pragma once

#include <cstdint>
#include <vector>

#include "cublas/gemm.h"
#include "cublas/matmul.h"

namespace emulator::blas {

/// What is done to the sums of one product of the batch. Addresses are those of the host.
struct Epilogue {
  const Gemm& gemm;
  double alpha = 1, beta = 0;
  const void* c = nullptr;  // null: beta is 0, C is not read
  void* d = nullptr;
  void* aux = nullptr;
  std::uint8_t* mask = nullptr;
  void* bias = nullptr;
  std::vector<double> row_sums = {};  // [m], of D before it is rounded (BiasUse::gradient_of_d)
};

/// Turns the sums of a tile into elements of D and of what else the epilogue writes. In f32, or f64 if the
/// product is.
void apply(Epilogue& epilogue, const Tile& tile);

/// GELU in the form 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel, 2016) and its
/// derivative.
double gelu(double x);
double gelu_derivative(double x);

}  // namespace emulator::blas
