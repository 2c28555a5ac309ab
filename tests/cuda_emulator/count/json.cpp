#include "count/json.h"

#include "count/activity.h"
#include "count/record.h"

/// The counters as JSON (docs/cuda_without_a_gpu.md describes the members).
namespace emulator {
namespace {

double ratio(std::uint64_t a, std::uint64_t b) {
  return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b);
}

void write(JsonWriter& json, std::string_view name, const std::array<std::uint32_t, 3>& size) {
  json.key(name).open('[');
  for (const std::uint32_t n : size) json.value(std::uint64_t{n});
  json.close(']');
}

void write(JsonWriter& json, std::string_view name, const Traffic& traffic) {
  json.key(name)
      .open('{')
      .member("requests", traffic.requests)
      .member("sectors", traffic.sectors)
      .member("useful_bytes", traffic.useful_bytes);
  json.member("efficiency", ratio(traffic.useful_bytes, 32 * traffic.sectors)).close('}');
}

void write(JsonWriter& json, std::string_view name, const SharedTraffic& traffic) {
  json.key(name).open('{').member("requests", traffic.requests).member("wavefronts", traffic.wavefronts);
  json.member("ideal_wavefronts", traffic.ideal_wavefronts).close('}');
}

void write(JsonWriter& json, std::string_view name, const AtomicTraffic& traffic) {
  json.key(name).open('{').member("requests", traffic.requests).member("sectors", traffic.sectors);
  json.member("serialized", traffic.serialized).member("most_serialized", traffic.most_serialized).close('}');
}

void write_memory(JsonWriter& json, const MemoryCounts& memory) {
  write(json, "global_loads", memory.global_loads);
  write(json, "global_stores", memory.global_stores);
  const std::uint64_t compulsory = memory.read_bytes + memory.written_bytes;
  const std::uint64_t sectors =
      memory.global_loads.sectors + memory.global_stores.sectors + memory.global_atomics.sectors;
  json.key("compulsory")
      .open('{')
      .member("read_bytes", memory.read_bytes)
      .member("written_bytes", memory.written_bytes);
  json.member("amplification", ratio(32 * sectors, compulsory)).close('}');
  write(json, "local_loads", memory.local_loads);
  write(json, "local_stores", memory.local_stores);
  write(json, "shared_loads", memory.shared_loads);
  write(json, "shared_stores", memory.shared_stores);
  write(json, "matrix_loads", memory.matrix_loads);
  write(json, "matrix_stores", memory.matrix_stores);
  write(json, "global_atomics", memory.global_atomics);
  write(json, "shared_atomics", memory.shared_atomics);
  json.key("constant_loads")
      .open('{')
      .member("requests", memory.constant_requests)
      .member("words", memory.constant_words)
      .close('}');
  json.member("async_copy_bytes", memory.async_copy_bytes);
}

void write(JsonWriter& json, const KernelRecord& record) {
  json.open('{').member("name", record.demangled).member("mangled", record.name);
  write(json, "grid", record.grid);
  write(json, "block", record.block);
  json.member("dynamic_shared", record.dynamic_shared)
      .member("static_shared", record.static_shared)
      .member("local_bytes", record.local_bytes);
  json.member("registers_estimate", static_cast<std::uint64_t>(std::max(record.registers, 0)));
  json.member("launches", record.launches);
  std::uint64_t warp_instructions = 0, thread_instructions = 0;
  json.key("warp_instructions_by_class").open('{');
  for (std::size_t i = 0; i < record.warp_instructions.size(); ++i) {
    warp_instructions += record.warp_instructions[i];
    thread_instructions += record.thread_instructions[i];
    if (record.warp_instructions[i] != 0)
      json.member(name_of(static_cast<Class>(i)), record.warp_instructions[i]);
  }
  json.close('}');
  json.member("warp_instructions", warp_instructions).member("thread_instructions", thread_instructions);
  json.member("mean_active_lanes", ratio(thread_instructions, warp_instructions));
  json.member("divergent_branches", record.divergent_branches).member("barriers", record.barriers);
  json.member("special_function_ops", record.thread_instructions[static_cast<std::size_t>(Class::special)]);
  json.member("fp32_ops", record.thread_instructions[static_cast<std::size_t>(Class::fp32)]);
  json.member("tensor_flops", record.tensor_flops);
  write_memory(json, record.memory);
  json.close('}');
}

void write_activity(JsonWriter& json) {
  const Activity& did = activity();
  json.key("activity").open('{');
  json.member("launches", did.launches.load()).member("graph_launches", did.graph_launches.load());
  json.member("copies", did.copies.load())
      .member("copied_bytes", did.copied_bytes.load())
      .member("memsets", did.memsets.load());
  json.member("synchronizations", did.synchronizations.load())
      .member("allocations", did.allocations.load())
      .close('}');
}

}  // namespace

std::string counters_json() {
  JsonWriter json;
  json.open('{').key("kernels").open('[');
  for (const KernelRecord& record : kernel_records()) write(json, record);
  json.close(']');
  write_activity(json);
  json.close('}');
  return json.take() + "\n";
}

void write_counters_file() {
  const std::string& path = options().counters;
  if (path.empty()) return;
  std::FILE* file = std::fopen(path.c_str(), "w");
  const std::string text = counters_json();
  const bool written = file && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = file && std::fclose(file) == 0;
  if (!written || !closed)
    std::fprintf(stderr, "cuda_emulator: CUDA_EMULATOR_COUNTERS: %s: cannot be written\n", path.c_str());
}

}  // namespace emulator
