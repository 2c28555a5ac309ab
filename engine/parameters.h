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

class Context;
class ParameterStore;

/// A name for one tensor of a store, held by modules.
struct Parameter {
  const ParameterStore* store = nullptr;
  int index = -1;

  bool defined() const { return store != nullptr; }
  /// The tensor itself, with its gradient slot if the store has gradients and the parameter is trainable.
  Tensor tensor() const;
  /// What matmuls and convolutions take: the tensor, or its copy in bf16 with the same gradient slot if the store keeps
  /// such copies. Copies that are out of date are made anew first.
  Tensor operand(Context& context) const;
};

/// Where a network lives and in which types it computes.
struct Placement {
  Dtype dtype = Dtype::f32;  ///< of parameters, statistics and the optimizer's state
  Device device = Device::cpu;
  bool bf16 = false;         ///< activations and matmul operands in bf16
};

/// The placement that --device (auto, cpu, cuda) and --precision (f32, bf16, f64) stand for. Throws UsageError for what does
/// not exist, or not together, with what to do.
Placement placement_named(const std::string& device, const std::string& precision);

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
  void allocate(const Placement& placement, uint64_t seed, bool gradients);

  const std::vector<Entry>& entries() const { return entries_; }
  Dtype dtype() const { return placement_.dtype; }
  Device device() const { return placement_.device; }
  /// Type of activations and matmul operands.
  Dtype operand_dtype() const { return placement_.bf16 ? Dtype::bf16 : placement_.dtype; }
  /// Sum of the element counts of all parameters (without buffers and padding).
  int64_t parameter_count() const;

  Tensor tensor(int index) const { return tensors_[static_cast<size_t>(index)]; }
  /// -1 if there is no such entry.
  int find(std::string_view name) const;

  /// Memory of values, gradients and copies.
  size_t bytes() const { return arena_ ? arena_->used_bytes() : 0; }

  /// All parameters, padding included, as one vector: [elements].
  Tensor values() const { return values_; }
  /// Their copies in bf16, in the same layout. Undefined if there are none.
  Tensor copies() const { return copies_; }
  /// To be called by whoever changed values: copies are out of date unless they were changed too.
  void values_changed(bool copies_too = false) const { copies_current_ = copies_too; }
  /// Makes copies anew if they are out of date.
  void update_copies(Context& context) const;
  /// Their gradients in the same layout. Undefined without gradients.
  Tensor gradients() const { return gradients_; }
  const std::shared_ptr<GradSlot>& grad(int index) const { return tensors_[static_cast<size_t>(index)].grad(); }
  /// Starts a new step: forgets which gradients were touched.
  void reset_gradients();

  /// Copies all values, buffers too, from a store with the same entries.
  void copy_from(const ParameterStore& other);

 private:
  friend struct Parameter;
  Parameter declare(std::string name, Shape shape, Init init, bool trainable, bool buffer);
  void initialize(size_t index, uint64_t seed);

  std::vector<Entry> entries_;
  Placement placement_;
  std::unique_ptr<Arena> arena_;  // from allocate() on
  Tensor all_, values_, gradients_, copies_;
  std::vector<Tensor> tensors_, operands_;
  mutable bool copies_current_ = false;
};

}  // namespace dino
