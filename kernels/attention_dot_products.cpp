#include "kernels/attention_dot_products.h"

#if defined(__x86_64__)
// GCC 12 takes the undefined operands inside of its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <algorithm>
#include <cmath>

#include "kernels/bf16_pairs.h"
#include "kernels/bf16_tiles.h"

namespace dino::attention_head::dot_products {
namespace {

using namespace bf16_pairs;

constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.69314718055994531f;

constexpr int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

/// How the keys of a head divide: the class token makes lengths like 65, so that a last vector would often be all but empty.
struct Keys {
  explicit Keys(int64_t count) : count(count), pairs((count + 1) / 2) {
    tail = count > kLanes && count % kLanes <= 2 ? count % kLanes : 0;
    wide = round_up(count - tail, kLanes);
  }
  int64_t count, pairs;
  int64_t wide;  ///< columns of scores in whole vectors; those past the keys have the probability 0
  int64_t tail;  ///< keys after those, whose scores are single dot products
  int64_t row() const { return round_up(wide + tail, kLanes); }  ///< of a matrix with a column per key
  __mmask16 last() const { return static_cast<__mmask16>(wide > count ? 0xFFFF >> (wide - count) : 0xFFFF); }
};

/// Queries go in blocks of about equal size whose scores stay in the first caches.
struct Blocks {
  Blocks(int64_t queries, const Keys& keys)
      : queries(queries), count((queries + limit(keys) - 1) / limit(keys)), most((queries + count - 1) / count) {}
  static int64_t limit(const Keys& keys) { return std::clamp<int64_t>(16384 / keys.row(), 48, 128); }
  int64_t first(int64_t block) const { return queries * block / count; }

  int64_t queries, count;
  int64_t most;  ///< queries of a block
};

/// Hands out parts of the scratch memory one after the other, or only counts them.
struct Scratch {
  template <class T>
  T* take(int64_t count) {
    std::byte* const part = memory ? memory + used : nullptr;
    used += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
    return reinterpret_cast<T*>(part);
  }
  std::byte* memory;
  size_t used = 0;
};

/// A block of scores, or of gradients of probabilities.
struct Scores {
  float* wide;  ///< [rows, keys.wide]
  float* tail;  ///< [keys.tail, kMostRows], a column for each query

  static constexpr int64_t kMostRows = 128;
  static Scores take(Scratch& scratch, const Keys& keys, int64_t rows) {
    return {scratch.take<float>(rows * keys.wide), scratch.take<float>(keys.tail * kMostRows)};
  }
};

/// to = factor · X · Yᵀ, where x are the queries of the block, and y the keys, once more in `transposed`.
DINO_AVX512_BF16 void pair_products(Rows<const BFloat16> x, int64_t rows, Rows<const BFloat16> y, const Pair* transposed, const Keys& keys,
                               int64_t dim, float factor, const Scores& to) {
  bf16_tiles::multiply({.rows = rows, .cols = keys.wide, .inner = dim / 2, .a = x.data, .a_row = x.stride, .a_inner = 2, .b = transposed,
                        .b_row = keys.wide, .c = {.wide = to.wide, .stride = keys.wide}, .factor = factor});
  for (int64_t t = 0; t < keys.tail; ++t)
    for (int64_t row = 0; row < rows; ++row)
      to.tail[t * Scores::kMostRows + row] = factor * dot(x.row(row), y.row(keys.wide + t), dim);
}

// 1. Softmax

/// 2^x for x ≤ 127, error about 1 ulp; 0 where that is below the normal numbers.
DINO_AVX512_BF16_INLINE __m512 exp2(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-127), x);  // in this order a NaN stays
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), rest = _mm512_sub_ps(x, whole);
  // The polynomial of degree 6 through the Chebyshev nodes of [-½, ½], relative error 1e-8.
  __m512 power = _mm512_set1_ps(1.54531634e-4f);
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(1.33908633e-3f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(9.61808302e-3f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(5.55035695e-2f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(2.40226507e-1f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(6.93147182e-1f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(power, whole);
}

/// Largest value of a row of scores.
DINO_AVX512_BF16_INLINE float largest(const Scores& s, const Keys& keys, int64_t row) {
  const float* const scores = s.wide + row * keys.wide;
  const int64_t last = keys.wide - kLanes;
  __m512 most = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), keys.last(), scores + last);
  for (int64_t key = 0; key < last; key += kLanes) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + key));
  float result = _mm512_reduce_max_ps(most);
  for (int64_t t = 0; t < keys.tail; ++t) result = std::max(s.tail[t * Scores::kMostRows + row], result);
  return result;
}

/// p [rows, 2 · keys.pairs] = 2^(s − max s); the sums of rows, and the maxima.
DINO_AVX512_BF16 void softmax(const Scores& s, const Keys& keys, int64_t rows, BFloat16* p, int64_t p_row, float* max, float* sum) {
  for (int64_t row = 0; row < rows; ++row) {
    max[row] = largest(s, keys, row);
    const __m512 shift = _mm512_set1_ps(max[row]);
    __m512 total = _mm512_setzero_ps();
    for (int64_t key = 0; key < keys.wide; key += kLanes) {
      const __mmask16 exists = key + kLanes == keys.wide ? keys.last() : static_cast<__mmask16>(0xFFFF);
      const __m512 power = _mm512_maskz_mov_ps(exists, exp2(_mm512_sub_ps(_mm512_loadu_ps(s.wide + row * keys.wide + key), shift)));
      total = _mm512_add_ps(total, power);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + row * p_row + key), rounded(power));
    }
    sum[row] = _mm512_reduce_add_ps(total);
  }
  for (int64_t t = 0; t < keys.tail; ++t)
    for (int64_t first = 0; first < rows; first += kLanes) {
      const __m512 power = exp2(_mm512_sub_ps(_mm512_loadu_ps(s.tail + t * Scores::kMostRows + first), _mm512_loadu_ps(max + first)));
      _mm512_storeu_ps(sum + first, _mm512_add_ps(_mm512_loadu_ps(sum + first), power));
      alignas(32) BFloat16 column[kLanes];
      _mm256_store_si256(reinterpret_cast<__m256i*>(column), rounded(power));
      for (int64_t row = first; row < std::min(rows, first + kLanes); ++row) p[row * p_row + keys.wide + t] = column[row - first];
    }
  if (keys.tail > 0 && keys.count % 2 != 0)
    for (int64_t row = 0; row < rows; ++row) p[row * p_row + keys.count] = BFloat16(0);
}

// 2. Heads

Target target(const Gradient<BFloat16>& grad, int64_t row) {
  return {.narrow = grad.rows.row(row), .stride = grad.rows.stride, .add = grad.mode == GradMode::add};
}

/// What forward needs besides its results.
struct ForwardMemory {
  ForwardMemory(Scratch& scratch, const Size& size, const Keys& keys, const Blocks& blocks)
      : p_row(round_up(2 * keys.pairs, 2 * kLanes)),
        scores(Scores::take(scratch, keys, blocks.most)),
        max(scratch.take<float>(round_up(blocks.most, kLanes))),
        sum(scratch.take<float>(round_up(blocks.most, kLanes))),
        p(scratch.take<BFloat16>(blocks.most * p_row)),
        k(scratch.take<int32_t>(size.dim / 2 * keys.wide)),
        v(scratch.take<int32_t>(keys.pairs * size.dim)) {}

  int64_t p_row;
  Scores scores;
  float *max, *sum;
  BFloat16* p;
  Pair *k, *v;
};

DINO_AVX512_BF16 void run_forward(const Forward<BFloat16>& head, std::byte* scratch_memory) {
  const Keys keys(head.size.keys);
  const int64_t dim = head.size.dim;
  const Blocks blocks(head.size.queries, keys);
  Scratch scratch{scratch_memory};
  const ForwardMemory memory(scratch, head.size, keys, blocks);
  transpose(head.k.data, head.k.stride, keys.count, keys.wide, dim, memory.k);
  interleave_rows(head.v.data, head.v.stride, keys.count, dim, memory.v);
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t first = blocks.first(block), rows = blocks.first(block + 1) - first;
    pair_products({head.q.row(first), head.q.stride}, rows, head.k, memory.k, keys, dim, head.scale * kLog2e, memory.scores);
    softmax(memory.scores, keys, rows, memory.p, memory.p_row, memory.max, memory.sum);
    for (int64_t row = 0; row < rows; ++row) {
      *head.lse.row(first + row) = std::fma(memory.max[row], kLn2, std::log(memory.sum[row]));
      memory.sum[row] = 1 / memory.sum[row];
    }
    bf16_tiles::multiply({.rows = rows, .cols = dim, .inner = keys.pairs, .a = memory.p, .a_row = memory.p_row, .a_inner = 2, .b = memory.v,
                          .b_row = dim, .c = {.narrow = head.o.row(first), .stride = head.o.stride}, .factors = memory.sum});
  }
}

/// What backward needs besides its results.
struct BackwardMemory {
  BackwardMemory(Scratch& scratch, const Size& size, const Keys& keys, const Blocks& blocks)
      : ds_row(round_up(2 * keys.pairs, 2 * kLanes)),
        s(Scores::take(scratch, keys, blocks.most)),
        dp(Scores::take(scratch, keys, blocks.most)),
        ds(scratch.take<BFloat16>(blocks.most * ds_row)),
        p_pairs(scratch.take<int32_t>((blocks.most + 1) / 2 * keys.row())),
        ds_pairs(scratch.take<int32_t>((blocks.most + 1) / 2 * keys.row())),
        k_transposed(scratch.take<int32_t>(size.dim / 2 * keys.wide)),
        v_transposed(scratch.take<int32_t>(size.dim / 2 * keys.wide)),
        k(scratch.take<int32_t>(keys.pairs * size.dim)),
        q(scratch.take<int32_t>((blocks.most + 1) / 2 * size.dim)),
        d_o(scratch.take<int32_t>((blocks.most + 1) / 2 * size.dim)),
        lse(scratch.take<float>(Scores::kMostRows)),
        delta(scratch.take<float>(Scores::kMostRows)),
        dk(scratch.take<float>(blocks.count > 1 ? keys.count * size.dim : 0)),
        dv(scratch.take<float>(blocks.count > 1 ? keys.count * size.dim : 0)) {}

  int64_t ds_row;
  Scores s, dp;
  BFloat16* ds;                ///< [rows, 2 · keys.pairs]
  Pair *p_pairs, *ds_pairs;    ///< [pairs of rows, keys.row()]
  Pair *k_transposed, *v_transposed;
  Pair* k;                     ///< [keys.pairs, dim]
  Pair *q, *d_o;               ///< [pairs of rows, dim]
  float *lse, *delta;          ///< [rows]; lse to base 2
  float *dk, *dv;              ///< [keys, dim] where there are several blocks to sum up
};

/// p = 2^(s − lse) and ds = p · (dp − delta) · scale of 16 scores.
DINO_AVX512_BF16_INLINE void softmax_backward(__m512 s, __m512 dp, __m512 lse, __m512 delta, __m512 scale, __mmask16 exists, __m256i& p,
                                         __m256i& ds) {
  const __m512 power = _mm512_maskz_mov_ps(exists, exp2(_mm512_sub_ps(s, lse)));
  p = rounded(power);
  ds = rounded(_mm512_maskz_mul_ps(exists, _mm512_mul_ps(power, scale), _mm512_sub_ps(dp, delta)));
}

DINO_AVX512_BF16_INLINE void store_pairs(__m256i even, __m256i odd, Pair* to) {
  _mm512_storeu_si512(to, _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)));
}

/// The columns of keys in whole vectors, two rows at a time.
DINO_AVX512_BF16 void wide_gradients(const BackwardMemory& m, const Keys& keys, int64_t rows, float scale) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t row = 0; row < rows; row += 2) {
    const bool both = row + 1 < rows;
    for (int64_t key = 0; key < keys.wide; key += kLanes) {
      const __mmask16 exists = key + kLanes == keys.wide ? keys.last() : static_cast<__mmask16>(0xFFFF);
      __m256i p[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, ds[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      for (int64_t r = 0; r < (both ? 2 : 1); ++r) {
        const int64_t at = (row + r) * keys.wide + key;
        softmax_backward(_mm512_loadu_ps(m.s.wide + at), _mm512_loadu_ps(m.dp.wide + at), _mm512_set1_ps(m.lse[row + r]),
                         _mm512_set1_ps(m.delta[row + r]), factor, exists, p[r], ds[r]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(m.ds + (row + r) * m.ds_row + key), ds[r]);
      }
      store_pairs(p[0], p[1], m.p_pairs + row / 2 * keys.row() + key);
      store_pairs(ds[0], ds[1], m.ds_pairs + row / 2 * keys.row() + key);
    }
  }
}

/// The other keys, 16 rows at a time.
DINO_AVX512_BF16 void tail_gradients(const BackwardMemory& m, const Keys& keys, int64_t rows, float scale) {
  for (int64_t t = 0; t < keys.tail; ++t)
    for (int64_t first = 0; first < rows; first += kLanes) {
      const int64_t at = t * Scores::kMostRows + first, count = std::min(kLanes, rows - first);
      __m256i p, ds;
      softmax_backward(_mm512_loadu_ps(m.s.tail + at), _mm512_loadu_ps(m.dp.tail + at), _mm512_loadu_ps(m.lse + first),
                       _mm512_loadu_ps(m.delta + first), _mm512_set1_ps(scale), static_cast<__mmask16>(0xFFFF >> (kLanes - count)), p,
                       ds);
      // Rows follow each other, so that pairs of rows lie in 32 bits already.
      alignas(32) Pair p_pairs[kLanes / 2], ds_pairs[kLanes / 2];
      alignas(32) BFloat16 column[kLanes];
      _mm256_store_si256(reinterpret_cast<__m256i*>(p_pairs), p);
      _mm256_store_si256(reinterpret_cast<__m256i*>(ds_pairs), ds);
      _mm256_store_si256(reinterpret_cast<__m256i*>(column), ds);
      const int64_t key = keys.wide + t;
      for (int64_t pair = 0; 2 * pair < count; ++pair) {
        m.p_pairs[(first / 2 + pair) * keys.row() + key] = p_pairs[pair];
        m.ds_pairs[(first / 2 + pair) * keys.row() + key] = ds_pairs[pair];
      }
      for (int64_t row = 0; row < count; ++row) m.ds[(first + row) * m.ds_row + key] = column[row];
    }
  if (keys.tail > 0 && keys.count % 2 != 0)
    for (int64_t row = 0; row < rows; ++row) m.ds[row * m.ds_row + keys.count] = BFloat16(0);
}

/// grad = or += the f32 sums [rows, dim], rounded once.
DINO_AVX512_BF16 void round_sums(const float* sums, const Gradient<BFloat16>& grad, int64_t rows, int64_t dim) {
  if (!grad.wanted()) return;
  const Target to = target(grad, 0);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < dim; col += kLanes) store(to, row, col, _mm512_loadu_ps(sums + row * dim + col));
}

DINO_AVX512_BF16 void run_backward(const Backward<BFloat16>& head, std::byte* scratch_memory) {
  const Keys keys(head.size.keys);
  const int64_t dim = head.size.dim;
  const Blocks blocks(head.size.queries, keys);
  Scratch scratch{scratch_memory};
  const BackwardMemory m(scratch, head.size, keys, blocks);
  transpose(head.k.data, head.k.stride, keys.count, keys.wide, dim, m.k_transposed);
  transpose(head.v.data, head.v.stride, keys.count, keys.wide, dim, m.v_transposed);
  if (head.dq.wanted()) interleave_rows(head.k.data, head.k.stride, keys.count, dim, m.k);
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t first = blocks.first(block), rows = blocks.first(block + 1) - first;
    const Rows<const BFloat16> q{head.q.row(first), head.q.stride}, d_o{head.d_o.row(first), head.d_o.stride};
    pair_products(q, rows, head.k, m.k_transposed, keys, dim, head.scale * kLog2e, m.s);
    pair_products(d_o, rows, head.v, m.v_transposed, keys, dim, 1, m.dp);
    for (int64_t row = 0; row < rows; ++row) {
      m.lse[row] = *head.lse.row(first + row) * kLog2e;
      m.delta[row] = dot(head.o.row(first + row), d_o.row(row), dim);  // equals Σ_k p·dp, and is shorter
    }
    wide_gradients(m, keys, rows, head.scale);
    tail_gradients(m, keys, rows, head.scale);
    if (head.dq.wanted())
      bf16_tiles::multiply({.rows = rows, .cols = dim, .inner = keys.pairs, .a = m.ds, .a_row = m.ds_row, .a_inner = 2, .b = m.k, .b_row = dim,
                            .c = target(head.dq, first)});
    const Gradient<BFloat16>* const gradients[] = {&head.dk, &head.dv};
    const Pair *const left[] = {m.ds_pairs, m.p_pairs}, *const right[] = {m.q, m.d_o};
    float* const sums[] = {m.dk, m.dv};
    for (int i = 0; i < 2; ++i) {
      if (!gradients[i]->wanted()) continue;
      const Rows<const BFloat16>& plain = i == 0 ? q : d_o;
      interleave_rows(plain.data, plain.stride, rows, dim, i == 0 ? m.q : m.d_o);
      const Target to = blocks.count > 1 ? Target{.wide = sums[i], .stride = dim, .add = block > 0} : target(*gradients[i], 0);
      bf16_tiles::multiply({.rows = keys.count, .cols = dim, .inner = (rows + 1) / 2, .a = reinterpret_cast<const BFloat16*>(left[i]), .a_row = 2,
                            .a_inner = 2 * keys.row(), .b = right[i], .b_row = dim, .c = to});
    }
  }
  if (blocks.count == 1) return;
  round_sums(m.dk, head.dk, keys.count, dim);
  round_sums(m.dv, head.dv, keys.count, dim);
}

}  // namespace

bool suits(const Size& size) { return supported() && size.queries > 1 && size.dim % (2 * kLanes) == 0; }

size_t forward_scratch_bytes(const Size& size) {
  const Keys keys(size.keys);
  Scratch scratch{nullptr};
  ForwardMemory(scratch, size, keys, Blocks(size.queries, keys));
  return scratch.used;
}

size_t backward_scratch_bytes(const Size& size) {
  const Keys keys(size.keys);
  Scratch scratch{nullptr};
  BackwardMemory(scratch, size, keys, Blocks(size.queries, keys));
  return scratch.used;
}

void forward(const Forward<BFloat16>& head, std::byte* scratch) { run_forward(head, scratch); }

void backward(const Backward<BFloat16>& head, std::byte* scratch) { run_backward(head, scratch); }

}  // namespace dino::attention_head::dot_products

#else

namespace dino::attention_head::dot_products {

bool suits(const Size&) { return false; }
size_t forward_scratch_bytes(const Size&) { return 0; }
size_t backward_scratch_bytes(const Size&) { return 0; }
void forward(const Forward<BFloat16>&, std::byte*) {}
void backward(const Backward<BFloat16>&, std::byte*) {}

}  // namespace dino::attention_head::dot_products

#endif
