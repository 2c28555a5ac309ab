#include "train/checkpoint.h"

#include <zlib.h>

#include "engine/safetensors.h"

namespace dino {
namespace {

/// One tensor of the training state under its name in the file.
struct NamedView {
  std::string name;
  View view;
  bool scalar = false;  ///< written with shape []
};

std::vector<int64_t> file_shape(const NamedView& entry) {
  if (entry.scalar) return {};
  return {entry.view.shape.extent.begin(), entry.view.shape.extent.begin() + entry.view.shape.rank};
}

size_t byte_count(const View& view) { return static_cast<size_t>(view.count()) * bytes_of(view.dtype); }

void add_network(std::vector<NamedView>& all, const std::string& prefix, const ParameterStore& parameters) {
  for (size_t i = 0; i < parameters.entries().size(); ++i)
    all.push_back({prefix + parameters.entries()[i].name, parameters.tensor(static_cast<int>(i)).view()});
}

void add_optimizer(std::vector<NamedView>& all, const Optimizer& optimizer, const ParameterStore& parameters) {
  for (const Optimizer::State& state : optimizer.states())
    for (const int index : optimizer.tensors()) {
      const ParameterStore::Entry& entry = parameters.entries()[static_cast<size_t>(index)];
      const Tensor part = state.values.rows(entry.begin, entry.begin + entry.shape.count());
      all.push_back({"optimizer." + state.name + "." + entry.name, part.reshaped(entry.shape).view()});
    }
  if (!optimizer.steps().defined()) return;
  for (size_t i = 0; i < optimizer.tensors().size(); ++i) {
    const auto& entry = parameters.entries()[static_cast<size_t>(optimizer.tensors()[i])];
    const auto at = static_cast<int64_t>(i);
    all.push_back({"optimizer.step." + entry.name, optimizer.steps().rows(at, at + 1).view(), true});
  }
}

/// The whole training state in the file's order.
std::vector<NamedView> views_of(const TrainingState& state) {
  std::vector<NamedView> all;
  add_network(all, "student.", state.student.parameters());
  add_network(all, "teacher.", state.teacher.network().parameters());
  all.push_back({"center", state.loss.center().view()});
  add_optimizer(all, state.optimizer, state.student.parameters());
  return all;
}

/// CRC-32 of all values, the step and the configuration; names and shapes are checked one by one.
std::string checksum_of(const TensorFile& file) {
  uLong crc = 0;
  const auto add = [&](const void* data, size_t bytes) { crc = crc32_z(crc, static_cast<const Bytef*>(data), bytes); };
  for (const char* key : {"step", "config"})
    if (const auto found = file.metadata.find(key); found != file.metadata.end()) add(found->second.data(), found->second.size());
  for (const NamedTensor& tensor : file.tensors)
    if (!tensor.bytes.empty()) add(tensor.bytes.data(), tensor.bytes.size());
  return str(crc);
}

int64_t step_in(const TensorFile& file, const std::string& path) {
  const auto step = file.metadata.find("step");
  check<FormatError>(step != file.metadata.end() && !step->second.empty() && step->second.size() < 18 &&
                         step->second.find_first_not_of("0123456789") == std::string::npos,
                     path, ": is no training checkpoint: its metadata has no step");
  return std::stoll(step->second);
}

}  // namespace

void save_checkpoint(const std::string& path, const TrainingState& state, int64_t step, const std::string& config) {
  TensorFile file;
  for (const NamedView& entry : views_of(state)) {
    const auto* data = static_cast<const std::byte*>(entry.view.data);
    std::shared_ptr<std::vector<std::byte>> copy;
    if (entry.view.device != Device::cpu) {
      copy = std::make_shared<std::vector<std::byte>>(byte_count(entry.view));
      copy_to_host(entry.view, copy->data());
      data = copy->data();
    }
    file.tensors.push_back({.name = entry.name,
                            .dtype = entry.view.dtype,
                            .shape = file_shape(entry),
                            .bytes = {data, byte_count(entry.view)},
                            .owner = std::move(copy)});
  }
  file.metadata = {{"format", "dino_engine"}, {"step", str(step)}, {"config", config}};
  file.metadata["checksum"] = checksum_of(file);
  save_safetensors(path, file);
}

uint64_t checkpoint_bytes(const TrainingState& state) {
  constexpr uint64_t kMetadata = 4096, kDescription = 80;  // of each tensor in the header, but for its name
  uint64_t bytes = kMetadata;
  for (const NamedView& entry : views_of(state)) bytes += byte_count(entry.view) + entry.name.size() + kDescription;
  return bytes;
}

int64_t checkpoint_step(const std::string& path) { return step_in(load_safetensors(path), path); }

int64_t load_checkpoint(const std::string& path, const TrainingState& state) {
  const TensorFile file = load_safetensors(path);
  const int64_t step = step_in(file, path);
  const std::vector<NamedView> entries = views_of(state);
  for (const NamedView& entry : entries) {
    const NamedTensor* tensor = file.find(entry.name);
    const char* advice = "; it was written with other options: repeat those, or choose another --out";
    check<FormatError>(tensor != nullptr, path, ": ", entry.name, " is missing", advice);
    check<FormatError>(tensor->dtype == entry.view.dtype && tensor->shape == file_shape(entry), path, ": ", entry.name,
                       ": expected ", name_of(entry.view.dtype), entry.view.shape, ", found ", name_of(tensor->dtype),
                       shape_text(tensor->shape), advice);
  }
  check<FormatError>(file.tensors.size() == entries.size(), path, ": expected ", entries.size(), " tensors, found ",
                     file.tensors.size(), "; it was written with other options");
  const auto checksum = file.metadata.find("checksum");  // older checkpoints have none
  check<FormatError>(checksum == file.metadata.end() || checksum->second == checksum_of(file), path,
                     ": its contents do not have the checksum that was written with them: the file is damaged; put a copy or an older "
                     "checkpoint (checkpoint0000.safetensors, ...) in its place, or remove it to start again");
  for (const NamedView& entry : entries) copy_from_host(file.find(entry.name)->bytes.data(), entry.view);
  state.student.parameters().values_changed();
  state.teacher.network().parameters().values_changed();
  return step;
}

}  // namespace dino
