#include <cstdio>
#include <fstream>
#include <ostream>
#include <stdexcept>

#include "count/roofline.h"

namespace emulator::roofline {
namespace {

constexpr const char* kUsage = "usage: cuda_roofline COUNTERS.json [--ptxas FILE] [--gpu NAME]\n";

template <class... T>
std::string format(const char* pattern, T... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string size_text(const std::array<std::uint64_t, 3>& size) {
  return std::to_string(size[0]) + "x" + std::to_string(size[1]) + "x" + std::to_string(size[2]);
}

void print_kernel(std::ostream& out, const Gpu& gpu, const Work& kernel, const Resources* resources) {
  const int registers = resources ? resources->registers : static_cast<int>(kernel.registers);
  const Occupancy occupancy = occupancy_of(gpu, kernel, registers, kernel.shared_bytes);
  out << kernel.name << "\n  grid " << size_text(kernel.grid) << ", block " << size_text(kernel.block)
      << format(", %.0f launches\n", kernel.launches);
  out << "  " << registers << (resources ? " registers (ptxas)" : " registers (estimate)")
      << format(", %.0f bytes of shared memory", kernel.shared_bytes);
  if (resources)
    out << ", spills " << resources->spill_stores << " bytes stored, " << resources->spill_loads << " loaded";
  out << "\n";
  if (occupancy.blocks == 0) {
    out << "  does not fit on this GPU: too much " << occupancy.limit << " per block\n";
    return;
  }
  out << format(
      "  occupancy estimate: %d blocks per SM (%.0f %%), limited by %s; %llu waves, tail efficiency %.0f "
      "%%\n",
      occupancy.blocks, 100 * occupancy.occupancy, occupancy.limit,
      static_cast<unsigned long long>(occupancy.waves), 100 * occupancy.tail_efficiency);
  const std::vector<Bound> bounds = bounds_of(gpu, kernel);
  const double most = bounds[0].seconds;
  out << format("  time estimate: at least %.3g us per launch, bound by %s; with the tail %.3g us\n",
                most * 1e6, bounds[0].name, most / occupancy.tail_efficiency * 1e6);
  out << "  other estimates:";
  for (std::size_t i = 1; i < bounds.size(); ++i) {
    if (bounds[i].seconds > 0)
      out << format("%s %s %.3g us", i == 1 ? "" : ",", bounds[i].name, bounds[i].seconds * 1e6);
  }
  out << "\n";
}

std::string gpu_names() {
  std::string names;
  for (const Gpu& gpu : gpus()) names += std::string(names.empty() ? "" : ", ") + gpu.name;
  return names;
}

}  // namespace

void print(std::ostream& out, const Gpu& gpu, const std::vector<Work>& kernels,
           const std::map<std::string, Resources>& resources) {
  out << "Estimates for one " << gpu.title
      << ": lower bounds from counted work and public peak rates, not measured times.\n";
  for (const Work& kernel : kernels) {
    const auto known = resources.find(kernel.mangled);
    out << "\n";
    print_kernel(out, gpu, kernel, known == resources.end() ? nullptr : &known->second);
  }
}

int run(std::span<const std::string> arguments, std::ostream& out, std::ostream& error) {
  std::string counters, ptxas, name = "h100";
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const bool takes_value = argument == "--ptxas" || argument == "--gpu";
    if ((takes_value && i + 1 == arguments.size()) ||
        (!takes_value && (argument.starts_with("-") || !counters.empty()))) {
      error << "cuda_roofline: " << argument << ": unexpected\n" << kUsage;
      return 2;
    }
    if (argument == "--ptxas")
      ptxas = arguments[++i];
    else if (argument == "--gpu")
      name = arguments[++i];
    else
      counters = argument;
  }
  if (counters.empty()) {
    error << kUsage;
    return 2;
  }
  const Gpu* gpu = find_gpu(name);
  if (!gpu) {
    error << "cuda_roofline: --gpu: expected one of " << gpu_names() << "; found " << name << "\n";
    return 2;
  }
  try {
    std::map<std::string, Resources> resources;
    if (!ptxas.empty()) {
      std::ifstream file(ptxas);
      if (!file) throw std::runtime_error(ptxas + ": cannot be opened");
      resources = read_ptxas(file);
    }
    print(out, *gpu, read_counters(counters), resources);
  } catch (const std::exception& problem) {
    error << "cuda_roofline: " << problem.what() << "\n";
    return 2;
  }
  return 0;
}

}  // namespace emulator::roofline
