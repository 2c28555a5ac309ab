#pragma once

#include "kernels/device_math.cuh"

/// How a matrix with many columns is gone through where something belongs to its columns: a block takes a strip of them, in
/// registers what belongs to them, and its warps take the rows, eight in a row. So the matrix and what belongs to its columns are
/// read once, and what belongs to eight rows is one access.
namespace dino::cuda {

constexpr int kStripThreads = 256;
constexpr int kStripWarps = kStripThreads / 32;
constexpr int kStripRows = 8;
constexpr int kStripPacks = 2;  // of a lane

/// The strip of this block, in packs of N columns.
template <int N>
struct Strip {
  static constexpr int kColumns = 32 * N * kStripPacks;
  int64_t begin, dim;

  __device__ explicit Strip(int64_t dim) : begin(int64_t{blockIdx.x} * kColumns), dim(dim) {}

  /// Calls f(i, first column) for pack i of this lane, for those that there are.
  template <class F>
  __device__ void for_packs(const F& f) const {
#pragma unroll
    for (int i = 0; i < kStripPacks; ++i)
      if (const int64_t column = begin + (i * 32 + static_cast<int>(threadIdx.x) % 32) * N; column < dim) f(i, column);
  }
};

/// Calls f(first, count) for the rows of this warp, up to eight at a time.
template <class F>
__device__ void for_strip_rows(int64_t rows, const F& f) {
  for (int64_t first = static_cast<int>(threadIdx.x) / 32 * kStripRows; first < rows; first += kStripWarps * kStripRows)
    f(first, static_cast<int>(min(rows - first, int64_t{kStripRows})));
}

/// What belongs to the columns of a lane, read once for all warps; packs that there are not stay as they are. All threads of the
/// block take part.
template <int N>
__device__ void load_strip(const Strip<N>& strip, const float* values, float (&to)[kStripPacks][N]) {
  __shared__ alignas(16) float shared[Strip<N>::kColumns];
  for (int column = threadIdx.x; column < Strip<N>::kColumns && strip.begin + column < strip.dim; column += kStripThreads)
    shared[column] = values[strip.begin + column];
  __syncthreads();
  strip.for_packs([&](int i, int64_t column) { load(shared + (column - strip.begin), to[i]); });
}

/// Stores a pack of global memory as one access, by name: in the loops above the compiler would make N stores of it, each of which
/// touches all its sectors.
template <int N>
__device__ void store_pack(float* to, const float (&from)[N]) {
  if constexpr (N == 4)
    __stwb(reinterpret_cast<float4*>(to), make_float4(from[0], from[1], from[2], from[3]));
  else
    store(to, from);
}

template <int N>
int64_t strips_of(int64_t dim) {
  return (dim + Strip<N>::kColumns - 1) / Strip<N>::kColumns;
}

}  // namespace dino::cuda
