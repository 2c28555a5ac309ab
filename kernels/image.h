#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/error.h"

namespace dino {

/// A borrowed image [height, width, channels] whose rows lie `stride` samples apart (a crop is a view of the same memory).
/// `Sample` is `uint8_t`, in images of 1 to 4 channels, or `float`, or one of these with const.
template <class Sample>
struct BasicImageView {
  Sample* pixels = nullptr;
  int height = 0;
  int width = 0;
  int channels = 0;
  ptrdiff_t stride = 0;

  BasicImageView() = default;
  /// A dense image: rows follow one another.
  BasicImageView(Sample* pixels, int height, int width, int channels)
      : BasicImageView(pixels, height, width, channels, ptrdiff_t{width} * channels) {}
  BasicImageView(Sample* pixels, int height, int width, int channels, ptrdiff_t stride)
      : pixels(pixels), height(height), width(width), channels(channels), stride(stride) {}
  /// What may be written may be read.
  template <class Other>
    requires(__is_same(Sample, const Other))
  BasicImageView(const BasicImageView<Other>& other)
      : BasicImageView(other.pixels, other.height, other.width, other.channels, other.stride) {}

  Sample* row(int y) const { return pixels + y * stride; }
  size_t row_samples() const { return size_t(width) * channels; }
  size_t row_bytes() const { return row_samples() * sizeof(Sample); }

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
using ValueView = BasicImageView<const float>;
using MutableValueView = BasicImageView<float>;

}  // namespace dino
