#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

/// A warp per row, which it holds in registers: lane l has packs l, l + 32, … of 4 elements, so that every
/// access of the warp is to 512 consecutive bytes of f32 or 256 of bf16. (Packs of 8 bf16 would be 16 bytes,
/// but f32 beside them would then be read in halves of sectors.)
namespace dino::cuda {

constexpr int kPack = 4;
constexpr int kLongestHeldRow = 8 * 32 * kPack;

/// Calls f(i, first column) for the packs of this lane in a row of `packs`, the i-th of which is in value[i].
template <int Count, class F>
__device__ void for_packs(int packs, const F& f) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < Count; ++i)
    if (const int pack = i * 32 + lane; pack < packs) f(i, pack * kPack);
}

/// Calls f(constant) with a number of packs per lane that is enough for rows of `dim` ≤ kLongestHeldRow
/// elements.
template <class F>
void with_pack_count(int64_t dim, F&& f) {
  const int64_t count = (dim + 32 * kPack - 1) / (32 * kPack);
  if (count <= 1) return f(std::integral_constant<int, 1>{});
  if (count <= 2) return f(std::integral_constant<int, 2>{});
  if (count <= 3) return f(std::integral_constant<int, 3>{});
  if (count <= 6) return f(std::integral_constant<int, 6>{});
  return f(std::integral_constant<int, 8>{});
}

/// Whether warps can hold rows of these dense views. Vectors are views of one row.
inline bool fits_registers(std::initializer_list<View> views) {
  for (const View& view : views) {
    if (!view.defined()) continue;
    if (view.cols() % kPack != 0 || view.cols() > kLongestHeldRow) return false;
    if (reinterpret_cast<uintptr_t>(view.data) % (kPack * bytes_of(view.dtype)) != 0) return false;
  }
  return true;
}

}  // namespace dino::cuda
