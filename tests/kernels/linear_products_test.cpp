#include "kernels/linear_products.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/bfloat16.h"

using namespace dino;

namespace {

/// A matrix in bf16 or f32 whose rows lie `padding` elements further apart than they must, filled with numbers in [-1, 1], which bf16
/// holds exactly.
struct Filled {
  int64_t rows, cols, stride;
  Dtype dtype;
  std::vector<std::byte> bytes;

  Filled(int64_t rows, int64_t cols, Dtype dtype, int64_t padding, uint64_t seed)
      : rows(rows), cols(cols), stride(cols + padding), dtype(dtype), bytes(static_cast<size_t>(rows * stride) * bytes_of(dtype), std::byte{0xFF}) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t col = 0; col < cols; ++col) {
        const auto number = static_cast<uint64_t>(row * cols + col) * 2654435761u + seed * 40503u;
        set(row, col, static_cast<float>(static_cast<int64_t>(number / 64 % 255) - 127) / 128);
      }
  }
  View view() { return View(bytes.data(), dtype, Shape{rows, cols}, stride); }
  void set(int64_t row, int64_t col, float value) {
    if (dtype == Dtype::f32) view().row<float>(row)[col] = value;
    else view().row<BFloat16>(row)[col] = BFloat16(value);
  }
  double at(int64_t row, int64_t col) {
    return dtype == Dtype::f32 ? static_cast<double>(view().row<float>(row)[col]) : static_cast<double>(static_cast<float>(view().row<BFloat16>(row)[col]));
  }
  /// Whether the space between the rows is as it was.
  bool padding_intact() {
    for (int64_t row = 0; row < rows; ++row)
      for (size_t byte = static_cast<size_t>(cols) * bytes_of(dtype); byte < static_cast<size_t>(stride) * bytes_of(dtype); ++byte)
        if (bytes[static_cast<size_t>(row * stride) * bytes_of(dtype) + byte] != std::byte{0xFF}) return false;
    return true;
  }
};

/// Rounding of a sum that is `magnitude` large, and of its terms on the way.
double tolerance(double magnitude, Dtype dtype, double terms) {
  return magnitude * (dtype == Dtype::bf16 ? 1.0 / 256 : 0) + std::sqrt(terms) * 0x1p-22 * std::max(1.0, std::sqrt(terms));
}

struct RowCase {
  int64_t rows, k, n;
  bool transposed, bias, add;
  Dtype result;
};

}  // namespace

TEST_CASE("products of many rows in bf16 equal those in f64 for all strides, forms and results") {
  CpuStream stream(2);
  for (const RowCase& c : {RowCase{1030, 32, 48, true, true, false, Dtype::bf16}, RowCase{1030, 96, 16, true, false, true, Dtype::bf16},
                           RowCase{1100, 64, 80, true, true, true, Dtype::f32}, RowCase{1030, 34, 48, false, false, false, Dtype::bf16},
                           RowCase{2500, 160, 32, false, true, true, Dtype::bf16}, RowCase{1024, 2, 112, false, false, false, Dtype::f32},
                           RowCase{1024, 33, 47, false, false, false, Dtype::bf16}}) {
    Filled x(c.rows, c.k, Dtype::bf16, 3, 1), weight(c.transposed ? c.n : c.k, c.transposed ? c.k : c.n, Dtype::bf16, 5, 2), y(c.rows, c.n, c.result, 7, 3);
    Filled bias(1, c.n, Dtype::f32, 0, 4), before = y;
    multiply_rows(stream, x.view(), weight.view(), c.transposed, c.bias ? View(bias.bytes.data(), Dtype::f32, Shape{c.n}) : View(), y.view(), c.add);
    INFO(c.rows << " x " << c.k << " x " << c.n << (c.transposed ? " transposed" : ""));
    CHECK(y.padding_intact());
    int wrong = 0;
    for (int64_t row = 0; row < c.rows; ++row)
      for (int64_t col = 0; col < c.n; ++col) {
        double sum = (c.bias ? bias.at(0, col) : 0) + (c.add ? before.at(row, col) : 0);
        for (int64_t i = 0; i < c.k; ++i) sum += x.at(row, i) * (c.transposed ? weight.at(col, i) : weight.at(i, col));
        // Adding to bf16 may round the product before.
        const double bound = tolerance(std::abs(sum) + (c.add ? 1 : 0), c.result, static_cast<double>(c.k));
        wrong += !(std::abs(y.at(row, col) - sum) <= bound);
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("products of columns in bf16 equal those in f64, and adding adds") {
  CpuStream stream(2);
  struct ColumnCase {
    int64_t rows, m, n;
    bool add;
  };
  for (const ColumnCase& c : {ColumnCase{257, 16, 16, false}, ColumnCase{1031, 208, 48, false}, ColumnCase{2600, 32, 112, true}, ColumnCase{9001, 64, 32, true},
                              ColumnCase{300, 24, 20, false}}) {
    Filled a(c.rows, c.m, Dtype::bf16, 3, 1), b(c.rows, c.n, Dtype::bf16, 5, 2), result(c.m, c.n, Dtype::f32, 7, 3);
    Filled before = result;
    multiply_columns(stream, a.view(), b.view(), result.view(), c.add);
    INFO(c.rows << " x " << c.m << " x " << c.n);
    CHECK(result.padding_intact());
    int wrong = 0;
    for (int64_t i = 0; i < c.m; ++i)
      for (int64_t j = 0; j < c.n; ++j) {
        double sum = c.add ? before.at(i, j) : 0;
        for (int64_t row = 0; row < c.rows; ++row) sum += a.at(row, i) * b.at(row, j);
        wrong += !(std::abs(result.at(i, j) - sum) <= tolerance(std::abs(sum), Dtype::f32, static_cast<double>(c.rows)));
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("products in bf16 have the same bits for any number of threads") {
  const auto bits = [](int threads) {
    CpuStream stream(threads);
    Filled x(1500, 64, Dtype::bf16, 0, 1), weight(96, 64, Dtype::bf16, 0, 2), y(1500, 96, Dtype::bf16, 0, 3), gradient(96, 64, Dtype::f32, 0, 4);
    multiply_rows(stream, x.view(), weight.view(), true, {}, y.view(), false);
    multiply_columns(stream, y.view(), x.view(), gradient.view(), false);
    return std::pair(y.bytes, gradient.bytes);
  };
  const auto once = bits(1);
  CHECK(once == bits(2));
  CHECK(once == bits(3));
}
