#pragma once

/// The one header with preprocessor conditions for CUDA: what may run on both sides is marked
/// DINO_HOST_DEVICE, and `kWithCuda` says whether this build has CUDA kernels.

#if defined(__CUDACC__)
#define DINO_HOST_DEVICE __host__ __device__
#else
#define DINO_HOST_DEVICE
#endif

namespace dino {

#if defined(DINO_WITH_CUDA)
inline constexpr bool kWithCuda = true;
#else
inline constexpr bool kWithCuda = false;
#endif

}  // namespace dino
