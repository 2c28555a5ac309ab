#pragma once

/// The one header with preprocessor conditions for CUDA: what may run on both sides is marked
/// DINO_HOST_DEVICE, and `kWithCuda` says whether this build has CUDA kernels.

#if defined(__CUDACC__)
#define DINO_HOST_DEVICE __host__ __device__
#else
#define DINO_HOST_DEVICE
#endif

namespace dino {

/// Where memory lies and computing happens. `plan` is nowhere: memory there has addresses and sizes but cannot be touched,
/// and ops are not executed, so that it takes no time to find out how much memory something needs.
enum class Device : unsigned char { cpu, cuda, plan };

#if defined(DINO_WITH_CUDA)
inline constexpr bool kWithCuda = true;
#else
inline constexpr bool kWithCuda = false;
#endif

}  // namespace dino
