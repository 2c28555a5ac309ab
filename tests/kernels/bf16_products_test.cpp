#if defined(__x86_64__)

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/bf16_tiles.h"

using namespace dino;
using bf16_pairs::Pair;
using bf16_pairs::Product;

namespace {

/// Numbers in (-1, 1) that bf16 holds exactly.
float number(int64_t index, int64_t seed) { return static_cast<float>((index * 7919 + seed * 104729) % 255 - 127) / 128; }

Pair pair_of(float first, float second) {
  return static_cast<Pair>(static_cast<uint32_t>(BFloat16(second).bits) << 16 | BFloat16(first).bits);
}

struct Case {
  int64_t rows, cols, inner;
  bool transposed, narrow, add, factors, bias;
};

/// Largest error of the product, in units of what f32 sums and the rounding of the result may cost; infinity if anything beside it changed.
double worst_error(const Case& c) {
  // A holds NaN around what belongs to it: reading that must not matter.
  const int64_t a_stride = c.transposed ? c.rows : c.inner + 3, a_lines = c.transposed ? c.inner : c.rows;
  std::vector<int32_t> a(static_cast<size_t>(a_stride * a_lines) + 64, pair_of(NAN, NAN)), b(static_cast<size_t>(c.inner * c.cols));
  const auto left = [&](int64_t row, int64_t i) { return number(row * 2 * c.inner + i, 1); };
  const auto right = [&](int64_t i, int64_t col) { return number(i * c.cols + col, 2); };
  for (int64_t row = 0; row < c.rows; ++row)
    for (int64_t i = 0; i < c.inner; ++i)
      a[static_cast<size_t>(c.transposed ? i * a_stride + row : row * a_stride + i)] = pair_of(left(row, 2 * i), left(row, 2 * i + 1));
  for (int64_t i = 0; i < c.inner; ++i)
    for (int64_t col = 0; col < c.cols; ++col) b[static_cast<size_t>(i * c.cols + col)] = pair_of(right(2 * i, col), right(2 * i + 1, col));

  const int64_t stride = c.cols + 5;
  std::vector<float> wide(static_cast<size_t>(c.rows * stride), 0.5f), factors, bias;
  std::vector<BFloat16> narrow(wide.size(), BFloat16(0.5f));
  for (int64_t row = 0; row < c.rows; ++row) factors.push_back(number(row, 3));
  for (int64_t col = 0; col < c.cols; ++col) bias.push_back(number(col, 4));
  Product p{.rows = c.rows, .cols = c.cols, .inner = c.inner, .a = reinterpret_cast<const BFloat16*>(a.data()),
            .a_row = c.transposed ? 2 : 2 * a_stride, .a_inner = c.transposed ? 2 * a_stride : 2, .b = b.data(), .b_row = c.cols,
            .c = {.stride = stride, .add = c.add}, .factor = 0.25f};
  if (c.narrow) p.c.narrow = narrow.data();
  else p.c.wide = wide.data();
  if (c.factors) p.factors = factors.data();
  if (c.bias) p.bias = bias.data();
  bf16_tiles::multiply(p);

  double worst = 0;
  for (int64_t row = 0; row < c.rows; ++row)
    for (int64_t col = 0; col < stride; ++col) {
      const auto at = static_cast<size_t>(row * stride + col);
      const double got = c.narrow ? static_cast<double>(static_cast<float>(narrow[at])) : static_cast<double>(wide[at]);
      if (col >= c.cols) {
        if (got != 0.5) return INFINITY;
        continue;
      }
      double sum = 0;
      for (int64_t i = 0; i < 2 * c.inner; ++i) sum += static_cast<double>(left(row, i)) * static_cast<double>(right(i, col));
      sum = sum * static_cast<double>(c.factors ? factors[static_cast<size_t>(row)] : 0.25f) +
            static_cast<double>(c.bias ? bias[static_cast<size_t>(col)] : 0.0f) + (c.add ? 0.5 : 0.0);
      const double allowed = static_cast<double>(c.inner) * 0x1p-22 + (c.narrow ? std::abs(sum) * 0x1p-8 : 0.0) + 0x1p-22;
      const double error = std::abs(got - sum) / allowed;
      if (!(error <= worst)) worst = error;
    }
  return worst;
}

}  // namespace

TEST_CASE("products in bf16 of every shape, form and target equal those in f64") {
  if (!bf16_pairs::supported()) {
    CHECK_FALSE(bf16_tiles::supported());
    WARN("this processor has no AVX512_BF16: its products were not tried");
    return;
  }
  for (const int64_t rows : {1, 7, 8, 15, 16, 17, 21, 22, 31, 33, 54})
    for (const int64_t cols : {16, 32, 80})
      for (const int64_t inner : {1, 8, 16, 17, 40, 150})
        for (int form = 0; form < 32; ++form) {
          const Case c{rows, cols, inner, (form & 1) != 0, (form & 2) != 0, (form & 4) != 0, (form & 8) != 0, (form & 16) != 0};
          INFO(rows << " x " << 2 * inner << " x " << cols << (c.transposed ? " transposed" : "") << (c.narrow ? " to bf16" : "") << (c.add ? " added" : "")
                    << (c.factors ? " with factors" : "") << (c.bias ? " with bias" : ""));
          REQUIRE(worst_error(c) <= 1);
        }
}

#endif
