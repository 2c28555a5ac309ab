#include "train/feature_statistics.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

using namespace dino;

namespace {

/// Reflects the rows (across the columns) at the hyperplane orthogonal to a random vector: singular values stay.
void reflect(std::vector<double>& matrix, size_t rows, size_t cols, std::mt19937& random) {
  std::normal_distribution<double> normal;
  std::vector<double> v(rows);
  for (double& x : v) x = normal(random);
  const double square = std::inner_product(v.begin(), v.end(), v.begin(), 0.0);
  for (size_t col = 0; col < cols; ++col) {
    double product = 0;
    for (size_t row = 0; row < rows; ++row) product += v[row] * matrix[row * cols + col];
    for (size_t row = 0; row < rows; ++row) matrix[row * cols + col] -= 2 * product / square * v[row];
  }
}

std::vector<double> transposed(const std::vector<double>& matrix, size_t rows, size_t cols) {
  std::vector<double> result(matrix.size());
  for (size_t row = 0; row < rows; ++row)
    for (size_t col = 0; col < cols; ++col) result[col * rows + row] = matrix[row * cols + col];
  return result;
}

/// A dense matrix [rows, cols] with these singular values.
std::vector<double> with_singular_values(const std::vector<double>& values, size_t rows, size_t cols) {
  std::mt19937 random(7);
  std::vector<double> matrix(rows * cols, 0.0);
  for (size_t i = 0; i < values.size(); ++i) matrix[i * cols + i] = values[i];
  for (int i = 0; i < 3; ++i) reflect(matrix, rows, cols, random);
  matrix = transposed(matrix, rows, cols);
  for (int i = 0; i < 3; ++i) reflect(matrix, cols, rows, random);
  return transposed(matrix, cols, rows);
}

double rank_by_definition(const std::vector<double>& values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  double entropy = 0;
  for (const double value : values) entropy -= value > 0 ? value / sum * std::log(value / sum) : 0;
  return std::exp(entropy);
}

}  // namespace

TEST_CASE("the effective rank is that of the singular values that a matrix was made of") {
  for (const auto& [rows, cols] : {std::pair<size_t, size_t>{6, 6}, {5, 9}, {40, 7}, {256, 64}, {2, 200}, {128, 192}}) {
    INFO(rows << " × " << cols);
    std::vector<double> values(std::min(rows, cols));
    for (size_t i = 0; i < values.size(); ++i) values[i] = 3 / (1 + 0.5 * static_cast<double>(i));
    const auto statistics = feature_statistics(with_singular_values(values, rows, cols), static_cast<int64_t>(rows));
    CHECK(std::abs(statistics.effective_rank - rank_by_definition(values)) < 1e-9 * static_cast<double>(values.size()));
  }
}

TEST_CASE("equal singular values have full rank, and equal rows have rank 1 and no deviation") {
  const auto full = feature_statistics(with_singular_values({2, 2, 2, 2, 2}, 8, 5), 8);
  CHECK(std::abs(full.effective_rank - 5) < 1e-9);
  const auto one = feature_statistics(std::vector<double>{1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}, 4);
  // A singular value that should be 0 is the root of an eigenvalue with an error of 1e-16.
  CHECK(std::abs(one.effective_rank - 1) < 1e-6);
  CHECK(one.deviation < 1e-7);
}

TEST_CASE("features that point everywhere deviate by one over the root of their dimension, whatever their length") {
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  constexpr size_t kRows = 4000, kDim = 16;
  std::vector<double> features(kRows * kDim);
  for (size_t i = 0; i < features.size(); ++i) features[i] = normal(random) * static_cast<double>(1 + i / kDim);
  // The error of a deviation over n rows is about 1/√(2n).
  CHECK(std::abs(feature_statistics(features, kRows).deviation * std::sqrt(double{kDim}) - 1) < 0.02);
  const auto two = feature_statistics(std::vector<double>{5, 0, 0, 0.1}, 2);  // (1, 0) and (0, 1): deviation 1/√2 in both
  CHECK(std::abs(two.deviation - std::sqrt(0.5)) < 1e-12);
}

TEST_CASE("nothing is known of features that are zero, not finite or too few") {
  const double nan = std::nan(""), infinite = std::numeric_limits<double>::infinity();
  for (const std::vector<double>& features : {std::vector<double>{0, 0, 0, 0}, {1, nan, 2, 3}, {1, infinite, 2, 3}, {}}) {
    const FeatureStatistics statistics = feature_statistics(features, 2);
    CHECK(std::isnan(statistics.deviation));
    CHECK(std::isnan(statistics.effective_rank));
  }
  CHECK(std::isnan(feature_statistics(std::vector<double>{1, 2}, 1).effective_rank));
}
