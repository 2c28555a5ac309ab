#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/bfloat16.h"

/// Products of matrices in bf16 with sums in f32, by the instructions of AVX512_BF16; Highway has none of these. A "pair" is two
/// neighbours along the inner axis in 32 bits: one instruction multiplies 16 pairs by 16 others and adds the 32 products to 16
/// sums. For files that ask the processor (`supported`) before they call any of this.

#define DINO_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define DINO_AVX512_BF16_INLINE DINO_AVX512_BF16 inline __attribute__((always_inline))

namespace dino::bf16_pairs {

/// Two values in bf16, the first in the lower half; at any address of a bf16.
using Pair = int32_t __attribute__((may_alias, aligned(2)));

constexpr int64_t kLanes = 16;

/// The pair at any address of a bf16.
DINO_AVX512_BF16_INLINE int32_t pair_at(const BFloat16* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof pair);
  return pair;
}

/// Whether this processor has the instructions.
inline bool supported() {
  static const bool result = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
  return result;
}

/// The rows `even` and `odd` (null: zeros) as pairs: to [dim], a multiple of 16.
DINO_AVX512_BF16_INLINE void interleave(const BFloat16* even, const BFloat16* odd, int64_t dim, Pair* to) {
  for (int64_t col = 0; col < dim; col += kLanes) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even + col)));
    const __m512i high =
        odd ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd + col))) : _mm512_setzero_si512();
    _mm512_storeu_si512(to + col, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

/// to [pairs of rows, dim]
inline DINO_AVX512_BF16 void interleave_rows(const BFloat16* from, int64_t stride, int64_t rows, int64_t dim, Pair* to) {
  for (int64_t row = 0; row < rows; row += 2)
    interleave(from + row * stride, row + 1 < rows ? from + (row + 1) * stride : nullptr, dim, to + row / 2 * dim);
}

DINO_AVX512_BF16_INLINE void transpose_16x16(__m512i (&x)[16]) {
  __m512i t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  // After this, x[4 q + c] holds column 4 b + c of rows 4 q to 4 q + 3 in its block b.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i even_low = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88), odd_low = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd);
    const __m512i even_high = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88),
                  odd_high = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
    t[c] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    t[4 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = t[i];
}

/// to [pairs of columns, padded_rows] = the transposed rows; zeros past the last one. `dim` is a multiple of 32, `padded_rows` of 16.
inline DINO_AVX512_BF16 void transpose(const BFloat16* from, int64_t stride, int64_t rows, int64_t padded_rows, int64_t dim, Pair* to) {
  for (int64_t first = 0; first < padded_rows; first += kLanes)
    for (int64_t pair = 0; pair < dim / 2; pair += kLanes) {
      __m512i block[16];
#pragma GCC unroll 16
      for (int row = 0; row < 16; ++row)
        block[row] = first + row < rows ? _mm512_loadu_si512(from + (first + row) * stride + 2 * pair) : _mm512_setzero_si512();
      transpose_16x16(block);
#pragma GCC unroll 16
      for (int row = 0; row < 16; ++row) _mm512_storeu_si512(to + (pair + row) * padded_rows + first, block[row]);
    }
}

/// Where the rows of a product go: f32, or rounded to bf16.
struct Target {
  float* wide = nullptr;
  BFloat16* narrow = nullptr;
  int64_t stride = 0;
  bool add = false;
};

/// C [rows, cols] = or += factor · A [rows, inner] · B [inner, cols] + bias, where inner counts pairs.
struct Product {
  int64_t rows, cols, inner;  ///< cols: a multiple of 16
  const BFloat16* a;
  int64_t a_row, a_inner;  ///< A(row, i) is the pair at a + row * a_row + i * a_inner
  const Pair* b;
  int64_t b_row;
  Target c;
  float factor = 1;
  const float* factors = nullptr;  ///< of each row, if not null
  const float* bias = nullptr;     ///< [cols]; 0 if null
};

DINO_AVX512_BF16_INLINE __m512 widened(const BFloat16* from) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

DINO_AVX512_BF16_INLINE __m256i rounded(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

DINO_AVX512_BF16_INLINE void store(const Target& c, int64_t row, int64_t col, __m512 value) {
  const int64_t at = row * c.stride + col;
  if (c.wide) {
    _mm512_storeu_ps(c.wide + at, c.add ? _mm512_add_ps(_mm512_loadu_ps(c.wide + at), value) : value);
  } else {
    const __m512 sum = c.add ? _mm512_add_ps(widened(c.narrow + at), value) : value;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(c.narrow + at), rounded(sum));
  }
}

/// The tile of R rows and `kVectors` vectors of C at (row, col): its sums stay in registers.
template <int R, int kVectors>
DINO_AVX512_BF16 __attribute__((noinline)) void tile(const Product& p, int64_t row, int64_t col) {
  __m512 sum[R][kVectors];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_setzero_ps();
  // One pointer for three rows: a pointer for each would not fit into the registers.
  const int64_t a_row = p.a_row, a_inner = p.a_inner, b_row = p.b_row;
  const BFloat16* a[(R + 2) / 3];
#pragma GCC unroll 4
  for (int third = 0; third < (R + 2) / 3; ++third) a[third] = p.a + (row + 3 * third) * a_row;
  const Pair* b = p.b + col;
  for (int64_t i = p.inner; i > 0; --i) {
    __m512bh right[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) right[v] = (__m512bh)_mm512_loadu_si512(b + v * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const __m512bh left = (__m512bh)_mm512_set1_epi32(pair_at(a[r / 3] + r % 3 * a_row));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], left, right[v]);
    }
#pragma GCC unroll 4
    for (int third = 0; third < (R + 2) / 3; ++third) a[third] += a_inner;
    b += b_row;
  }
  __m512 bias[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) bias[v] = p.bias ? _mm512_loadu_ps(p.bias + col + v * kLanes) : _mm512_setzero_ps();
  const bool whole_lines = kVectors == 2 && p.c.narrow && !p.c.add;
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    const __m512 factor = _mm512_set1_ps(p.factors ? p.factors[row + r] : p.factor);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_fmadd_ps(sum[r][v], factor, bias[v]);
    if (whole_lines) {
      const __m512bh both = _mm512_cvtne2ps_pbh(sum[r][kVectors - 1], sum[r][0]);
      _mm512_storeu_si512(p.c.narrow + (row + r) * p.c.stride + col, (__m512i)both);
      continue;
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(p.c, row + r, col + v * kLanes, sum[r][v]);
  }
}

constexpr int kTileRows = 12;

template <int kVectors, int R = kTileRows>
DINO_AVX512_BF16_INLINE void tile_of(int64_t rows, const Product& p, int64_t row, int64_t col) {
  if (rows == R) return tile<R, kVectors>(p, row, col);
  if constexpr (R > 1) tile_of<kVectors, R - 1>(rows, p, row, col);
}

inline DINO_AVX512_BF16 void multiply(const Product& p) {
  const int64_t tiles = (p.rows + kTileRows - 1) / kTileRows;
  for (int64_t col = 0; col < p.cols; col += 2 * kLanes)
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = p.rows * i / tiles, rows = p.rows * (i + 1) / tiles - row;
      if (p.cols - col > kLanes) tile_of<2>(rows, p, row, col);
      else tile_of<1>(rows, p, row, col);
    }
}

/// Σ x · y; `dim` is a multiple of 32.
DINO_AVX512_BF16_INLINE float dot(const BFloat16* x, const BFloat16* y, int64_t dim) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t col = 0; col < dim; col += 2 * kLanes)
    sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(x + col), (__m512bh)_mm512_loadu_si512(y + col));
  return _mm512_reduce_add_ps(sum);
}

}  // namespace dino::bf16_pairs
