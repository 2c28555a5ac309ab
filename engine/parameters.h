#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace dino {

/// How a parameter starts.
struct Init {
  enum Kind { constant, normal, uniform };
  Kind kind = constant;
  double scale = 0;  ///< the value, the standard deviation, or the bound of [−scale, scale)

  static Init zeros() { return {constant, 0}; }
  static Init ones() { return {constant, 1}; }
  /// What ViT calls truncated normal: its bounds are ±2 whatever the deviation, so usually nothing is cut off.
  static Init truncated_normal(double deviation) { return {normal, deviation}; }
  static Init uniform_within(double bound) { return {uniform, bound}; }
};

class ParameterStore;

/// A name for one tensor of a store, held by modules.
struct Parameter {
  const ParameterStore* store = nullptr;
  int index = -1;

  bool defined() const { return store != nullptr; }
  /// The tensor itself, with its gradient slot if the store has gradients and the parameter is trainable.
  Tensor tensor() const;
};

/// All parameters and running statistics of one network in one flat buffer of one float type, so that clipping, update,
/// EMA and casts are single passes. Modules declare what they need first; then the memory is laid out once.
class ParameterStore {
 public:
  struct Entry {
    std::string name;  ///< as in checkpoints, such as backbone.blocks.3.attn.qkv.weight
    Shape shape;
    Init init;
    bool trainable;    ///< false: has no gradient, but is averaged into the teacher
    bool buffer;       ///< running statistics: neither trained nor averaged
    int64_t begin = 0; ///< first element in the flat buffer

    /// Weight decay spares biases and one-dimensional tensors.
    bool regularized() const { return shape.rank != 1 && !name.ends_with(".bias"); }
  };

  ParameterStore() = default;
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  Parameter add(std::string name, Shape shape, Init init, bool trainable = true);
  Parameter add_buffer(std::string name, Shape shape, Init init);

  /// Lays out all declared entries and fills them with their initial values, a function of `seed` and the position of the
  /// entry only. With `gradients`, trainable parameters get gradient slots.
  void allocate(Dtype dtype, uint64_t seed, bool gradients);

  const std::vector<Entry>& entries() const { return entries_; }
  Dtype dtype() const { return dtype_; }
  /// Sum of the element counts of all parameters (without buffers and padding).
  int64_t parameter_count() const;

  Tensor tensor(int index) const { return tensors_[static_cast<size_t>(index)]; }
  /// -1 if there is no such entry.
  int find(std::string_view name) const;

  /// All parameters, padding included, as one vector: [elements].
  Tensor values() const { return values_; }
  /// Their gradients in the same layout. Undefined without gradients.
  Tensor gradients() const { return gradients_; }
  const std::shared_ptr<GradSlot>& grad(int index) const { return tensors_[static_cast<size_t>(index)].grad(); }
  /// Starts a new step: forgets which gradients were touched.
  void reset_gradients();

  /// Copies all values, buffers too, from a store with the same entries.
  void copy_from(const ParameterStore& other);

 private:
  Parameter declare(std::string name, Shape shape, Init init, bool trainable, bool buffer);
  void initialize(size_t index, uint64_t seed);

  std::vector<Entry> entries_;
  Dtype dtype_ = Dtype::none;
  Arena arena_;
  Tensor all_, values_, gradients_;
  std::vector<Tensor> tensors_;
};

}  // namespace dino
