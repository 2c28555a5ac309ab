#include "kernels/linear_pairs.h"

#include "kernels/product_pieces.h"

#if defined(__x86_64__)
// GCC 12 takes the undefined operands inside of its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "kernels/bf16_pairs.h"
#include "kernels/bf16_tiles.h"

namespace dino::pairs {
namespace {

using namespace bf16_pairs;

/// Fewer rows are not worth the packing.
constexpr int64_t kFewestRows = 1024;
/// Rows of a column product that are multiplied at a time.
constexpr int64_t kColumnRows = 512;
/// Columns of a packed panel of the right side: two vectors.
constexpr int64_t kPanel = 2 * kLanes;

const BFloat16* element(const View& x, int64_t row, int64_t col) { return x.row<BFloat16>(row) + col; }

/// Columns [col, col + width) of a weight as pairs along the inner axis: to [k / 2, width].
DINO_AVX512_BF16 void pack_panel(const View& weight, bool transposed, int64_t k, int64_t col, int64_t width, Pair* to) {
  if (transposed) return transpose(element(weight, col, 0), weight.row_stride, width, width, k, to);
  for (int64_t i = 0; i < k; i += 2) interleave(element(weight, i, col), element(weight, i + 1, col), width, to + i / 2 * width);
}

Target target_of(const View& y, int64_t row, int64_t col, bool add) {
  if (y.dtype == Dtype::f32) return {.wide = y.row<float>(row) + col, .stride = y.row_stride, .add = add};
  return {.narrow = y.row<BFloat16>(row) + col, .stride = y.row_stride, .add = add};
}

/// Rows [begin, begin + rows) and columns [col, col + width) of one side of a column product, as pairs: to [rows / 2, width].
DINO_AVX512_BF16 void pack_columns(const View& x, int64_t begin, int64_t rows, int64_t col, int64_t width, Pair* to) {
  interleave_rows(element(x, begin, col), x.row_stride, rows, width, to);
}

/// The same the other way round, as tiles are loaded: to [width, stride], of which (rows + 1) / 2 in use; stride is a multiple of 16.
DINO_AVX512_BF16 void pack_transposed(const View& x, int64_t begin, int64_t rows, int64_t col, int64_t width, Pair* to, int64_t stride) {
  for (int64_t row = 0; row < rows; row += 2 * kLanes)
    for (int64_t first = 0; first < width; first += kLanes) {
      Pair pairs[kLanes * kLanes] = {};
      interleave_rows(element(x, begin + row, col + first), x.row_stride, std::min(2 * kLanes, rows - row), kLanes, pairs);
      __m512i block[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) block[i] = _mm512_loadu_si512(pairs + i * kLanes);
      transpose_16x16(block);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + (first + i) * stride + row / 2, block[i]);
    }
}

/// The left side of a column product, packed for what multiplies it.
class LeftSide {
 public:
  /// Whole vectors and whole tiles of bf16_pairs.
  static constexpr int64_t kPanel = 4 * kTileRows;

  static int64_t pairs(int64_t cols) { return cols * kStride; }
  LeftSide(const View& x, int64_t begin, int64_t rows, int64_t col, int64_t cols, Pair* memory) : memory_(memory), inner_((rows + 1) / 2), cols_(cols) {
    if (tiles_) pack_transposed(x, begin, rows, col, cols, memory, kStride);
    for (int64_t first = 0; !tiles_ && first < cols; first += kPanel)
      pack_columns(x, begin, rows, col + first, std::min(kPanel, cols - first), memory + inner_ * first);
  }
  /// to [cols, width] = or += this · right
  void multiply_by(const Pair* right, int64_t width, Target to) const {
    const auto* const a = reinterpret_cast<const BFloat16*>(memory_);
    if (tiles_)
      return bf16_tiles::multiply({.rows = cols_, .cols = width, .inner = inner_, .a = a, .a_row = 2 * kStride, .a_inner = 2, .b = right, .b_row = width, .c = to});
    for (int64_t first = 0; first < cols_; first += kPanel) {
      const int64_t height = std::min(kPanel, cols_ - first);
      bf16_tiles::multiply({.rows = height, .cols = width, .inner = inner_, .a = a + 2 * inner_ * first, .a_row = 2, .a_inner = 2 * height, .b = right,
                .b_row = width, .c = to});
      to.wide += height * to.stride;
    }
  }

 private:
  /// Not a power of two, so that the rows of a tile do not share sets of the cache.
  static constexpr int64_t kStride = kColumnRows / 2 + kLanes;
  const bool tiles_ = bf16_tiles::supported();
  Pair* memory_;
  int64_t inner_, cols_;
};

}  // namespace

bool multiplies_rows(const View& x, const View& weight, bool transposed, const View& y) {
  return supported() && x.dtype == Dtype::bf16 && weight.dtype == Dtype::bf16 && x.rows() >= kFewestRows &&
         x.cols() % (transposed ? 2 * kLanes : 2) == 0 && y.cols() % kLanes == 0;
}

void multiply_rows(CpuStream& stream, const View& x, const View& weight, bool transposed, const View& bias, const View& y, bool add) {
  const int64_t k = x.cols(), n = y.cols();
  auto* const packed = reinterpret_cast<Pair*>(stream.shared_scratch(static_cast<size_t>(k * n) * sizeof(BFloat16)));
  stream.pool().parallel(pieces_of(n, kPanel), [&](int64_t panel, int) {
    const int64_t col = panel * kPanel;
    pack_panel(weight, transposed, k, col, std::min(kPanel, n - col), packed + k / 2 * col);
  });
  // A piece of x stays in the second cache while all panels pass by.
  const Cut rows(x.rows(), std::clamp<int64_t>(x.rows() / 48, 48, k <= 512 ? 192 : 96), kTileRows);
  stream.pool().parallel(rows.count, [&](int64_t piece, int) {
    const int64_t row = rows.begin(piece);
    for (int64_t col = 0; col < n; col += kPanel) {
      const int64_t width = std::min(kPanel, n - col);
      bf16_tiles::multiply({.rows = rows.length(piece), .cols = width, .inner = k / 2, .a = element(x, row, 0), .a_row = x.row_stride, .a_inner = 2,
                .b = packed + k / 2 * col, .b_row = width, .c = target_of(y, row, col, add),
                .bias = bias.defined() ? bias.as<float>() + col : nullptr});
    }
  });
}

bool multiplies_columns(const View& a, const View& b, const View& result) {
  return supported() && a.dtype == Dtype::bf16 && b.dtype == Dtype::bf16 && a.rows() >= 256 && result.cols() % kLanes == 0 &&
         result.rows() % kLanes == 0;
}

void multiply_columns(CpuStream& stream, const View& a, const View& b, const View& result, bool add) {
  const ColumnPieces pieces(a, 4 * LeftSide::kPanel, 512, 16);
  const int64_t n = b.cols();
  sum_parts(stream, pieces, result, add, [&](int64_t tile, int64_t part, Matrix<float> to, int thread) {
    const int64_t first = pieces.tiles.begin(tile), cols = pieces.tiles.length(tile);
    auto* const right = reinterpret_cast<Pair*>(
        stream.scratch(thread, static_cast<size_t>(LeftSide::pairs(cols) + kColumnRows / 2 * kPanel) * sizeof(Pair)));
    // So few rows at a time that a panel of each side fits into the first cache.
    const Cut chunks(pieces.parts.length(part), kColumnRows, 2);
    for (int64_t chunk = 0; chunk < chunks.count; ++chunk) {
      const int64_t begin = pieces.parts.begin(part) + chunks.begin(chunk), rows = chunks.length(chunk);
      const LeftSide left(a, begin, rows, first, cols, right + kColumnRows / 2 * kPanel);
      for (int64_t panel = 0; panel < n; panel += kPanel) {
        const int64_t width = std::min(kPanel, n - panel);
        pack_columns(b, begin, rows, panel, width, right);
        left.multiply_by(right, width, {.wide = to.data + panel, .stride = to.stride, .add = chunk > 0});
      }
    }
  });
}

}  // namespace dino::pairs

#else

namespace dino::pairs {

bool multiplies_rows(const View&, const View&, bool, const View&) { return false; }
bool multiplies_columns(const View&, const View&, const View&) { return false; }
void multiply_rows(CpuStream&, const View&, const View&, bool, const View&, const View&, bool) {}
void multiply_columns(CpuStream&, const View&, const View&, const View&, bool) {}

}  // namespace dino::pairs

#endif
