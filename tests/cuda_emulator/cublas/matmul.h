#pragma once

#include <cstdint>
#include <functional>

#include "cublas/element.h"

namespace emulator::blas {

/// A matrix operand: element (i, l) lies `i * outer_stride + l * inner_stride` elements behind `data`, l runs
/// along the sum.
struct Operand {
  const void* data = nullptr;
  Type type = Type::f32;
  std::int64_t outer_stride = 0, inner_stride = 0;
};

/// The product a[m, k] · b[n, k]ᵀ (both operands with the summed index last, so that transposes and orders
/// are only strides).
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  Operand a, b;
  bool in_f64 = false;
  InputRounding rounding = InputRounding::none;  // f32 arithmetic only
};

/// Sums of rows [row, row + rows) x columns [column, column + columns): sums[(j - column) * stride + (i -
/// row)].
struct Tile {
  std::int64_t row, rows, column, columns;
  const double* sums;
  std::int64_t stride;
};

/// Computes the product and hands it over in tiles, column panels from left to right; each element exactly
/// once. Sums: f32 fused multiply-adds in order within blocks of 64 along k, the blocks added in f64 (so the
/// error is that of a 64-term f32 sum); all f64 when `in_f64`. `noise_seed` != 0 imitates other accumulation
/// orders: blocks of 8 to 64 terms in a seeded order, added in f32 (f64 when `in_f64`). Single-threaded.
void multiply(const Product& product, unsigned noise_seed, const std::function<void(const Tile&)>& take);

/// The unsigned value of CUDA_EMULATOR_NOISE; 0 if absent.
unsigned noise_seed();

}  // namespace emulator::blas
