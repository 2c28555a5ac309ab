#include <algorithm>
#include <climits>

#include "abi/launch.h"

// The rules of NVIDIA's occupancy calculator: threads, blocks, registers (per warp in units of 256, four
// partitions) and shared memory.
namespace emulator::abi {
namespace {

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) { return (value + unit - 1) / unit * unit; }

constexpr int kPartitions = 4;
constexpr std::uint64_t kSharedUnit = 128, kRegisterUnit = 256;

std::uint64_t shared_of_block(const Function& function, std::uint64_t dynamic_shared) {
  return round_up(
      info(*function.kernel).static_shared + dynamic_shared + device_model().reserved_shared_per_block,
      kSharedUnit);
}

int limit_of_registers(int registers, int warps) {
  if (registers <= 0) return INT_MAX;
  const int per_warp =
      static_cast<int>(round_up(static_cast<std::uint64_t>(registers) * kWarp, kRegisterUnit));
  const int resident_warps = kRegistersPerMultiprocessor / kPartitions / per_warp * kPartitions;
  return resident_warps / warps;
}

/// Registers as ptxas would limit them to fit the block size that __launch_bounds__ promises.
int registers_of(const KernelInfo& kernel) {
  int most = 255;
  const std::uint32_t threads =
      kernel.max_threads[0] * std::max(1u, kernel.max_threads[1]) * std::max(1u, kernel.max_threads[2]);
  if (threads > 0)
    most = std::min(
        most, kRegistersPerMultiprocessor / static_cast<int>(round_up(threads, kWarp * kPartitions)) / 8 * 8);
  return std::min(kernel.registers, most);
}

}  // namespace

int resident_blocks(const Function& function, int threads, std::uint64_t dynamic_shared) {
  const DeviceModel& device = device_model();
  const int warps = (threads + kWarp - 1) / kWarp;
  const int of_threads = kMaxThreadsPerMultiprocessor / (warps * kWarp);
  const auto of_shared =
      static_cast<int>(device.shared_per_multiprocessor / shared_of_block(function, dynamic_shared));
  return std::min({of_threads, device.max_blocks_per_multiprocessor, of_shared,
                   limit_of_registers(registers_of(info(*function.kernel)), warps)});
}

}  // namespace emulator::abi

using namespace emulator::abi;
using emulator::info;

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* pointer, int threads,
                                                          size_t dynamic_shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, pointer, threads, dynamic_shared,
                                                                cudaOccupancyDefault);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* pointer,
                                                                   int threads, size_t dynamic_shared,
                                                                   unsigned) {
  return api("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(blocks && threads > 0);
    Function* function = nullptr;
    if (const cudaError_t error = loaded_function(pointer, function)) return error;
    const std::uint64_t most = device_model().shared_per_block_optin;
    const bool fits =
        threads <= kMaxThreadsPerBlock && info(*function->kernel).static_shared + dynamic_shared <= most;
    *blocks = fits ? resident_blocks(*function, threads, dynamic_shared) : 0;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, const void* pointer, int blocks,
                                                      int threads) {
  return api("cudaOccupancyAvailableDynamicSMemPerBlock", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(bytes && blocks > 0 && threads > 0 && threads <= kMaxThreadsPerBlock);
    Function* function = nullptr;
    if (const cudaError_t error = loaded_function(pointer, function)) return error;
    if (resident_blocks(*function, threads, 0) < blocks) return cudaErrorInvalidValue;
    const DeviceModel& device = device_model();
    const std::uint64_t share =
        device.shared_per_multiprocessor / static_cast<std::uint64_t>(blocks) / kSharedUnit * kSharedUnit;
    const std::uint64_t taken = device.reserved_shared_per_block + info(*function->kernel).static_shared;
    *bytes = share < taken ? 0
                           : std::min(share - taken,
                                      device.shared_per_block_optin - info(*function->kernel).static_shared);
    return cudaSuccess;
  });
}
