#include "count/counters.h"

#include <map>
#include <mutex>
#include <tuple>

#include "count/record.h"

namespace emulator {
namespace {

constexpr std::array kClassNames = {
    "integer",     "fp32",        "fp64",          "half",         "special",     "convert",
    "move",        "predicate",   "load_global",   "store_global", "load_shared", "store_shared",
    "load_local",  "store_local", "load_constant", "load_param",   "atomic",      "shuffle",
    "vote",        "barrier",     "fence",         "control",      "call",        "async_copy",
    "matrix_load", "tensor",      "other"};
static_assert(kClassNames.size() == static_cast<std::size_t>(Class::count_));

struct Records {
  using Shape =
      std::tuple<std::string, std::array<std::uint32_t, 3>, std::array<std::uint32_t, 3>, std::uint64_t>;
  std::mutex mutex;
  std::map<Shape, std::size_t> index;
  std::vector<KernelRecord> kernels;
};

Records& records() {
  static Records* records = new Records;  // never destroyed: written by an exit hook
  return *records;
}

std::array<std::uint32_t, 3> triple(const std::uint32_t (&size)[3]) { return {size[0], size[1], size[2]}; }

KernelRecord& record_of(Records& all, const Launch& launch) {
  const std::string& name = launch.kernel ? info(*launch.kernel).name : launch.program->name;
  const Records::Shape shape{name, triple(launch.config.grid), triple(launch.config.block),
                             launch.config.dynamic_shared};
  const auto [found, is_new] = all.index.try_emplace(shape, all.kernels.size());
  if (is_new) {
    KernelRecord& record = all.kernels.emplace_back();
    record.name = record.demangled = name;
    record.grid = triple(launch.config.grid);
    record.block = triple(launch.config.block);
    record.dynamic_shared = launch.config.dynamic_shared;
    if (launch.kernel) {
      const KernelInfo& kernel = info(*launch.kernel);
      record.demangled = kernel.demangled;
      record.static_shared = kernel.static_shared;
      record.local_bytes = kernel.local_bytes;
      record.registers = kernel.registers;
    }
  }
  return all.kernels[found->second];
}

void add_instructions(KernelRecord& record, const LaunchCounts::PerProgram& counts) {
  const Program& program = *counts.program;
  for (std::size_t i = 0; i < counts.executed.size() && i < program.classes.size(); ++i) {
    const auto c = static_cast<std::size_t>(program.classes[i]);
    record.warp_instructions[c] += counts.executed[i];
    record.thread_instructions[c] += counts.lanes[i];
    // aux2 of a matrix product: its floating-point operations / 64.
    if (program.classes[i] == Class::tensor)
      record.tensor_flops += counts.executed[i] * program.code[i].aux2 * 64;
  }
}

}  // namespace

const char* name_of(Class c) { return kClassNames[static_cast<std::size_t>(c)]; }

LaunchCounts::LaunchCounts(const Launch&) : memory(std::make_unique<Memory>()) {}
LaunchCounts::~LaunchCounts() = default;

LaunchCounts::PerProgram& LaunchCounts::of(const Program* program) {
  for (const auto& known : programs) {
    if (known->program == program) return *known;
  }
  auto counts = std::make_unique<PerProgram>();
  counts->program = program;
  counts->executed.resize(program->code.size());
  counts->lanes.resize(program->code.size());
  return *programs.emplace_back(std::move(counts));
}

void finish_counts(const Launch& launch, const std::vector<std::unique_ptr<LaunchCounts>>& workers) {
  Records& all = records();
  const std::lock_guard lock(all.mutex);
  KernelRecord& record = record_of(all, launch);
  ++record.launches;
  TouchedBytes touched;
  for (const auto& worker : workers) {
    if (!worker) continue;
    record.memory.add(worker->memory->counts);
    record.divergent_branches += worker->divergent_branches;
    record.barriers += worker->barriers;
    for (const auto& program : worker->programs) add_instructions(record, *program);
    if (workers.size() > 1) touched.add(worker->memory->touched);
  }
  const TouchedBytes& bytes = workers.size() == 1 && workers[0] ? workers[0]->memory->touched : touched;
  record.memory.read_bytes += bytes.read_bytes();
  record.memory.written_bytes += bytes.written_bytes();
}

std::vector<KernelRecord> kernel_records() {
  Records& all = records();
  const std::lock_guard lock(all.mutex);
  return all.kernels;
}

void forget_kernel_records() {
  Records& all = records();
  const std::lock_guard lock(all.mutex);
  all.index.clear();
  all.kernels.clear();
}

}  // namespace emulator
