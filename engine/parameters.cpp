#include "engine/parameters.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "engine/ops.h"
#include "engine/run.h"
#include "kernels/philox.h"

namespace dino {
namespace {

/// Entries start at multiples of this many elements, so that every tensor starts at a full vector.
constexpr int64_t kAlignment = 16;

int64_t aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

/// Four independent standard normal numbers from four words (Box, Muller, 1958).
std::array<double, 4> normals(const Philox::Block& block) {
  std::array<double, 4> result;
  for (size_t pair = 0; pair < 2; ++pair) {
    const double u = (static_cast<double>(block.word[2 * pair]) + 0.5) / 4294967296.0;
    const double angle = 2 * std::numbers::pi * static_cast<double>(block.word[2 * pair + 1]) / 4294967296.0;
    result[2 * pair] = std::sqrt(-2 * std::log(u)) * std::cos(angle);
    result[2 * pair + 1] = std::sqrt(-2 * std::log(u)) * std::sin(angle);
  }
  return result;
}

/// Four independent numbers, uniform in [−1, 1).
std::array<double, 4> uniforms(const Philox::Block& block) {
  std::array<double, 4> result;
  for (size_t i = 0; i < 4; ++i) result[i] = 2 * (static_cast<double>(block.word[i]) / 4294967296.0) - 1;
  return result;
}

}  // namespace

Placement placement_named(const std::string& device, const std::string& precision) {
  Placement placement{.device = device_named(device)};
  check<UsageError>(precision == "f32" || precision == "bf16" || precision == "f64", "--precision ", precision,
                    " is not known (known: bf16, f32, f64)");
  placement.bf16 = precision == "bf16";
  if (precision == "f64") placement.dtype = Dtype::f64;
  check<UsageError>(precision != "f64" || placement.device == Device::cpu, "--precision f64 needs --device cpu; a GPU takes f32 and bf16");
  return placement;
}

Tensor Parameter::tensor() const { return store ? store->tensor(index) : Tensor(); }

Tensor Parameter::operand(Context& context) const {
  if (!store || !store->copies_.defined()) return tensor();
  store->update_copies(context);
  return store->operands_[static_cast<size_t>(index)];
}

Parameter ParameterStore::declare(std::string name, Shape shape, Init init, bool trainable, bool buffer) {
  check(!arena_, "parameters: ", name, " was declared after the memory was laid out");
  check(find(name) < 0, "parameters: ", name, " was declared twice");
  entries_.push_back({std::move(name), shape, init, trainable, buffer});
  return {this, static_cast<int>(entries_.size()) - 1};
}

Parameter ParameterStore::add(std::string name, Shape shape, Init init, bool trainable) {
  return declare(std::move(name), shape, init, trainable, false);
}

Parameter ParameterStore::add_buffer(std::string name, Shape shape, Init init) {
  return declare(std::move(name), shape, init, false, true);
}

void ParameterStore::allocate(const Placement& placement, uint64_t seed, bool gradients) {
  const Dtype dtype = placement.dtype;
  check(dtype == Dtype::f32 || dtype == Dtype::f64, "parameters: must be f32 or f64");
  placement_ = placement;
  arena_ = std::make_unique<Arena>(placement.device);
  int64_t end = 0, parameters = 0;
  for (const bool buffers : {false, true}) {
    for (Entry& entry : entries_) {
      if (entry.buffer != buffers) continue;
      entry.begin = end;
      end = aligned(end + entry.shape.count());
    }
    if (!buffers) parameters = end;
  }
  const auto zeros = [&](Dtype type, int64_t count) {
    Tensor tensor = dino::allocate(*arena_, {type, Shape{std::max<int64_t>(count, 1)}});
    clear(tensor.view());
    return tensor;
  };
  all_ = zeros(dtype, end);
  values_ = all_.rows(0, parameters);
  if (gradients) gradients_ = zeros(dtype, parameters);
  if (placement.bf16) copies_ = zeros(Dtype::bf16, parameters);
  const auto part = [](const Tensor& flat, const Entry& entry) {
    return flat.rows(entry.begin, entry.begin + entry.shape.count()).reshaped(entry.shape);
  };
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    tensors_.push_back(part(all_, entry));
    operands_.push_back(copies_.defined() && !entry.buffer ? part(copies_, entry) : tensors_.back());
    if (gradients && entry.trainable) {
      const auto slot = std::make_shared<GradSlot>(part(gradients_, entry).view());
      tensors_.back().set_grad(slot);
      operands_.back().set_grad(slot);
    }
    initialize(i, seed);
  }
}

void ParameterStore::update_copies(Context& context) const {
  if (std::exchange(copies_current_, true) || !copies_.defined()) return;
  run(context, Cast{.output = Dtype::bf16}, {values_.detached()}, {copies_});
}

void ParameterStore::initialize(size_t index, uint64_t seed) {
  if (device() == Device::plan) return;
  const Entry& entry = entries_[index];
  const Philox philox(seed, Purpose::initialization);
  with_float(dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t count = entry.shape.count();
    std::vector<T> values(static_cast<size_t>(count), static_cast<T>(entry.init.scale));
    for (int64_t begin = 0; begin < count && entry.init.kind != Init::constant; begin += 4) {
      const Philox::Block block = philox(index, 0, static_cast<uint32_t>(begin / 4));
      const std::array<double, 4> four = entry.init.kind == Init::normal ? normals(block) : uniforms(block);
      for (int64_t i = begin; i < std::min(count, begin + 4); ++i)
        values[static_cast<size_t>(i)] = static_cast<T>(entry.init.scale * four[static_cast<size_t>(i - begin)]);
    }
    copy_from_host(values.data(), tensors_[index].view());
  });
}

int64_t ParameterStore::parameter_count() const {
  int64_t count = 0;
  for (const Entry& entry : entries_)
    if (!entry.buffer) count += entry.shape.count();
  return count;
}

int ParameterStore::find(std::string_view name) const {
  for (size_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].name == name) return static_cast<int>(i);
  return -1;
}

void ParameterStore::reset_gradients() {
  for (const Tensor& tensor : tensors_)
    if (tensor.grad()) tensor.grad()->reset();
}

void ParameterStore::copy_from(const ParameterStore& other) {
  check(all_.spec() == other.all_.spec(), "parameters: copies need the same entries");
  copy_elements(other.all_.view(), all_.view());
  values_changed();
}

}  // namespace dino
