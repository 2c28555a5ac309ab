#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/error.h"

namespace dino {

/// A borrowed 8-bit image [height, width, channels], channels 1 to 4, whose rows lie `stride` bytes apart (a
/// crop is a view of the same memory). `Byte` is `uint8_t` or `const uint8_t`.
template <class Byte>
struct BasicImageView {
  Byte* pixels = nullptr;
  int height = 0;
  int width = 0;
  int channels = 0;
  ptrdiff_t stride = 0;

  BasicImageView() = default;
  /// A dense image: rows follow one another.
  BasicImageView(Byte* pixels, int height, int width, int channels)
      : BasicImageView(pixels, height, width, channels, ptrdiff_t{width} * channels) {}
  BasicImageView(Byte* pixels, int height, int width, int channels, ptrdiff_t stride)
      : pixels(pixels), height(height), width(width), channels(channels), stride(stride) {}
  /// What may be written may be read.
  template <class Other>
    requires(__is_same(Byte, const uint8_t) && __is_same(Other, uint8_t))
  BasicImageView(const BasicImageView<Other>& other)
      : BasicImageView(other.pixels, other.height, other.width, other.channels, other.stride) {}

  Byte* row(int y) const { return pixels + y * stride; }
  size_t row_bytes() const { return size_t(width) * channels; }

  /// The part [top, top + rows) x [left, left + columns). Throws UsageError unless it lies inside and is not
  /// empty.
  BasicImageView crop(int top, int left, int rows, int columns) const {
    const bool inside =
        top >= 0 && left >= 0 && rows > 0 && columns > 0 && rows <= height - top && columns <= width - left;
    check<UsageError>(inside, "crop: the box must lie inside the image; got top ", top, ", left ", left, ", ",
                      rows, " x ", columns, ", image ", height, " x ", width);
    return {row(top) + ptrdiff_t{left} * channels, rows, columns, channels, stride};
  }
};

using ImageView = BasicImageView<const uint8_t>;
using MutableImageView = BasicImageView<uint8_t>;

}  // namespace dino
