#include "engine/parameters.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

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

Tensor Parameter::tensor() const { return store ? store->tensor(index) : Tensor(); }

Parameter ParameterStore::declare(std::string name, Shape shape, Init init, bool trainable, bool buffer) {
  check(dtype_ == Dtype::none, "parameters: ", name, " was declared after the memory was laid out");
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

void ParameterStore::allocate(Dtype dtype, uint64_t seed, bool gradients) {
  check(dtype == Dtype::f32 || dtype == Dtype::f64, "parameters: must be f32 or f64");
  dtype_ = dtype;
  int64_t end = 0;
  for (const bool buffers : {false, true}) {
    for (Entry& entry : entries_) {
      if (entry.buffer != buffers) continue;
      entry.begin = end;
      end = aligned(end + entry.shape.count());
    }
    if (!buffers) values_ = Tensor(View(nullptr, dtype, Shape{end}), nullptr);
  }
  const int64_t parameters = values_.shape().count();
  all_ = dino::allocate(arena_, {dtype, Shape{std::max<int64_t>(end, 1)}});
  std::memset(all_.view().data, 0, static_cast<size_t>(all_.shape().count()) * bytes_of(dtype));
  values_ = all_.rows(0, parameters);
  if (gradients) {
    gradients_ = dino::allocate(arena_, {dtype, Shape{parameters}});
    std::memset(gradients_.view().data, 0, static_cast<size_t>(parameters) * bytes_of(dtype));
  }
  tensors_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    const auto place = [&](const Tensor& flat) {
      return View(static_cast<std::byte*>(flat.view().data) + static_cast<size_t>(entry.begin) * bytes_of(dtype), dtype,
                  entry.shape);
    };
    Tensor tensor(place(all_), std::make_shared<Tensor>(all_));
    if (gradients && entry.trainable) tensor.set_grad(std::make_shared<GradSlot>(place(gradients_)));
    tensors_.push_back(std::move(tensor));
    initialize(i, seed);
  }
}

void ParameterStore::initialize(size_t index, uint64_t seed) {
  const Entry& entry = entries_[index];
  const Philox philox(seed, Purpose::initialization);
  with_float(dtype_, [&](auto zero) {
    using T = decltype(zero);
    T* values = tensors_[index].view().as<T>();
    const int64_t count = entry.shape.count();
    if (entry.init.kind == Init::constant) {
      std::fill_n(values, count, static_cast<T>(entry.init.scale));
      return;
    }
    for (int64_t begin = 0; begin < count; begin += 4) {
      const Philox::Block block = philox(index, 0, static_cast<uint32_t>(begin / 4));
      const std::array<double, 4> four = entry.init.kind == Init::normal ? normals(block) : uniforms(block);
      for (int64_t i = begin; i < std::min(count, begin + 4); ++i)
        values[i] = static_cast<T>(entry.init.scale * four[static_cast<size_t>(i - begin)]);
    }
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
  std::memcpy(all_.view().data, other.all_.view().data,
              static_cast<size_t>(all_.shape().count()) * bytes_of(dtype_));
}

}  // namespace dino
