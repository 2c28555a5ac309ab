#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/error.h"

namespace dino::cuda {

/// Throws Error "what: CUDA's words" unless `status` is success.
void check(cudaError_t status, const char* what);

/// Checks the launch before, and waits for the kernel if DINO_CUDA_SYNC=1 asks to pin down which one failed.
void check_launch(const CudaStream& stream, const char* kernel);

/// Blocks, threads of a block, and dynamic shared memory in bytes.
struct Grid {
  dim3 blocks;
  dim3 threads;
  size_t shared_bytes = 0;
};

/// Starts `kernel`, the one place where kernels are started. More than 48 KiB of shared memory are asked for as CUDA
/// wants it. Nothing is started for an empty grid. Throws Error that names the kernel.
template <class... Parameters, class... Arguments>
void launch(CudaStream& stream, const char* name, void (*kernel)(Parameters...), const Grid& grid, Arguments&&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  if (grid.shared_bytes > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared_bytes)), name);
  kernel<<<grid.blocks, grid.threads, grid.shared_bytes, stream.handle()>>>(static_cast<Parameters>(arguments)...);
  check_launch(stream, name);
}

/// The number of blocks for `items` with `per_block` of them each.
inline unsigned blocks_for(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  dino::check(blocks < int64_t{1} << 31, "cuda: ", items, " items are too many for one launch");
  return static_cast<unsigned>(blocks);
}

}  // namespace dino::cuda
