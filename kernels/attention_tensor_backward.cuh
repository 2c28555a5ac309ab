#pragma once

#include "kernels/attention_tensor.cuh"

/// What both kernels of ∂k and ∂v share.
namespace dino::cuda {

/// Sequences of any length, in two kernels that read q, k, v and ∂o more than once.
void long_attention_backward(CudaStream& stream, AttentionBackward<bf16> task);

namespace tensor {

/// Queries per step.
constexpr int kStepQueries = 32;

/// ∂k and ∂v of the keys of one warp, summed over the queries seen so far. Scores are transposed, keys ×
/// queries, so that they become left operands of the products that give ∂k and ∂v without leaving registers.
template <int Tiles>
struct KeyGradients {
  float dk[Tiles][8][4], dv[Tiles][8][4];
  uint32_t ds[Tiles][2][4];  ///< ∂(scaled scores) of the last step, as left operands: keys × queries

  __device__ void start() {
#pragma unroll
    for (int m = 0; m < Tiles; ++m)
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) dk[m][n][e] = dv[m][n][e] = 0;
  }

  /// s[tile][queries 8j …] = own rows, of which the first is at `own`, times the 32 rows from `others` on.
  static __device__ void multiply(float (&s)[Tiles][4][4], uint32_t own, uint32_t others,
                                  const LanePlaces& places, int tiles, int left) {
#pragma unroll
    for (int m = 0; m < Tiles; ++m)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[m][j][e] = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t a[Tiles][2][4];
#pragma unroll
      for (int m = 0; m < Tiles; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          if (m < tiles)
            ldmatrix(a[m][i], own + m * kTile * kRowBytes + (places.by_row ^ ((2 * half + i) << 5)));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (8 * j >= left) continue;
        uint32_t b[4];
        ldmatrix(b, others + j * 8 * kRowBytes + (places.by_column ^ (half << 6)));
#pragma unroll
        for (int m = 0; m < Tiles; ++m) {
          if (m >= tiles) continue;
          mma(s[m][j], a[m][0], b[0], b[1]);
          mma(s[m][j], a[m][1], b[2], b[3]);
        }
      }
    }
  }

  /// sums += weights, keys × queries, times the 32 rows from `rows` on.
  static __device__ void add_products(float (&sums)[Tiles][8][4], const uint32_t (&weights)[Tiles][2][4],
                                      uint32_t rows, const LanePlaces& places, int tiles, int left) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (16 * i >= left) continue;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        uint32_t b[4];
        ldmatrix_transposed(b, rows + i * 16 * kRowBytes + (places.by_row ^ (c << 5)));
#pragma unroll
        for (int m = 0; m < Tiles; ++m) {
          if (m >= tiles) continue;
          if (16 * i + 8 >= left) {
            mma_half(sums[m][2 * c], weights[m][i], b[0]);
            mma_half(sums[m][2 * c + 1], weights[m][i], b[2]);
          } else {
            mma(sums[m][2 * c], weights[m][i], b[0], b[1]);
            mma(sums[m][2 * c + 1], weights[m][i], b[2], b[3]);
          }
        }
      }
    }
  }

  static __device__ void pack_left(uint32_t (&to)[Tiles][2][4], const float (&from)[Tiles][4][4]) {
#pragma unroll
    for (int m = 0; m < Tiles; ++m)
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          to[m][i][e] = pack(from[m][2 * i + e / 2][e % 2 * 2], from[m][2 * i + e / 2][e % 2 * 2 + 1]);
  }

  /// Takes in 32 queries, or the first `left` of them: rows of q and ∂o from `q` and `grad_o` on; `lse` in
  /// powers of 2 and `delta` of these queries, with lse = ∞ where there is no query. `k` and `v`: the warp's
  /// `keys` rows, zero from there on.
  __device__ void step(uint32_t k, uint32_t v, int keys, uint32_t q, uint32_t grad_o, const float* lse,
                       const float* delta, const LanePlaces& places, float factor, int left) {
    const int tiles = Tiles == 1 || keys > kTile ? Tiles : 1;
    float p[Tiles][4][4], dp[Tiles][4][4];
    multiply(p, k, q, places, tiles, left);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 shift = *reinterpret_cast<const float2*>(lse + 8 * j + lane() % 4 * 2);
#pragma unroll
      for (int m = 0; m < Tiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) p[m][j][e] = exp2_fast(p[m][j][e] * factor - (e % 2 ? shift.y : shift.x));
    }
    if (keys < Tiles * kTile)  // scores of absent keys are not zero
#pragma unroll
      for (int m = 0; m < Tiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (m * kTile + lane() / 4 + e / 2 * 8 >= keys)
#pragma unroll
            for (int j = 0; j < 4; ++j) p[m][j][e] = 0;
    pack_left(ds, p);
    add_products(dv, ds, grad_o, places, tiles, left);
    multiply(dp, v, grad_o, places, tiles, left);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 shift = *reinterpret_cast<const float2*>(delta + 8 * j + lane() % 4 * 2);
#pragma unroll
      for (int m = 0; m < Tiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) p[m][j][e] *= dp[m][j][e] - (e % 2 ? shift.y : shift.x);
    }
    pack_left(ds, p);
    add_products(dk, ds, q, places, tiles, left);
  }

  /// Writes the gradients of keys [first, end), `first` being the warp's.
  __device__ void finish(const AttentionBackward<bf16>& task, const HeadPlace& place, int first,
                         int end) const {
    const float one[2] = {1, 1}, scale[2] = {task.heads.scale, task.heads.scale};
#pragma unroll
    for (int m = 0; m < Tiles; ++m) {
      const int row = first + m * kTile;
      if (row >= end) return;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (task.dk.wanted())
          store_columns(task.dk, place.key, row, end, place.col + 16 * c, dk[m][2 * c], dk[m][2 * c + 1],
                        scale, task.dk.add);
        if (task.dv.wanted())
          store_columns(task.dv, place.key, row, end, place.col + 16 * c, dv[m][2 * c], dv[m][2 * c + 1], one,
                        task.dv.add);
      }
    }
  }
};

}  // namespace tensor
}  // namespace dino::cuda
