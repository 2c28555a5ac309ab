#pragma once

#include "kernels/device_math.cuh"

namespace dino::cuda {

/// Stores N elements in one access. Of the stores that store() asks for, nvcc 13.0 splits some into their elements.
template <int N>
__device__ void store_whole(float* to, const float (&from)[N]) {
  if constexpr (N == 4)
    asm volatile("st.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(from[0]), "f"(from[1]), "f"(from[2]), "f"(from[3])
                 : "memory");
  else
    store(to, from);
}
template <int N>
__device__ void store_whole(bf16* to, const float (&from)[N]) {
  if constexpr (N == 4) {
    const __nv_bfloat162 low = __floats2bfloat162_rn(from[0], from[1]), high = __floats2bfloat162_rn(from[2], from[3]);
    asm volatile("st.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(reinterpret_cast<const unsigned&>(low)),
                 "r"(reinterpret_cast<const unsigned&>(high))
                 : "memory");
  } else {
    store(to, from);
  }
}

}  // namespace dino::cuda
