#pragma once

#include <algorithm>

#include "kernels/gemm.h"
#include "kernels/op.h"
#include "kernels/rows.h"

/// How the products of linear layers are cut into pieces for threads: by the shapes only, so that the results do not depend on
/// the number of threads.
namespace dino {

inline int64_t pieces_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

/// [0, n) in `count` pieces of equal size, a multiple of `unit`, but for the last.
struct Cut {
  int64_t n, size, count;

  Cut(int64_t n, int64_t wanted, int64_t unit) : n(n) {
    const int64_t pieces = std::max<int64_t>(1, pieces_of(n, wanted));
    size = pieces_of(pieces_of(n, pieces), unit) * unit;
    count = pieces_of(n, size);
  }
  int64_t begin(int64_t piece) const { return piece * size; }
  int64_t length(int64_t piece) const { return std::min(size, n - begin(piece)); }
};

/// The pieces of one multiply_columns: tiles of columns of a, times parts of the rows, whose sums are added
/// up in order.
struct ColumnPieces {
  Cut tiles, parts;

  /// About `wanted` pieces: more keep more threads busy, and have more partial sums to write and read again.
  ColumnPieces(const View& a, int64_t tile, int64_t least_rows, int64_t wanted)
      : tiles(a.cols(), tile, 16),
        parts(a.rows(), std::max(least_rows, pieces_of(a.rows(), std::max<int64_t>(1, wanted / tiles.count))), 16) {}
  int64_t count() const { return tiles.count * parts.count; }
};

/// Runs product(tile, part, where to write [columns of the tile, n], thread), and adds up.
template <class Product>
void sum_parts(CpuStream& stream, const ColumnPieces& pieces, const View& result, bool add,
               const Product& product) {
  const int64_t m = result.rows(), n = result.cols();
  const bool direct = pieces.parts.count == 1 && !add;
  float* partial = direct ? nullptr
                          : reinterpret_cast<float*>(stream.shared_scratch(
                                static_cast<size_t>(pieces.parts.count * m * n) * sizeof(float)));
  stream.pool().parallel(pieces.count(), [&](int64_t piece, int thread) {
    const int64_t tile = piece % pieces.tiles.count, part = piece / pieces.tiles.count,
                  row = pieces.tiles.begin(tile);
    product(tile, part,
            direct ? Matrix<float>{result.row<float>(row), result.row_stride}
                   : Matrix<float>{partial + (part * m + row) * n, n},
            thread);
  });
  if (direct) return;
  stream.pool().for_ranges(m, std::max<int64_t>(1, 16384 / n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t part = 0; part < pieces.parts.count; ++part)
        rows::axpy(1.0f, partial + (part * m + row) * n, result.row<float>(row), n, add || part > 0);
  });
}

}  // namespace dino
