#include "count/roofline.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <stdexcept>

namespace emulator::roofline {
namespace {

// Public data sheets and architecture white papers of NVIDIA: "H100 Tensor Core GPU" data sheet and Hopper
// white paper; "A100 80GB" data sheet and Ampere white paper; "H200 Tensor Core GPU" data sheet; "L4" and
// "L40S" data sheets; Ada white paper (RTX 4090). Limits per SM: CUDA C++ Programming Guide, technical
// specifications per compute capability (8.0, 8.9, 9.0). Clocks are boost clocks, tensor rates are without
// sparsity. Bandwidth of the second-level cache: A100 5120 bytes per clock (white paper); H100 and RTX 4090
// as others have measured it (Chips and Cheese 2022, 2023), L4 and L40S scaled from the RTX 4090 by SMs and
// clock. These are the least certain numbers here.
constexpr std::array kGpus = {
    //   name      title           SMs  GHz    HBM     L2      tensor  fp32 threads warps blocks registers
    //   shared  block reserved
    Gpu{"h100", "H100 SXM", 132, 1.980, 3350.0, 5500.0, 989.4, 128, 2048, 64, 32, 65536, 228, 227, 1024},
    Gpu{"h200", "H200 SXM", 132, 1.980, 4800.0, 5500.0, 989.4, 128, 2048, 64, 32, 65536, 228, 227, 1024},
    Gpu{"a100", "A100 SXM 80", 108, 1.410, 2039.0, 7219.0, 311.9, 64, 2048, 64, 32, 65536, 164, 163, 1024},
    Gpu{"rtx4090", "GeForce 4090", 128, 2.520, 1008.0, 5000.0, 165.2, 128, 1536, 48, 24, 65536, 100, 99,
        1024},
    Gpu{"l40s", "L40S", 142, 2.520, 864.0, 5500.0, 362.1, 128, 1536, 48, 24, 65536, 100, 99, 1024},
    Gpu{"l4", "L4", 58, 2.040, 300.0, 1830.0, 121.0, 128, 1536, 48, 24, 65536, 100, 99, 1024},
};

// Per SM and clock, the same on all of them (Programming Guide, arithmetic instruction throughput).
constexpr double kIssueSlots = 4, kSpecialOps = 16, kSharedWavefronts = 1;

std::uint64_t product(const std::array<std::uint64_t, 3>& size) { return size[0] * size[1] * size[2]; }

int round_up(int value, int step) { return (value + step - 1) / step * step; }

Work kernel_of(const nlohmann::json& json) {
  Work kernel;
  kernel.name = json.at("name");
  kernel.mangled = json.at("mangled");
  for (std::size_t i = 0; i < 3; ++i) {
    kernel.grid[i] = json.at("grid").at(i);
    kernel.block[i] = json.at("block").at(i);
  }
  kernel.launches = json.at("launches");
  if (kernel.launches < 1 || product(kernel.grid) == 0 || product(kernel.block) == 0)
    throw std::runtime_error("a kernel without launches or threads");
  kernel.shared_bytes = json.at("dynamic_shared").get<double>() + json.at("static_shared").get<double>();
  kernel.registers = json.at("registers_estimate");
  const auto per_launch = [&](const nlohmann::json& value) { return value.get<double>() / kernel.launches; };
  kernel.warp_instructions = per_launch(json.at("warp_instructions"));
  kernel.special_ops = per_launch(json.at("special_function_ops"));
  kernel.fp32_ops = per_launch(json.at("fp32_ops"));
  kernel.tensor_flops = per_launch(json.at("tensor_flops"));
  for (const char* traffic :
       {"global_loads", "global_stores", "global_atomics", "local_loads", "local_stores"})
    kernel.sectors += per_launch(json.at(traffic).at("sectors"));
  kernel.compulsory_bytes = per_launch(json.at("compulsory").at("read_bytes")) +
                            per_launch(json.at("compulsory").at("written_bytes"));
  for (const char* traffic : {"shared_loads", "shared_stores", "matrix_loads", "matrix_stores"})
    kernel.shared_wavefronts += per_launch(json.at(traffic).at("wavefronts"));
  kernel.shared_wavefronts += per_launch(json.at("shared_atomics").at("serialized"));
  kernel.atomic_serialized = per_launch(json.at("global_atomics").at("serialized"));
  return kernel;
}

}  // namespace

std::span<const Gpu> gpus() { return kGpus; }

const Gpu* find_gpu(const std::string& name) {
  const auto found =
      std::find_if(kGpus.begin(), kGpus.end(), [&](const Gpu& gpu) { return name == gpu.name; });
  return found == kGpus.end() ? nullptr : &*found;
}

std::vector<Work> read_counters(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  try {
    std::vector<Work> kernels;
    const nlohmann::json counters = nlohmann::json::parse(file);
    for (const nlohmann::json& kernel : counters.at("kernels")) kernels.push_back(kernel_of(kernel));
    return kernels;
  } catch (const std::exception& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}

std::map<std::string, Resources> read_ptxas(std::istream& text) {
  static const std::regex entry("Compiling entry function '([^']+)'"),
      function("Function properties for (\\S+)"),
      spills("(\\d+) bytes spill stores, (\\d+) bytes spill loads"), registers("Used (\\d+) registers"),
      shared("(\\d+) bytes smem");
  std::map<std::string, Resources> result;
  std::string current, described;  // the entry being compiled; the function whose stack is described
  std::smatch match;
  for (std::string line; std::getline(text, line);) {
    if (std::regex_search(line, match, entry)) current = described = match[1];
    if (std::regex_search(line, match, function)) described = match[1];
    if (current.empty()) continue;
    Resources& resources = result[current];
    if (described == current && std::regex_search(line, match, spills)) {
      resources.spill_stores = std::stoi(match[1]);
      resources.spill_loads = std::stoi(match[2]);
    }
    if (std::regex_search(line, match, registers)) resources.registers = std::stoi(match[1]);
    if (std::regex_search(line, match, shared)) resources.shared = std::stoll(match[1]);
  }
  return result;
}

Occupancy occupancy_of(const Gpu& gpu, const Work& kernel, int registers, double shared_bytes) {
  const auto threads = static_cast<int>(product(kernel.block));
  const int warps = (threads + 31) / 32;
  Occupancy result;
  result.blocks = gpu.max_blocks;
  result.limit = "blocks";
  const auto limit = [&](int blocks, const char* name) {
    if (blocks >= result.blocks) return;
    result.blocks = blocks;
    result.limit = name;
  };
  limit(gpu.max_warps / warps, "threads");
  if (registers > 0) {
    // Registers are given to warps in pieces of 256, and warps to the four quarters of an SM.
    const int warps_that_fit = gpu.registers / 4 / round_up(registers * 32, 256) * 4;
    limit(warps_that_fit / round_up(warps, 4), "registers");
  }
  const double shared = std::ceil((shared_bytes + gpu.reserved_shared) / 128) * 128;
  if (shared_bytes > gpu.shared_per_block_kib * 1024.0)
    limit(0, "shared memory");
  else
    limit(static_cast<int>(gpu.shared_kib * 1024.0 / shared), "shared memory");

  result.occupancy = static_cast<double>(result.blocks * warps) / gpu.max_warps;
  const std::uint64_t at_once =
                          static_cast<std::uint64_t>(result.blocks) * static_cast<std::uint64_t>(gpu.sms),
                      blocks = product(kernel.grid);
  if (at_once == 0) return result;
  result.waves = (blocks + at_once - 1) / at_once;
  // A grid smaller than one wave is judged by the SMs that it leaves idle.
  const double room = result.waves == 1 ? std::max<double>(gpu.sms, static_cast<double>(blocks))
                                        : static_cast<double>(result.waves * at_once);
  result.tail_efficiency = static_cast<double>(blocks) / room;
  return result;
}

std::vector<Bound> bounds_of(const Gpu& gpu, const Work& kernel) {
  const double clocks = gpu.sms * gpu.clock_ghz * 1e9;  // of all SMs per second
  std::vector<Bound> bounds = {
      {"HBM, compulsory bytes", kernel.compulsory_bytes / (gpu.hbm_gbps * 1e9)},
      {"L2, sector bytes", kernel.sectors * 32 / (gpu.l2_gbps * 1e9)},
      {"shared-memory wavefronts", kernel.shared_wavefronts / (kSharedWavefronts * clocks)},
      {"issue slots", kernel.warp_instructions / (kIssueSlots * clocks)},
      {"tensor cores", kernel.tensor_flops / (gpu.tensor_tflops * 1e12)},
      {"special functions", kernel.special_ops / (kSpecialOps * clocks)},
      {"FP32", kernel.fp32_ops / (gpu.fp32_lanes * clocks)},
      {"atomics", kernel.atomic_serialized / clocks},
  };
  std::stable_sort(bounds.begin(), bounds.end(),
                   [](const Bound& a, const Bound& b) { return a.seconds > b.seconds; });
  return bounds;
}

}  // namespace emulator::roofline
