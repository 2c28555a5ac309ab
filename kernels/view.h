#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>

#include "kernels/device.h"
#include "kernels/dtype.h"
#include "kernels/error.h"

namespace dino {

inline constexpr int kMaxRank = 4;

/// The extents of a tensor, outermost first. A scalar result has shape [1].
struct Shape {
  int rank = 0;
  std::array<int64_t, kMaxRank> extent{};

  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) {
    check(extents.size() <= kMaxRank, "shape: at most ", kMaxRank, " dimensions; got ", extents.size());
    for (int64_t e : extents) extent[static_cast<size_t>(rank++)] = e;
  }

  int64_t operator[](int axis) const { return extent[static_cast<size_t>(axis < 0 ? rank + axis : axis)]; }
  int64_t count() const {
    int64_t product = rank == 0 ? 0 : 1;
    for (int axis = 0; axis < rank; ++axis) product *= extent[static_cast<size_t>(axis)];
    return product;
  }
  /// Extent of the last axis.
  int64_t cols() const { return rank == 0 ? 0 : (*this)[-1]; }
  /// Product of all axes but the last.
  int64_t rows() const {
    int64_t product = rank == 0 ? 0 : 1;
    for (int axis = 0; axis + 1 < rank; ++axis) product *= extent[static_cast<size_t>(axis)];
    return product;
  }
  bool operator==(const Shape&) const = default;

  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << '[';
    for (int axis = 0; axis < shape.rank; ++axis) out << (axis ? ", " : "") << shape[axis];
    return out << ']';
  }
};

/// What a shape rule sees of a tensor. `dtype == none` marks an absent optional input.
struct Spec {
  Dtype dtype = Dtype::none;
  Shape shape;
  bool defined() const { return dtype != Dtype::none; }
  bool operator==(const Spec&) const = default;
};

/// Borrowed memory seen as a matrix: the leading axes are flattened into rows, each row is dense, and consecutive rows
/// lie `row_stride` elements apart. A column slice of a packed matrix is such a view.
struct View {
  void* data = nullptr;
  Dtype dtype = Dtype::none;
  Shape shape;
  int64_t row_stride = 0;
  Device device = Device::cpu;

  View() = default;
  View(void* data, Dtype dtype, Shape shape, int64_t row_stride = 0, Device device = Device::cpu)
      : data(data), dtype(dtype), shape(shape), row_stride(row_stride ? row_stride : shape.cols()), device(device) {}

  bool defined() const { return data != nullptr; }
  int64_t rows() const { return shape.rows(); }
  int64_t cols() const { return shape.cols(); }
  int64_t count() const { return shape.count(); }
  bool dense() const { return row_stride == cols() || rows() == 1; }
  Spec spec() const { return {dtype, shape}; }

  /// Typed pointer to the first element; null for an absent view.
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  /// Typed pointer to row `row`.
  template <class T>
  T* row(int64_t row) const {
    return static_cast<T*>(data) + row * row_stride;
  }
};

}  // namespace dino
