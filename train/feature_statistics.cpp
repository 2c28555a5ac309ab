#include "train/feature_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/error.h"

namespace dino {
namespace {

double dot(const double* x, const double* y, size_t n) { return std::inner_product(x, x + n, y, 0.0); }

/// y += factor · x.
void add_scaled(double factor, const double* x, double* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

struct Tridiagonal {
  std::vector<double> diagonal, beside;  // beside[i] couples i and i + 1; the last is 0
};

/// The tridiagonal matrix with the eigenvalues of the symmetric matrix `a` [n, n]: Householder's reduction (Golub and Van
/// Loan, 2013, algorithm 8.3.1).
Tridiagonal tridiagonal(std::vector<double> a, size_t n) {
  Tridiagonal t{std::vector<double>(n), std::vector<double>(n)};
  std::vector<double> v(n), p(n);
  for (size_t k = 0; k < n; ++k) {
    t.diagonal[k] = a[k * n + k];
    const size_t first = k + 1, rest = n - first;
    if (rest == 0) break;
    // The reflection that sends row k beyond the diagonal to (length, 0, …, 0).
    std::copy_n(&a[k * n + first], rest, v.begin());
    const double length = -std::copysign(std::sqrt(dot(v.data(), v.data(), rest)), v[0]);
    t.beside[k] = length;
    v[0] -= length;
    const double square = dot(v.data(), v.data(), rest);
    if (square == 0) continue;
    std::fill_n(p.begin(), rest, 0.0);
    for (size_t i = 0; i < rest; ++i) add_scaled(2 / square * v[i], &a[(first + i) * n + first], p.data(), rest);
    add_scaled(-dot(p.data(), v.data(), rest) / square, v.data(), p.data(), rest);
    for (size_t i = 0; i < rest; ++i) {
      double* row = &a[(first + i) * n + first];
      add_scaled(-v[i], p.data(), row, rest);
      add_scaled(-p[i], v.data(), row, rest);
    }
  }
  return t;
}

/// One step of QR with Wilkinson's shift on rows [begin, end] of `t` (Golub and Van Loan, 2013, algorithm 8.3.2).
void shifted_step(Tridiagonal& t, size_t begin, size_t end) {
  auto& [d, e] = t;
  const double half = (d[end - 1] - d[end]) / 2, corner = e[end - 1];
  const double shift = d[end] - corner * corner / (half + std::copysign(std::hypot(half, corner), half));
  double x = d[begin] - shift, z = e[begin];
  for (size_t k = begin; k < end; ++k) {
    const double length = std::hypot(x, z), c = length == 0 ? 1 : x / length, s = length == 0 ? 0 : z / length;
    if (k > begin) e[k - 1] = length;
    const double upper = d[k], lower = d[k + 1], between = e[k];
    d[k] = c * c * upper + 2 * c * s * between + s * s * lower;
    d[k + 1] = s * s * upper - 2 * c * s * between + c * c * lower;
    e[k] = c * s * (lower - upper) + (c * c - s * s) * between;
    x = e[k];
    if (k + 1 < end) {
      z = s * e[k + 1];
      e[k + 1] *= c;
    }
  }
}

/// Eigenvalues of a symmetric positive semidefinite matrix [n, n].
std::vector<double> eigenvalues(std::vector<double> matrix, size_t n) {
  Tridiagonal t = tridiagonal(std::move(matrix), n);
  auto& [d, e] = t;
  const double scale = *std::max_element(d.begin(), d.end());
  const auto coupled = [scale, &beside = e](size_t i) { return std::abs(beside[i]) > std::numeric_limits<double>::epsilon() * scale; };
  // Two or three steps split off an eigenvalue; the bound is for safety.
  for (size_t end = n - 1, steps = 0; end > 0 && steps < 50 * n; ++steps) {
    if (!coupled(end - 1)) {
      --end;
      continue;
    }
    size_t begin = end - 1;
    while (begin > 0 && coupled(begin - 1)) --begin;
    shifted_step(t, begin, end);
  }
  return d;
}

/// The products of all pairs of rows, or of all pairs of columns if these are fewer; the eigenvalues are the same.
std::vector<double> smaller_gram(std::span<const double> matrix, size_t rows, size_t cols) {
  const size_t n = std::min(rows, cols);
  std::vector<double> gram(n * n, 0.0), transposed;
  if (cols <= rows) {
    for (size_t row = 0; row < rows; ++row)
      for (size_t i = 0; i < cols; ++i) add_scaled(matrix[row * cols + i], &matrix[row * cols], &gram[i * cols], cols);
    return gram;
  }
  transposed.resize(matrix.size());
  for (size_t row = 0; row < rows; ++row)
    for (size_t col = 0; col < cols; ++col) transposed[col * rows + row] = matrix[row * cols + col];
  return smaller_gram(transposed, cols, rows);
}

double effective_rank(std::span<const double> features, size_t rows, size_t dim) {
  std::vector<double> singular = eigenvalues(smaller_gram(features, rows, dim), std::min(rows, dim));
  for (double& value : singular) value = std::sqrt(std::max(value, 0.0));
  const double sum = std::accumulate(singular.begin(), singular.end(), 0.0);
  double entropy = 0;
  for (const double value : singular)
    if (value > 0) entropy -= value / sum * std::log(value / sum);
  return std::exp(entropy);
}

double deviation(std::span<const double> features, size_t rows, size_t dim) {
  std::vector<double> sum(dim), squares(dim);
  for (size_t row = 0; row < rows; ++row) {
    const double* x = &features[row * dim];
    const double length = std::max(std::sqrt(dot(x, x, dim)), std::numeric_limits<double>::min());
    for (size_t i = 0; i < dim; ++i) {
      sum[i] += x[i] / length;
      squares[i] += x[i] / length * (x[i] / length);
    }
  }
  double total = 0;
  const auto count = static_cast<double>(rows);
  for (size_t i = 0; i < dim; ++i) total += std::sqrt(std::max(squares[i] - sum[i] * sum[i] / count, 0.0) / (count - 1));
  return total / static_cast<double>(dim);
}

}  // namespace

FeatureStatistics feature_statistics(std::span<const double> features, int64_t rows) {
  if (rows < 2 || features.empty()) return {};
  check(features.size() % static_cast<size_t>(rows) == 0, "features: the rows must be equally long");
  const bool finite = std::all_of(features.begin(), features.end(), [](double x) { return std::isfinite(x); });
  const bool zero = std::all_of(features.begin(), features.end(), [](double x) { return x == 0; });
  if (!finite || zero) return {};
  const auto height = static_cast<size_t>(rows), dim = features.size() / height;
  return {deviation(features, height, dim), effective_rank(features, height, dim)};
}

}  // namespace dino
