#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/dtype.h"

namespace dino {

/// A tensor as files hold it: row-major, little-endian, and not necessarily aligned to its element size.
/// `owner` keeps `bytes` alive (often a mapped file); it may be null while the writer's caller owns the
/// memory.
struct NamedTensor {
  std::string name;
  Dtype dtype = Dtype::none;
  std::vector<int64_t> shape{};  ///< outermost first; empty for a scalar
  std::span<const std::byte> bytes{};
  std::shared_ptr<const void> owner{};
};

/// What every checkpoint format is read into and written from.
struct TensorFile {
  std::vector<NamedTensor> tensors;  ///< in the file's order
  std::map<std::string, std::string> metadata;

  /// The tensor of that name, or null.
  const NamedTensor* find(std::string_view name) const;
};

/// Bytes of a dense tensor; nothing if an extent is negative or the product does not fit 63 bits.
std::optional<int64_t> dense_bytes(std::span<const int64_t> shape, Dtype dtype);

/// The values of a tensor of any dtype. Throws FormatError if the bytes do not match the shape.
std::vector<double> to_doubles(const NamedTensor& tensor);
/// The values of a tensor of any dtype, rounded to f32. Throws FormatError if the bytes do not match the
/// shape.
std::vector<float> to_floats(const NamedTensor& tensor);

/// A tensor that owns `values`. Throws FormatError if their number does not match the shape.
template <class T>
NamedTensor tensor_of(std::string name, std::vector<int64_t> shape, std::vector<T> values) {
  static_assert(kDtypeOf<T> != Dtype::none);
  auto owner = std::make_shared<const std::vector<T>>(std::move(values));
  const auto bytes = std::as_bytes(std::span(*owner));
  check<FormatError>(dense_bytes(shape, kDtypeOf<T>) == static_cast<int64_t>(bytes.size()), name,
                     ": shape: does not match ", owner->size(), " values");
  return {std::move(name), kDtypeOf<T>, std::move(shape), bytes, std::move(owner)};
}

/// `text` in quotes, made fit for a one-line message: control characters escaped, long texts cut.
std::string quote(std::string_view text);

/// A shape as messages show it: `[2, 3]`.
std::string shape_text(std::span<const int64_t> shape);

}  // namespace dino
