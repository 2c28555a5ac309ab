#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Loading of PTX modules and execution of kernels: what the run-time library needs of the machine below it.
namespace emulator {

/// A kernel as the run-time sees it.
struct KernelInfo {
  std::string name;  // as in the PTX
  std::string demangled;
  struct Param {
    std::uint64_t offset, bytes;
  };
  std::vector<Param> params;
  std::uint64_t param_bytes = 0;
  std::uint64_t static_shared = 0;  // bytes
  std::uint64_t local_bytes = 0;    // per thread
  std::uint64_t constant_bytes = 0;
  int registers = 0;  // 32-bit registers per thread after allocation, an estimate of what ptxas would need
  std::uint32_t max_threads[3] = {0, 0, 0};  // of __launch_bounds__; 0: none
  std::uint32_t required_threads[3] = {0, 0, 0};
  int target = 0;           // 80 or 90
  std::string unsupported;  // why it cannot run ("mma.sp…: unknown instruction, PTX line 12"); empty: it can
};

struct Kernel;  // decoded

/// A module's variable that host code may name (cudaMemcpyToSymbol).
struct VariableInfo {
  std::string name;
  std::uint64_t address = 0;  // of the device
  std::uint64_t bytes = 0;
  bool constant = false;
};

/// One PTX module: parsed, decoded, its variables placed and initialised in device memory.
class LoadedModule {
 public:
  /// Parses and decodes. Throws ptx::Error if the text cannot be parsed; kernels that use what the emulator
  /// does not know are kept with `unsupported` set.
  explicit LoadedModule(std::string_view ptx);
  ~LoadedModule();
  const Kernel* kernel(const std::string& name) const;  // null: none
  const VariableInfo* variable(const std::string& name) const;
  std::vector<const Kernel*> kernels() const;

  struct Content;
  const Content& content() const { return *content_; }

 private:
  std::unique_ptr<Content> content_;
};

const KernelInfo& info(const Kernel& kernel);

struct LaunchConfig {
  std::uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  std::uint64_t dynamic_shared = 0;  // bytes
  bool cooperative = false;          // all blocks are resident at once, grid barriers work
};

/// What a launch did to the device: 0 or the cudaError_t of a sticky error (700 illegal address, 716
/// misaligned address, 710 assert, 719 launch failure, …).
struct LaunchResult {
  int error = 0;
};

/// Runs a kernel to its end on the calling thread plus worker threads. Findings are reported as they happen.
/// The caller has checked the launch limits. Only one launch runs at a time (the caller holds the device
/// lock).
LaunchResult run_kernel(const Kernel& kernel, const LaunchConfig& config,
                        std::span<const std::uint8_t> params);

/// How the emulator behaves; read once from the environment (docs/cuda_without_a_gpu.md lists the variables).
struct Options {
  int threads = 0;  // CUDA_EMULATOR_THREADS: worker threads; 0: one per core
  int arch = 90;    // CUDA_EMULATOR_ARCH=80|90: the PTX that is picked, and the device that is imitated
  enum class Order {
    forward,
    reverse,
    random
  } order = Order::forward;  // CUDA_EMULATOR_ORDER=forward|reverse|random
  std::uint64_t seed = 1;    // CUDA_EMULATOR_SEED: of random orders and noise
  enum class Streams {
    eager,
    late,
    random
  } streams = Streams::eager;  // CUDA_EMULATOR_STREAMS=eager|late|random
  bool noise = false;  // CUDA_EMULATOR_NOISE=1: approximate instructions and tensor cores deviate within
                       // documented bounds
  bool memory_check = true;  // CUDA_EMULATOR_CHECK=memory,init,barrier,race,async (list; "all", "none";
                             // default memory,init,barrier,async)
  bool init_check = true;
  bool barrier_check = true;
  bool race_check = false;
  bool async_check = true;
  std::string counters;  // CUDA_EMULATOR_COUNTERS=FILE.json: count and write at exit
  std::string report;    // CUDA_EMULATOR_REPORT=FILE.json: findings, written at exit
  bool fail_on_findings =
      false;           // CUDA_EMULATOR_FAIL=1: the process ends with status 86 if anything was found
  bool trace = false;  // CUDA_EMULATOR_TRACE=1: one line on stderr per call and launch
};
const Options& options();

}  // namespace emulator
