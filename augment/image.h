#pragma once

#include <cstdint>
#include <vector>

#include "kernels/image.h"

namespace dino {

/// An 8-bit image in memory, dense [height, width, channels].
struct Image {
  int height = 0;
  int width = 0;
  int channels = 0;
  std::vector<uint8_t> pixels;

  Image() = default;
  Image(int height, int width, int channels) { reshape(height, width, channels); }

  /// Gives the image another shape and keeps the memory where it can; the pixels are then undefined.
  void reshape(int new_height, int new_width, int new_channels) {
    height = new_height;
    width = new_width;
    channels = new_channels;
    pixels.resize(size_t(height) * width * channels);
  }

  ImageView view() const { return {pixels.data(), height, width, channels}; }
  MutableImageView view() { return {pixels.data(), height, width, channels}; }
};

}  // namespace dino
