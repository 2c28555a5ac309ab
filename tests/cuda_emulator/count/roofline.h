#pragma once

#include <array>
#include <cstdint>
#include <iosfwd>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// Lower bounds for the time of kernels on a GPU, from the counters of the emulator. Estimates: nothing here
/// knows latencies, caches or clocks under load.
namespace emulator::roofline {

struct Gpu {
  const char* name;
  const char* title;
  int sms;
  double clock_ghz;  // boost
  double hbm_gbps;   // device memory, 1e9 bytes/s
  double l2_gbps;    // reads that hit the second-level cache, 1e9 bytes/s; measured by others or scaled, see
                     // roofline.cpp
  double tensor_tflops;                    // bf16, dense, accumulated in fp32
  int fp32_lanes;                          // per SM
  int max_threads, max_warps, max_blocks;  // per SM
  int registers;                           // per SM
  int shared_kib, shared_per_block_kib,
      reserved_shared;  // per SM; the most that one block may use; bytes that the system takes per block
};
std::span<const Gpu> gpus();
const Gpu* find_gpu(const std::string& name);

/// One record of the counters, per launch.
struct Work {
  std::string name, mangled;
  std::array<std::uint64_t, 3> grid{}, block{};
  double launches = 0, shared_bytes = 0, registers = 0;
  double warp_instructions = 0, special_ops = 0, fp32_ops = 0, tensor_flops = 0;
  double sectors = 0, compulsory_bytes = 0;
  double shared_wavefronts = 0, atomic_serialized = 0;
};
/// Reads counters_json(). Throws std::runtime_error "path: what" for anything else.
std::vector<Work> read_counters(const std::string& path);

/// What `ptxas -v` says of an entry function.
struct Resources {
  int registers = 0, spill_stores = 0, spill_loads = 0;  // registers per thread; bytes
  std::int64_t shared = 0;                               // static, bytes
};
/// By mangled name.
std::map<std::string, Resources> read_ptxas(std::istream& text);

struct Occupancy {
  int blocks = 0;          // per SM; 0: does not fit
  const char* limit = "";  // the resource that allows no more
  double occupancy = 0;    // warps / most warps
  std::uint64_t waves = 0;
  double tail_efficiency = 0;  // blocks / (waves * blocks that fit at once)
};
Occupancy occupancy_of(const Gpu& gpu, const Work& kernel, int registers, double shared_bytes);

struct Bound {
  const char* name;
  double seconds;
};
/// All bounds of one launch, the binding one first. Without the tail: divide by Occupancy::tail_efficiency.
std::vector<Bound> bounds_of(const Gpu& gpu, const Work& kernel);

void print(std::ostream& out, const Gpu& gpu, const std::vector<Work>& kernels,
           const std::map<std::string, Resources>& resources);

/// The program: cuda_roofline COUNTERS.json [--ptxas FILE] [--gpu NAME]. Returns the exit code: 0, or 2 for
/// wrong usage or files.
int run(std::span<const std::string> arguments, std::ostream& out, std::ostream& error);

}  // namespace emulator::roofline
