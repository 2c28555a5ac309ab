#include "kernels/attention_head.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "kernels/attention_dot_products.h"
#include "kernels/rows.h"

#ifndef DINO_ATTENTION_HEAD_LAYOUT
#define DINO_ATTENTION_HEAD_LAYOUT
// Highway includes this file once for each instruction set; this part is the same for all of them.
namespace dino::attention_head {

/// Rows of scratch matrices begin at multiples of this many floats: the widest vector, and a cache line.
constexpr int64_t kPadding = 16;
constexpr int64_t padded(int64_t count) { return (count + kPadding - 1) / kPadding * kPadding; }

/// Queries go in blocks of about equal size, so that their rows of scores stay in the cache beside keys and values.
struct Blocks {
  explicit Blocks(const Size& size)
      : queries(size.queries), count((queries + limit(size.keys) - 1) / limit(size.keys)) {}
  static int64_t limit(int64_t keys) { return std::clamp<int64_t>(65536 / padded(keys), 48, 128); }
  int64_t first(int64_t block) const { return queries * block / count; }
  int64_t largest() const { return (queries + count - 1) / count; }

  int64_t queries, count;
};

/// Hands out parts of the scratch memory one after the other.
struct Scratch {
  float* take(int64_t rows, int64_t cols) {
    float* const part = next;
    next += rows * padded(cols);
    return part;
  }
  float* next;
};

}  // namespace dino::attention_head
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_head.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include "kernels/row_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dino::attention_head::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using row_vectors::HWY_NAMESPACE::load_first;
using row_vectors::HWY_NAMESPACE::store_first;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(D()));

// 1. Products

/// C [rows, cols] = or += factor · A [rows, inner] · B [inner, cols], with a factor for each row.
struct Product {
  int64_t rows, cols, inner;
  const float* a;
  int64_t a_row, a_inner;  ///< A(row, i) is a[row * a_row + i * a_inner]
  const float* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  bool add = false;
  const float* factor = nullptr;  ///< 1 if null
  int64_t factor_row = 0;
};

/// Rows of a tile of two vectors whose sums stay in registers: there are 32 of these with vectors of 64 bytes, else 16.
constexpr int kTileRows = HWY_MAX_BYTES == 64 ? 12 : 6;

/// The tile of R rows and `kVectors` vectors of C at (row, col). In the last vector, only the lanes of `mask` exist if
/// `kMasked`.
template <int R, int kVectors, bool kMasked, class M>
HWY_NOINLINE void Tile(const Product& p, int64_t row, int64_t col, M mask) {
  const D d;
  const auto load = [&](const float* from, int vector) HWY_ATTR {
    if (kMasked && vector == kVectors - 1) return load_first(mask, d, from + vector * kLanes);
    return hn::LoadU(d, from + vector * kLanes);
  };
  V sum[R][kVectors];
  HWY_UNROLL(12)
  for (int r = 0; r < R; ++r)
    HWY_UNROLL(2)
    for (int vector = 0; vector < kVectors; ++vector) sum[r][vector] = hn::Zero(d);

  // One pointer for three rows: a pointer for each would not fit into the registers.
  const int64_t a_row = p.a_row, a_inner = p.a_inner, b_row = p.b_row;
  const float* a[(R + 2) / 3];
  HWY_UNROLL(4)
  for (int third = 0; third < (R + 2) / 3; ++third) a[third] = p.a + (row + 3 * third) * a_row;
  const float* b = p.b + col;
  for (int64_t i = p.inner; i > 0; --i) {
    V right[kVectors];
    HWY_UNROLL(2)
    for (int vector = 0; vector < kVectors; ++vector) right[vector] = load(b, vector);
    HWY_UNROLL(12)
    for (int r = 0; r < R; ++r) {
      const V left = hn::Set(d, a[r / 3][r % 3 * a_row]);
      HWY_UNROLL(2)
      for (int vector = 0; vector < kVectors; ++vector)
        sum[r][vector] = hn::MulAdd(left, right[vector], sum[r][vector]);
    }
    HWY_UNROLL(4)
    for (int third = 0; third < (R + 2) / 3; ++third) a[third] += a_inner;
    b += b_row;
  }

  float* c = p.c + row * p.c_row + col;
  HWY_UNROLL(12)
  for (int r = 0; r < R; ++r) {
    const V factor = p.factor ? hn::Set(d, p.factor[(row + r) * p.factor_row]) : hn::Set(d, 1.0f);
    HWY_UNROLL(2)
    for (int vector = 0; vector < kVectors; ++vector) {
      float* const to = c + r * p.c_row + vector * kLanes;
      const V before = p.add ? load(c + r * p.c_row, vector) : hn::Zero(d);
      const V value = hn::MulAdd(sum[r][vector], factor, before);
      if (kMasked && vector == kVectors - 1) store_first(value, mask, d, to);
      else hn::StoreU(value, d, to);
    }
  }
}

/// Tile of `rows` rows, at most R.
template <int kVectors, bool kMasked, int R = kTileRows>
HWY_INLINE void TileOf(int64_t rows, const Product& p, int64_t row, int64_t col) {
  if (rows < R) {
    if constexpr (R > 1) TileOf<kVectors, kMasked, R - 1>(rows, p, row, col);
    return;
  }
  const int64_t left = p.cols - col - (kVectors - 1) * kLanes;
  Tile<R, kVectors, kMasked>(p, row, col, hn::FirstN(D(), static_cast<size_t>(std::min(left, kLanes))));
}

void Multiply(const Product& p) {
  const int64_t tiles = (p.rows + kTileRows - 1) / kTileRows;
  for (int64_t col = 0; col < p.cols; col += 2 * kLanes) {
    const int64_t left = p.cols - col;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = p.rows * tile / tiles, rows = p.rows * (tile + 1) / tiles - row;
      if (left >= 2 * kLanes) TileOf<2, false>(rows, p, row, col);
      else if (left > kLanes) TileOf<2, true>(rows, p, row, col);
      else if (left == kLanes) TileOf<1, false>(rows, p, row, col);
      else TileOf<1, true>(rows, p, row, col);
    }
  }
}

/// to [dim, rows rounded up to whole vectors] = the transposed rows; the last row is repeated into the padding.
void Transpose(Rows<const float> from, int64_t rows, int64_t dim, float* to, int64_t to_row) {
  [[maybe_unused]] const D d;
  for (int64_t first = 0; first < rows; first += kLanes) {
    const float* row[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) row[lane] = from.row(std::min(first + lane, rows - 1));
    int64_t col = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; col + 4 <= dim; col += 4) {
      // Block b of part r holds four columns of row 4b + r, so that transposing inside the blocks is all that is left.
      V part[4];
      HWY_UNROLL(4)
      for (int r = 0; r < 4; ++r) {
        part[r] = hn::LoadDup128(d, row[kLanes - 4 + r] + col);
        HWY_UNROLL(3)
        for (int64_t lane = kLanes - 4; lane > 0; lane -= 4)
          part[r] = hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(lane)),
                                   hn::LoadDup128(d, row[lane - 4 + r] + col), part[r]);
      }
      const V low_even = hn::InterleaveLower(d, part[0], part[2]), high_even = hn::InterleaveUpper(d, part[0], part[2]);
      const V low_odd = hn::InterleaveLower(d, part[1], part[3]), high_odd = hn::InterleaveUpper(d, part[1], part[3]);
      float* const out = to + col * to_row + first;
      hn::StoreU(hn::InterleaveLower(d, low_even, low_odd), d, out);
      hn::StoreU(hn::InterleaveUpper(d, low_even, low_odd), d, out + to_row);
      hn::StoreU(hn::InterleaveLower(d, high_even, high_odd), d, out + 2 * to_row);
      hn::StoreU(hn::InterleaveUpper(d, high_even, high_odd), d, out + 3 * to_row);
    }
#endif
    for (; col < dim; ++col)
      for (int64_t lane = 0; lane < kLanes; ++lane) to[col * to_row + first + lane] = row[lane][col];
  }
}

float Dot(const float* x, const float* y, int64_t n) {
  const D d;
  V sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), sum);
  if (i < n) {
    const auto mask = hn::FirstN(d, static_cast<size_t>(n - i));
    sum = hn::MulAdd(load_first(mask, d, x + i), load_first(mask, d, y + i), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// The products of queries with all keys, or of gradients with all values: C [rows, keys] = factor · X · Yᵀ. Columns up
/// to the next whole vector hold anything.
class PairProducts {
 public:
  PairProducts(Rows<const float> y, const Size& size, Scratch& scratch) : y_(y), size_(size), stride_(padded(size.keys)) {
    if (size.queries == 1) return;  // dot products are cheaper than to transpose y for a single row
    transposed_ = scratch.take(size.dim, size.keys);
    Transpose(y, size.keys, size.dim, transposed_, stride_);
  }
  void operator()(Rows<const float> x, int64_t rows, float factor, float* c) const {
    if (!transposed_) {
      for (int64_t key = 0; key < size_.keys; ++key) c[key] = factor * Dot(x.data, y_.row(key), size_.dim);
      return;
    }
    Multiply({.rows = rows, .cols = (size_.keys + kLanes - 1) / kLanes * kLanes, .inner = size_.dim,
              .a = x.data, .a_row = x.stride, .a_inner = 1, .b = transposed_, .b_row = stride_,
              .c = c, .c_row = stride_, .factor = &factor});
  }

 private:
  Rows<const float> y_;
  Size size_;
  int64_t stride_;
  float* transposed_ = nullptr;
};

// 2. Softmax

constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.69314718055994531f;

/// 2^x for x ≤ 127, error about 1 ulp; 0 where that is below the normal numbers.
HWY_INLINE V Exp2(V x) {
  const D d;
  const hn::RebindToSigned<D> bits;
  const V floor = hn::Set(d, -127.0f);
  x = hn::IfThenElse(hn::Lt(x, floor), floor, x);  // not Max, which may lose a NaN
  // Adding 1.5 · 2²³ rounds to an integer, which with the bias of exponents ends up in the lowest bits.
  const V shifter = hn::Set(d, 12582912.0f + 127.0f);
  const V shifted = hn::Add(x, shifter);
  const V rest = hn::Sub(x, hn::Sub(shifted, shifter));
  // The polynomial of degree 6 through the Chebyshev nodes of [-½, ½], relative error 1e-8.
  V power = hn::Set(d, 1.54531634e-4f);
  power = hn::MulAdd(power, rest, hn::Set(d, 1.33908633e-3f));
  power = hn::MulAdd(power, rest, hn::Set(d, 9.61808302e-3f));
  power = hn::MulAdd(power, rest, hn::Set(d, 5.55035695e-2f));
  power = hn::MulAdd(power, rest, hn::Set(d, 2.40226507e-1f));
  power = hn::MulAdd(power, rest, hn::Set(d, 6.93147182e-1f));
  power = hn::MulAdd(power, rest, hn::Set(d, 1.0f));
  return hn::Mul(power, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(bits, shifted))));
}

/// p = 2^(s − max s) in place, in one row of `keys` columns. Returns the sum of p.
HWY_INLINE float SoftmaxRow(float* s, int64_t keys, float* max) {
  const D d;
  const int64_t last = (keys - 1) / kLanes * kLanes;
  const auto exists = hn::FirstN(d, static_cast<size_t>(keys - last));
  const V tail = hn::IfThenElse(exists, hn::LoadU(d, s + last), hn::Set(d, -std::numeric_limits<float>::infinity()));
  V largest = tail;
  for (int64_t key = 0; key < last; key += kLanes) largest = hn::Max(largest, hn::LoadU(d, s + key));
  largest = hn::MaxOfLanes(d, largest);
  *max = hn::GetLane(largest);
  const V p_tail = Exp2(hn::Sub(tail, largest));
  hn::StoreU(p_tail, d, s + last);
  V sum = p_tail;
  for (int64_t key = 0; key < last; key += kLanes) {
    const V p = Exp2(hn::Sub(hn::LoadU(d, s + key), largest));
    hn::StoreU(p, d, s + key);
    sum = hn::Add(sum, p);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// p = 2^(s − lse) in place of s, and ds = p · (dp − delta) · scale in place of dp, in one row of `keys` columns.
HWY_INLINE void SoftmaxBackwardRow(float* s, float* dp, int64_t keys, float lse, float delta, float scale) {
  const D d;
  const V shift = hn::Set(d, lse), center = hn::Set(d, delta), factor = hn::Set(d, scale);
  for (int64_t key = 0; key < keys; key += kLanes) {
    const V p = Exp2(hn::Sub(hn::LoadU(d, s + key), shift));
    hn::StoreU(p, d, s + key);
    hn::StoreU(hn::Mul(hn::Mul(p, factor), hn::Sub(hn::LoadU(d, dp + key), center)), d, dp + key);
  }
}

/// From the maxima (to base 2) and the sums of rows: lse in place of the maxima, 1 / sum in place of the sums.
void FinishSoftmax(float* max, float* sum, int64_t rows) {
  const D d;
  for (int64_t row = 0; row < rows; row += kLanes) {
    const V total = hn::LoadU(d, sum + row);
    const V log = hn::IfThenElse(hn::IsNaN(total), total, hn::Log(d, total));
    hn::StoreU(hn::MulAdd(hn::LoadU(d, max + row), hn::Set(d, kLn2), log), d, max + row);
    hn::StoreU(hn::Div(hn::Set(d, 1.0f), total), d, sum + row);
  }
}

// 3. Heads

/// The rows in f32: themselves, or copies.
Rows<const float> Widened(Rows<const float> x, int64_t, int64_t, Scratch&) { return x; }
Rows<const float> Widened(Rows<const BFloat16> x, int64_t rows, int64_t dim, Scratch& scratch) {
  const Rows<float> copy{scratch.take(rows, dim), padded(dim)};
  for (int64_t row = 0; row < rows; ++row) rows::convert(x.row(row), copy.row(row), dim);
  return {copy.data, copy.stride};
}

/// Rows of results in f32: the result's own, or memory for them, which `Round` stores.
template <class T>
Rows<float> WideTarget(const Gradient<T>& target, int64_t rows, int64_t dim, Scratch& scratch) {
  if constexpr (std::is_same_v<T, float>) return target.rows;
  else {
    if (!target.wanted()) return {};
    const Rows<float> copy{scratch.take(rows, dim), padded(dim)};
    if (target.mode == GradMode::add)
      for (int64_t row = 0; row < rows; ++row) rows::convert(target.rows.row(row), copy.row(row), dim);
    return copy;
  }
}

template <class T>
void Round(Rows<float> from, const Gradient<T>& target, int64_t rows, int64_t dim) {
  if constexpr (!std::is_same_v<T, float>)
    if (target.wanted())
      for (int64_t row = 0; row < rows; ++row) rows::convert(from.row(row), target.rows.row(row), dim);
}

template <class T>
void RunForward(const Forward<T>& head, float* memory) {
  const auto [queries, keys, dim] = head.size;
  const Blocks blocks(head.size);
  const int64_t stride = padded(keys);
  Scratch scratch{memory};
  float* const scores = scratch.take(blocks.largest(), keys);
  float* const max = scratch.take(1, blocks.largest());
  float* const sum = scratch.take(1, blocks.largest());
  const Rows<const float> q = Widened(head.q, queries, dim, scratch), v = Widened(head.v, keys, dim, scratch);
  const Gradient<T> target{head.o, GradMode::write};
  const Rows<float> o = WideTarget(target, queries, dim, scratch);
  const PairProducts scores_of(Widened(head.k, keys, dim, scratch), head.size, scratch);
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t first = blocks.first(block), rows = blocks.first(block + 1) - first;
    scores_of({q.row(first), q.stride}, rows, head.scale * kLog2e, scores);
    for (int64_t row = 0; row < rows; ++row) sum[row] = SoftmaxRow(scores + row * stride, keys, max + row);
    FinishSoftmax(max, sum, rows);
    for (int64_t row = 0; row < rows; ++row) *head.lse.row(first + row) = max[row];
    Multiply({.rows = rows, .cols = dim, .inner = keys, .a = scores, .a_row = stride, .a_inner = 1,
              .b = v.data, .b_row = v.stride, .c = o.row(first), .c_row = o.stride, .factor = sum, .factor_row = 1});
  }
  Round(o, target, queries, dim);
}

template <class T>
void RunBackward(const Backward<T>& head, float* memory) {
  const int64_t queries = head.size.queries, keys = head.size.keys, dim = head.size.dim;
  const Blocks blocks(head.size);
  const int64_t stride = padded(keys);
  Scratch scratch{memory};
  float* const p = scratch.take(blocks.largest(), keys);
  float* const ds = scratch.take(blocks.largest(), keys);
  const Rows<const float> q = Widened(head.q, queries, dim, scratch), k = Widened(head.k, keys, dim, scratch);
  const Rows<const float> o = Widened(head.o, queries, dim, scratch), d_o = Widened(head.d_o, queries, dim, scratch);
  const PairProducts scores_of(k, head.size, scratch);
  const PairProducts dp_of(Widened(head.v, keys, dim, scratch), head.size, scratch);
  const Rows<float> dq = WideTarget(head.dq, queries, dim, scratch);
  const Rows<float> dk = WideTarget(head.dk, keys, dim, scratch), dv = WideTarget(head.dv, keys, dim, scratch);
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t first = blocks.first(block), rows = blocks.first(block + 1) - first;
    scores_of({q.row(first), q.stride}, rows, head.scale * kLog2e, p);
    dp_of({d_o.row(first), d_o.stride}, rows, 1.0f, ds);
    for (int64_t row = 0; row < rows; ++row) {
      // Σ_k p·dp of a row equals o·do, which is shorter.
      const float delta = Dot(o.row(first + row), d_o.row(first + row), dim);
      SoftmaxBackwardRow(p + row * stride, ds + row * stride, keys, *head.lse.row(first + row) * kLog2e, delta, head.scale);
    }
    if (head.dq.wanted())
      Multiply({.rows = rows, .cols = dim, .inner = keys, .a = ds, .a_row = stride, .a_inner = 1, .b = k.data,
                .b_row = k.stride, .c = dq.row(first), .c_row = dq.stride, .add = head.dq.mode == GradMode::add});
    const auto add_up = [&](const Gradient<T>& grad, Rows<float> to, const float* a, Rows<const float> b) {
      if (!grad.wanted()) return;
      Multiply({.rows = keys, .cols = dim, .inner = rows, .a = a, .a_row = 1, .a_inner = stride, .b = b.row(first),
                .b_row = b.stride, .c = to.data, .c_row = to.stride, .add = block > 0 || grad.mode == GradMode::add});
    };
    add_up(head.dk, dk, ds, q);
    add_up(head.dv, dv, p, d_o);
  }
  Round(dq, head.dq, queries, dim);
  Round(dk, head.dk, keys, dim);
  Round(dv, head.dv, keys, dim);
}

void ForwardF32(const Forward<float>& head, float* memory) { RunForward(head, memory); }
void ForwardBf16(const Forward<BFloat16>& head, float* memory) { RunForward(head, memory); }
void BackwardF32(const Backward<float>& head, float* memory) { RunBackward(head, memory); }
void BackwardBf16(const Backward<BFloat16>& head, float* memory) { RunBackward(head, memory); }

}  // namespace dino::attention_head::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dino::attention_head {

HWY_EXPORT(ForwardF32);
HWY_EXPORT(ForwardBf16);
HWY_EXPORT(BackwardF32);
HWY_EXPORT(BackwardBf16);

size_t forward_scratch_bytes(const Size& size) {
  const int64_t block = Blocks(size).largest();
  const int64_t copies = 2 * (size.queries + size.keys) * padded(size.dim);
  const auto bytes = static_cast<size_t>((block + size.dim) * padded(size.keys) + 2 * padded(block) + copies) * sizeof(float);
  return std::max(bytes, dot_products::forward_scratch_bytes(size));
}

size_t backward_scratch_bytes(const Size& size) {
  const int64_t block = Blocks(size).largest();
  const int64_t copies = 4 * (size.queries + size.keys) * padded(size.dim);
  const auto bytes = static_cast<size_t>(2 * (block + size.dim) * padded(size.keys) + copies) * sizeof(float);
  return std::max(bytes, dot_products::backward_scratch_bytes(size));
}

void forward(const Forward<float>& head, std::byte* scratch) {
  HWY_DYNAMIC_DISPATCH(ForwardF32)(head, reinterpret_cast<float*>(scratch));
}
void forward(const Forward<BFloat16>& head, std::byte* scratch) {
  if (dot_products::suits(head.size)) return dot_products::forward(head, scratch);
  HWY_DYNAMIC_DISPATCH(ForwardBf16)(head, reinterpret_cast<float*>(scratch));
}
void backward(const Backward<float>& head, std::byte* scratch) {
  HWY_DYNAMIC_DISPATCH(BackwardF32)(head, reinterpret_cast<float*>(scratch));
}
void backward(const Backward<BFloat16>& head, std::byte* scratch) {
  if (dot_products::suits(head.size)) return dot_products::backward(head, scratch);
  HWY_DYNAMIC_DISPATCH(BackwardBf16)(head, reinterpret_cast<float*>(scratch));
}

}  // namespace dino::attention_head
#endif  // HWY_ONCE
