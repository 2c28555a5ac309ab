#include <algorithm>
#include <cmath>

#include "cublas/blas_vector.h"
#include "cublas/report.h"

namespace emulator::blas {
namespace {

Matrix matrix_argument(const char* name, const void* address, Type type, std::int64_t rows,
                       std::int64_t columns, std::int64_t ld) {
  require_valid(rows >= 0 && columns >= 0, name, ": ", rows, " x ", columns, ", sizes may not be negative");
  require_valid(ld >= std::max<std::int64_t>(1, rows), name, ": leading dimension ", ld,
                " is less than rows ", rows);
  const Matrix matrix{.name = name,
                      .address = const_cast<void*>(address),
                      .type = type,
                      .rows = rows,
                      .columns = columns,
                      .ld = ld};
  require_memory(matrix);
  return matrix;
}

/// A matrix of f64, column by column without gaps.
struct Values {
  std::int64_t rows, columns;
  std::vector<double> elements;

  double at(bool transposed, std::int64_t i, std::int64_t j) const {
    return elements[static_cast<std::size_t>(transposed ? j + i * rows : i + j * rows)];
  }
};

Values read(const char* call, const Matrix& matrix) {
  Values values{matrix.rows, matrix.columns,
                std::vector<double>(static_cast<std::size_t>(matrix.rows * matrix.columns))};
  const void* from = values.elements.empty() ? nullptr : backing(call, matrix);
  if (from == nullptr) return values;
  check_initialized(call, matrix);
  for (std::int64_t j = 0; j < matrix.columns; ++j) {
    const auto* column =
        static_cast<const char*>(from) + j * matrix.ld * static_cast<std::int64_t>(bytes_of(matrix.type));
    load(matrix.type, column, 1, matrix.rows, values.elements.data() + j * matrix.rows);
  }
  return values;
}

void write(const char* call, const Matrix& matrix, const Values& values) {
  void* to = values.elements.empty() ? nullptr : backing(call, matrix);
  if (to == nullptr) return;
  for (std::int64_t j = 0; j < matrix.columns; ++j) {
    auto* column = static_cast<char*>(to) + j * matrix.ld * static_cast<std::int64_t>(bytes_of(matrix.type));
    store(matrix.type, column, 1, matrix.rows, values.elements.data() + j * matrix.rows);
  }
  mark_written(matrix);
}

/// y = alpha op(A) x + beta y
cublasStatus_t gemv(const char* call, cublasHandle_t handle, cublasOperation_t operation, Type type,
                    std::int64_t m, std::int64_t n, const void* alpha, const void* a, std::int64_t lda,
                    const void* x, std::int64_t x_increment, const void* beta, void* y,
                    std::int64_t y_increment) {
  return guarded(call, [&] {
    require_handle(handle);
    const bool transposed = is_transposed("op(A)", operation);
    const Scalar scale = scalar_argument(handle, "alpha", alpha, type),
                 keep = scalar_argument(handle, "beta", beta, type);
    if (m == 0 || n == 0) return;
    const Matrix matrix = matrix_argument("A", a, type, m, n, lda);
    const Vector from = vector_argument("x", x, type, transposed ? m : n, x_increment);
    const Vector to = vector_argument("y", y, type, transposed ? n : m, y_increment);
    require_disjoint(to.place, matrix);
    require_disjoint(to.place, from.place);
    queue(handle->stream, call, [=] {
      const double factor = scale.read(call), kept = keep.read(call);
      const Values values = read(call, matrix);
      const std::vector<double> input = read(call, from);
      std::vector<double> output(static_cast<std::size_t>(to.place.rows));
      if (kept != 0) output = read(call, to);
      for (std::size_t i = 0; i < output.size(); ++i) {
        double sum = 0;
        for (std::size_t j = 0; j < input.size(); ++j) {
          sum += values.at(transposed, static_cast<std::int64_t>(i), static_cast<std::int64_t>(j)) * input[j];
        }
        output[i] = factor * sum + (kept == 0 ? 0 : kept * output[i]);
      }
      write(call, to, output);
    });
  });
}

/// A += alpha x yᵀ
cublasStatus_t ger(const char* call, cublasHandle_t handle, Type type, std::int64_t m, std::int64_t n,
                   const void* alpha, const void* x, std::int64_t x_increment, const void* y,
                   std::int64_t y_increment, void* a, std::int64_t lda) {
  return guarded(call, [&] {
    require_handle(handle);
    const Scalar scale = scalar_argument(handle, "alpha", alpha, type);
    if (m == 0 || n == 0) return;
    const Matrix matrix = matrix_argument("A", a, type, m, n, lda);
    const Vector left = vector_argument("x", x, type, m, x_increment),
                 right = vector_argument("y", y, type, n, y_increment);
    require_disjoint(matrix, left.place);
    require_disjoint(matrix, right.place);
    queue(handle->stream, call, [=] {
      const double factor = scale.read(call);
      const std::vector<double> rows = read(call, left), columns = read(call, right);
      Values values = read(call, matrix);
      for (std::size_t j = 0; j < columns.size(); ++j) {
        for (std::size_t i = 0; i < rows.size(); ++i)
          values.elements[i + j * rows.size()] += factor * rows[i] * columns[j];
      }
      write(call, matrix, values);
    });
  });
}

struct Summand {
  Scalar factor;
  Matrix matrix;
  bool transposed;

  bool is_read() const { return !factor.is_zero_at_call(); }
};

/// One summand of geam; it may be the result itself where it is not transposed.
Summand summand(cublasHandle_t handle, const char* factor_name, const void* factor, const char* name,
                const void* address, cublasOperation_t operation, std::int64_t ld, const Matrix& c) {
  Summand summand{scalar_argument(handle, factor_name, factor, c.type), {}, is_transposed(name, operation)};
  if (!summand.is_read()) return summand;
  summand.matrix = matrix_argument(name, address, c.type, summand.transposed ? c.columns : c.rows,
                                   summand.transposed ? c.rows : c.columns, ld);
  if (address != c.address || summand.transposed || ld != c.ld) require_disjoint(c, summand.matrix);
  return summand;
}

void add(const char* call, const Summand& summand, Values& sum) {
  const double factor = summand.factor.read(call);
  if (factor == 0) return;
  const Values values = read(call, summand.matrix);
  for (std::int64_t j = 0; j < sum.columns; ++j) {
    for (std::int64_t i = 0; i < sum.rows; ++i) {
      sum.elements[static_cast<std::size_t>(i + j * sum.rows)] +=
          factor * values.at(summand.transposed, i, j);
    }
  }
}

/// C = alpha op(A) + beta op(B)
cublasStatus_t geam(const char* call, cublasHandle_t handle, cublasOperation_t transpose_a,
                    cublasOperation_t transpose_b, Type type, std::int64_t m, std::int64_t n,
                    const void* alpha, const void* a, std::int64_t lda, const void* beta, const void* b,
                    std::int64_t ldb, void* c, std::int64_t ldc) {
  return guarded(call, [&] {
    require_handle(handle);
    const Matrix to = matrix_argument("C", c, type, m, n, ldc);
    if (m == 0 || n == 0) return;
    const Summand first = summand(handle, "alpha", alpha, "A", a, transpose_a, lda, to);
    const Summand second = summand(handle, "beta", beta, "B", b, transpose_b, ldb, to);
    queue(handle->stream, call, [=] {
      Values sum{to.rows, to.columns, std::vector<double>(static_cast<std::size_t>(to.rows * to.columns))};
      add(call, first, sum);
      add(call, second, sum);
      write(call, to, sum);
    });
  });
}

}  // namespace
}  // namespace emulator::blas

using namespace emulator::blas;

#define LEVEL_2(L, Suffix, Real, type, Int)                                                                  \
  cublasStatus_t cublas##L##gemv_v2##Suffix(cublasHandle_t handle, cublasOperation_t operation, Int m,       \
                                            Int n, const Real* alpha, const Real* a, Int lda, const Real* x, \
                                            Int x_increment, const Real* beta, Real* y, Int y_increment) {   \
    return gemv(__func__, handle, operation, type, m, n, alpha, a, lda, x, x_increment, beta, y,             \
                y_increment);                                                                                \
  }                                                                                                          \
  cublasStatus_t cublas##L##ger_v2##Suffix(cublasHandle_t handle, Int m, Int n, const Real* alpha,           \
                                           const Real* x, Int x_increment, const Real* y, Int y_increment,   \
                                           Real* a, Int lda) {                                               \
    return ger(__func__, handle, type, m, n, alpha, x, x_increment, y, y_increment, a, lda);                 \
  }                                                                                                          \
  cublasStatus_t cublas##L##geam##Suffix(cublasHandle_t handle, cublasOperation_t transpose_a,               \
                                         cublasOperation_t transpose_b, Int m, Int n, const Real* alpha,     \
                                         const Real* a, Int lda, const Real* beta, const Real* b, Int ldb,   \
                                         Real* c, Int ldc) {                                                 \
    return geam(__func__, handle, transpose_a, transpose_b, type, m, n, alpha, a, lda, beta, b, ldb, c,      \
                ldc);                                                                                        \
  }

extern "C" {

LEVEL_2(S, , float, Type::f32, int)
LEVEL_2(S, _64, float, Type::f32, std::int64_t)
LEVEL_2(D, , double, Type::f64, int)
LEVEL_2(D, _64, double, Type::f64, std::int64_t)

}  // extern "C"
