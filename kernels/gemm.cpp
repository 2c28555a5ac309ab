#include "kernels/gemm.h"

#include <dnnl.h>

#include <algorithm>
#include <cstring>

#include "kernels/rows.h"

namespace dino {
namespace {

/// Rows of A (or columns of B) in one piece of work. oneDNN reaches its rate from about this size on, and a few dozen
/// pieces of a usual layer keep all threads busy until the end.
constexpr int64_t kPieceRows = 384;
constexpr int64_t kPieceCols = 1024;
/// Rows that one partial sum of a weight gradient covers.
constexpr int64_t kPieceDepth = 1024;
constexpr int64_t kMaxPartials = 16;

/// Pieces of [0, n) of equal size near `size`, rounded up to full vectors.
int64_t piece_size(int64_t n, int64_t size) {
  const int64_t pieces = std::max<int64_t>(1, (n + size - 1) / size);
  return (((n + pieces - 1) / pieces) + 15) / 16 * 16;
}

template <class T>
Matrix<T> rows_from(Matrix<T> x, int64_t row) {
  return {x.data + (x.transposed ? row : row * x.stride), x.stride, x.transposed};
}

template <class T>
Matrix<T> cols_from(Matrix<T> x, int64_t col) {
  return {x.data + (x.transposed ? col * x.stride : col), x.stride, x.transposed};
}

/// Long sums (weight gradients): pieces of the depth go to partial results, which are then added in order.
template <class T>
void gemm_by_depth(CpuStream& stream, int64_t m, int64_t n, int64_t k, T alpha, Matrix<const T> a, Matrix<const T> b,
                   T beta, Matrix<T> c) {
  const int64_t pieces = std::min(kMaxPartials, (k + kPieceDepth - 1) / kPieceDepth);
  const int64_t depth = (k + pieces - 1) / pieces;
  T* partial = reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(pieces * m * n) * sizeof(T)));
  stream.pool().parallel(pieces, [&](int64_t piece, int) {
    const int64_t begin = piece * depth, end = std::min(k, begin + depth);
    gemm_serial(m, n, end - begin, alpha, cols_from(a, begin), rows_from(b, begin), T{0},
                Matrix<T>{partial + piece * m * n, n});
  });
  stream.pool().for_ranges(m, std::max<int64_t>(1, 16384 / n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      T* out = c.data + row * c.stride;
      rows::axpy(T{1}, partial + row * n, out, n, beta != T{0});
      for (int64_t piece = 1; piece < pieces; ++piece) rows::axpy(T{1}, partial + (piece * m + row) * n, out, n, true);
    }
  });
}

}  // namespace

void gemm_serial(int64_t m, int64_t n, int64_t k, float alpha, Matrix<const float> a, Matrix<const float> b, float beta,
                 Matrix<float> c) {
  const dnnl_status_t status =
      dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, alpha, a.data, std::max<int64_t>(1, a.stride),
                 b.data, std::max<int64_t>(1, b.stride), beta, c.data, c.stride);
  check(status == dnnl_success, "gemm: oneDNN failed with status ", static_cast<int>(status), " for m ", m, ", n ", n, ", k ", k);
}

void gemm_serial(int64_t m, int64_t n, int64_t k, double alpha, Matrix<const double> a, Matrix<const double> b,
                 double beta, Matrix<double> c) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const double* row = a.data + (a.transposed ? i : i * a.stride);
      const double* col = b.data + (b.transposed ? j * b.stride : j);
      const int64_t row_step = a.transposed ? a.stride : 1, col_step = b.transposed ? 1 : b.stride;
      double sum = 0;
      for (int64_t x = 0; x < k; ++x) sum += row[x * row_step] * col[x * col_step];
      double& target = c.data[i * c.stride + j];
      target = alpha * sum + (beta == 0 ? 0 : beta * target);
    }
  }
}

template <class T>
void gemm(CpuStream& stream, int64_t m, int64_t n, int64_t k, T alpha, Matrix<const T> a, Matrix<const T> b, T beta,
          Matrix<T> c) {
  if (m == 0 || n == 0) return;
  if (k > 2 * kPieceDepth && k > std::max(m, n) && (beta == T{0} || beta == T{1}))
    return gemm_by_depth(stream, m, n, k, alpha, a, b, beta, c);
  const bool by_rows = 2 * m >= n;
  const int64_t extent = by_rows ? m : n;
  const int64_t piece = piece_size(extent, by_rows ? kPieceRows : kPieceCols);
  stream.pool().for_ranges(extent, piece, [&](int64_t begin, int64_t end) {
    if (by_rows)
      gemm_serial(end - begin, n, k, alpha, rows_from(a, begin), b, beta, rows_from(c, begin));
    else
      gemm_serial(m, end - begin, k, alpha, a, cols_from(b, begin), beta, cols_from(c, begin));
  });
}

namespace {

/// sums += row `row` of x.
template <class T>
void add_row(const View& x, int64_t row, T* sums) {
  if (x.dtype != Dtype::bf16) return rows::axpy(T{1}, x.row<T>(row), sums, x.cols(), true);
  if constexpr (std::is_same_v<T, float>) {
    constexpr int64_t kStrip = 512;
    float wide[kStrip];
    for (int64_t begin = 0; begin < x.cols(); begin += kStrip) {
      const int64_t count = std::min(kStrip, x.cols() - begin);
      rows::convert(x.row<BFloat16>(row) + begin, wide, count);
      rows::axpy(1.0f, wide, sums + begin, count, true);
    }
  }
}

}  // namespace

template <class T>
void column_sums(CpuStream& stream, const View& x, T* target, GradMode mode) {
  const int64_t rows = x.rows(), cols = x.cols();
  const int64_t pieces = std::clamp<int64_t>(rows / 256, 1, 32), size = (rows + pieces - 1) / pieces;
  T* partial = reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(pieces * cols) * sizeof(T)));
  stream.pool().parallel(pieces, [&](int64_t piece, int) {
    T* sums = partial + piece * cols;
    std::fill(sums, sums + cols, T{0});
    for (int64_t row = piece * size; row < std::min(rows, (piece + 1) * size); ++row) add_row(x, row, sums);
  });
  for (int64_t piece = 0; piece < pieces; ++piece)
    rows::axpy(T{1}, partial + piece * cols, target, cols, piece > 0 || mode == GradMode::add);
}

void column_sums(CpuStream& stream, const View& x, const View& target, GradMode mode) {
  with_float(wide(x.dtype), [&](auto zero) { column_sums(stream, x, target.as<decltype(zero)>(), mode); });
}

template void gemm(CpuStream&, int64_t, int64_t, int64_t, float, Matrix<const float>, Matrix<const float>, float,
                   Matrix<float>);
template void gemm(CpuStream&, int64_t, int64_t, int64_t, double, Matrix<const double>, Matrix<const double>, double,
                   Matrix<double>);
template void column_sums(CpuStream&, const View&, float*, GradMode);
template void column_sums(CpuStream&, const View&, double*, GradMode);

}  // namespace dino
