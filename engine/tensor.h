#pragma once

#include <memory>
#include <vector>

#include "engine/memory.h"
#include "kernels/op.h"
#include "kernels/view.h"

namespace dino {

class GradSlot;

/// A view with shared ownership of its memory and, if somebody wants it, a place for its gradient. Copies share both.
class Tensor {
 public:
  Tensor() = default;
  Tensor(View view, std::shared_ptr<const void> memory) : view_(view), memory_(std::move(memory)) {}

  bool defined() const { return view_.defined(); }
  const View& view() const { return view_; }
  Spec spec() const { return view_.spec(); }
  const Shape& shape() const { return view_.shape; }
  Dtype dtype() const { return view_.dtype; }
  Device device() const { return view_.device; }

  /// Null if nobody wants the gradient of this tensor.
  const std::shared_ptr<GradSlot>& grad() const { return grad_; }
  void set_grad(std::shared_ptr<GradSlot> grad) { grad_ = std::move(grad); }

  /// The same memory without its gradient: what is computed from it is a constant.
  Tensor detached() const { return Tensor(view_, memory_); }

  /// Rows [begin, end) of the tensor seen as a matrix, or elements of a vector, sharing memory and gradient.
  Tensor rows(int64_t begin, int64_t end) const;
  /// Columns [begin, end), sharing memory and gradient; the rows of the result are strided.
  Tensor cols(int64_t begin, int64_t end) const;
  /// The same elements in another shape. The tensor must be dense.
  Tensor reshaped(Shape shape) const;

 private:
  Tensor part(int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end) const;

  View view_;
  std::shared_ptr<const void> memory_;
  std::shared_ptr<GradSlot> grad_;
};

/// Where the gradient of a tensor is summed up during a step. The first touch of each element writes and later touches
/// add; parts of a tensor (rows or columns) are touched on their own. Parts must be equal or disjoint.
class GradSlot {
 public:
  /// For a tensor of this step: memory comes from `arena` at the first touch.
  GradSlot(Arena* arena, Spec spec) : arena_(arena), spec_(spec) {}
  /// For a parameter: `view` is its place in the flat gradient buffer.
  explicit GradSlot(View view) : spec_(view.spec()), view_(view) {}
  /// For a part of another tensor, or the same elements in another shape.
  GradSlot(std::shared_ptr<GradSlot> whole, Shape shape, int64_t row, int64_t col, int64_t rows, int64_t cols);

  /// Where to write or add now, and which of the two. The caller must then cover every element of it.
  Grad touch();

  bool touched() const;
  /// The finished gradient; elements that nobody touched are zero. Absent if nothing was touched.
  View value();
  /// Makes `value` the gradient, where nobody touched it yet: how backward starts.
  void assign(const Tensor& value);
  /// The same with the gradient of `other`, which loses it.
  void take(GradSlot& other);
  /// Forgets all touches: the next one writes again.
  void reset();

 private:
  struct Region {
    int64_t row, col, rows, cols;
    bool operator==(const Region&) const = default;
  };
  Grad touch_region(const Region& region);
  void fill_untouched();
  void allocate();

  Arena* arena_ = nullptr;
  Spec spec_;
  View view_;
  std::shared_ptr<const void> memory_;
  bool whole_touched_ = false;
  std::vector<Region> regions_;  // touched ones, while the whole is not

  std::shared_ptr<GradSlot> parent_;
  Region place_{};
};

/// An uninitialised tensor in the arena's memory.
Tensor allocate(Arena& arena, Spec spec);

/// Copy the elements of a dense tensor from or to host memory, after all that was started on it; they return when done.
void copy_to_host(const View& view, void* to);
void copy_from_host(const void* from, const View& view);
/// Copies the elements of a dense tensor to another of the same type and size, from any device to any.
void copy_elements(const View& from, const View& to);
/// Sets all elements to zero.
void clear(const View& view);
/// The elements of a dense floating-point tensor, wherever it lies.
std::vector<double> values_of(const Tensor& tensor);

}  // namespace dino
