#include "abi/launch.h"

#include <cstring>

#include "abi/capture.h"

namespace emulator::abi {
namespace {

std::string text_of(const dim3& size) {
  return "(" + std::to_string(size.x) + "," + std::to_string(size.y) + "," + std::to_string(size.z) + ")";
}

std::uint64_t volume(const dim3& size) { return static_cast<std::uint64_t>(size.x) * size.y * size.z; }

cudaError_t check_dimensions(const LaunchRequest& request, const std::string& kernel) {
  const std::uint32_t grid[3] = {request.grid.x, request.grid.y, request.grid.z},
                      block[3] = {request.block.x, request.block.y, request.block.z};
  bool fits = volume(request.block) <= static_cast<std::uint64_t>(kMaxThreadsPerBlock);
  for (int axis = 0; axis < 3; ++axis) {
    fits = fits && grid[axis] > 0 && block[axis] > 0 && grid[axis] <= kMaxGrid[axis] &&
           block[axis] <= kMaxBlock[axis];
  }
  if (fits) return cudaSuccess;
  return broken_rule(cudaErrorInvalidConfiguration,
                     "launch of " + kernel + ": grid " + text_of(request.grid) + " or block " +
                         text_of(request.block) + " is empty or larger than the device allows");
}

/// __launch_bounds__, required block sizes, shared memory.
cudaError_t check_kernel(const LaunchRequest& request, const Function& function) {
  const KernelInfo& kernel = info(*function.kernel);
  const std::string start = "launch of " + kernel.demangled + ": ";
  const std::uint64_t threads = volume(request.block);
  const std::uint64_t most = static_cast<std::uint64_t>(kernel.max_threads[0]) *
                             std::max(1u, kernel.max_threads[1]) * std::max(1u, kernel.max_threads[2]);
  if (most > 0 && threads > most) {
    return broken_rule(cudaErrorInvalidValue, start + std::to_string(threads) +
                                                  " threads per block, but __launch_bounds__ says " +
                                                  std::to_string(most));
  }
  const dim3 required(kernel.required_threads[0], std::max(1u, kernel.required_threads[1]),
                      std::max(1u, kernel.required_threads[2]));
  if (required.x > 0 &&
      (request.block.x != required.x || request.block.y != required.y || request.block.z != required.z)) {
    return broken_rule(cudaErrorInvalidValue, start + "block " + text_of(request.block) +
                                                  ", but the kernel requires " + text_of(required));
  }
  if (request.shared > static_cast<std::uint64_t>(function.max_dynamic_shared) ||
      kernel.static_shared + request.shared > device_model().shared_per_block_optin ||
      (function.max_dynamic_shared <= static_cast<int>(device_model().shared_per_block) &&
       kernel.static_shared + request.shared > device_model().shared_per_block)) {
    return broken_rule(cudaErrorInvalidValue,
                       start + std::to_string(request.shared) + " bytes of dynamic and " +
                           std::to_string(kernel.static_shared) + " of static shared memory; allowed are " +
                           std::to_string(function.max_dynamic_shared) +
                           " of dynamic memory (cudaFuncSetAttribute) and " +
                           std::to_string(device_model().shared_per_block_optin) + " in all");
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t prepare(const void* pointer, const LaunchRequest& request, void** arguments, KernelCall& call) {
  if (const cudaError_t error = loaded_function(pointer, call.function)) return error;
  const KernelInfo& kernel = info(*call.function->kernel);
  if (!kernel.unsupported.empty())
    return broken_rule(cudaErrorNotSupported,
                       "kernel " + kernel.demangled + " cannot run: " + kernel.unsupported);
  if (const cudaError_t error = check_dimensions(request, kernel.demangled)) return error;
  if (const cudaError_t error = check_kernel(request, *call.function)) return error;
  if (request.cooperative) {
    const int per_multiprocessor =
        resident_blocks(*call.function, static_cast<int>(volume(request.block)), request.shared);
    const std::uint64_t most = static_cast<std::uint64_t>(per_multiprocessor) *
                               static_cast<std::uint64_t>(device_model().multiprocessors);
    if (volume(request.grid) > most) {
      return broken_rule(cudaErrorCooperativeLaunchTooLarge, "cooperative launch of " + kernel.demangled +
                                                                 ": " + std::to_string(volume(request.grid)) +
                                                                 " blocks, but " + std::to_string(most) +
                                                                 " are resident at once");
    }
  }
  const dim3 grid = request.grid, block = request.block;
  call.config = {{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, request.shared, request.cooperative};
  call.params.assign(kernel.param_bytes, 0);
  EMULATOR_REQUIRE(arguments || kernel.params.empty());
  for (std::size_t i = 0; i < kernel.params.size(); ++i) {
    EMULATOR_REQUIRE(arguments[i]);
    std::memcpy(call.params.data() + kernel.params[i].offset, arguments[i], kernel.params[i].bytes);
  }
  return cudaSuccess;
}

namespace {

cudaError_t launch_now(Lock& lock, const void* function, const LaunchRequest& request, void** arguments,
                       cudaStream_t handle) {
  KernelCall call;
  if (const cudaError_t error = prepare(function, request, arguments, call)) return error;
  Stream* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  return submit(lock, *stream, std::move(call));
}

cudaError_t read_attribute(const cudaLaunchAttribute& attribute, LaunchRequest& request) {
  const cudaLaunchAttributeValue& value = attribute.val;
  switch (attribute.id) {
    case cudaLaunchAttributeCooperative:
      request.cooperative = value.cooperative != 0;
      return cudaSuccess;
    case cudaLaunchAttributeClusterDimension:
      if (value.clusterDim.x == 1 && value.clusterDim.y == 1 && value.clusterDim.z == 1) return cudaSuccess;
      return not_supported("a cluster of more than one block");
    case cudaLaunchAttributePreferredClusterDimension:
      return not_supported("a preferred cluster dimension");
    case cudaLaunchAttributeProgrammaticEvent:
    case cudaLaunchAttributeLaunchCompletionEvent:
      return not_supported("a launch attribute with an event");
    case cudaLaunchAttributeDeviceUpdatableKernelNode:
      return not_supported("a kernel node that the device updates");
    // Hints, and promises that running kernels one after the other keeps.
    case cudaLaunchAttributeIgnore:
    case cudaLaunchAttributeAccessPolicyWindow:
    case cudaLaunchAttributeSynchronizationPolicy:
    case cudaLaunchAttributeClusterSchedulingPolicyPreference:
    case cudaLaunchAttributeProgrammaticStreamSerialization:
    case cudaLaunchAttributePriority:
    case cudaLaunchAttributeMemSyncDomainMap:
    case cudaLaunchAttributeMemSyncDomain:
    case cudaLaunchAttributePreferredSharedMemoryCarveout:
    case cudaLaunchAttributeNvlinkUtilCentricScheduling:
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}

/// What <<<>>> hands from __cudaPushCallConfiguration to the stub.
struct PendingLaunch {
  dim3 grid, block;
  std::size_t shared;
  cudaStream_t stream;
};
std::vector<PendingLaunch>& pending_launches() {
  thread_local std::vector<PendingLaunch> pending;
  return pending;
}

}  // namespace
}  // namespace emulator::abi

using namespace emulator::abi;

#pragma GCC visibility push(default)
extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  pending_launches().push_back({grid, block, shared, stream});
  return 0;  // non-zero would skip the launch
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (pending_launches().empty()) return leave("__cudaPopCallConfiguration", cudaErrorMissingConfiguration);
  const PendingLaunch launch = pending_launches().back();
  pending_launches().pop_back();
  *grid = launch.grid;
  *block = launch.block;
  *shared = launch.shared;
  *static_cast<cudaStream_t*>(stream) = launch.stream;
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
}
#pragma GCC visibility pop

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
  return api("cudaLaunchKernel", [&](Lock& lock) {
    return launch_now(lock, function, {grid, block, shared, false}, arguments, stream);
  });
}

cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                                        size_t shared, cudaStream_t stream) {
  return api("cudaLaunchCooperativeKernel", [&](Lock& lock) {
    return launch_now(lock, function, {grid, block, shared, true}, arguments, stream);
  });
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return api("cudaLaunchKernelExC", [&](Lock& lock) -> cudaError_t {
    EMULATOR_REQUIRE(config && (config->attrs || config->numAttrs == 0));
    LaunchRequest request{config->gridDim, config->blockDim, config->dynamicSmemBytes, false};
    for (unsigned i = 0; i < config->numAttrs; ++i) {
      if (const cudaError_t error = read_attribute(config->attrs[i], request)) return error;
    }
    return launch_now(lock, function, request, arguments, config->stream);
  });
}
