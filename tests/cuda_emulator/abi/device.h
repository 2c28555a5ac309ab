#pragma once

#include <cstdint>

namespace emulator::abi {

/// The numbers of the imitated device that limits and occupancy depend on. Source: CUDA C++ Programming
/// Guide, "Compute Capabilities"; H100 SXM5 and A100 SXM4 data sheets.
struct DeviceModel {
  const char* name;
  int major, minor;
  int multiprocessors;
  int clock_khz, memory_clock_khz, memory_bus_bits;
  int l2_bytes, persisting_l2_bytes;
  int max_blocks_per_multiprocessor;
  std::uint64_t shared_per_block;  // without opting in
  std::uint64_t shared_per_block_optin;
  std::uint64_t shared_per_multiprocessor;
  std::uint64_t reserved_shared_per_block;
};
const DeviceModel& device_model();

constexpr int kMaxThreadsPerBlock = 1024, kMaxThreadsPerMultiprocessor = 2048,
              kRegistersPerMultiprocessor = 65536, kWarp = 32;
constexpr std::uint32_t kMaxBlock[3] = {1024, 1024, 64};
constexpr std::uint32_t kMaxGrid[3] = {2147483647, 65535, 65535};

}  // namespace emulator::abi
