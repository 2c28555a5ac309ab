#pragma once

#include <cstdint>
#include <vector>

#include "kernels/image.h"

namespace dino {

/// How a file holds the samples of an image.
enum class SampleType : uint8_t { uint8, uint16, float32 };

/// The most channels that an image may have.
inline constexpr int kMostChannels = 64;

/// What all images of a dataset have in common once they are decoded.
struct ImageKind {
  int channels = 3;
  SampleType samples = SampleType::uint8;

  ImageKind() = default;
  ImageKind(int channels, SampleType samples = SampleType::uint8) : channels(channels), samples(samples) {}  // NOLINT: a number of channels is a kind
  bool operator==(const ImageKind&) const = default;

  /// Whether images become 8-bit pixels, gray or colour, whatever their files hold. Those of all other kinds keep their values, and their
  /// files must hold just these.
  bool in_bytes() const { return samples == SampleType::uint8 && (channels == 1 || channels == 3); }
};

/// An image in memory, dense [height, width, channels]: 8-bit `pixels`, or `values` where these would lose something.
struct Image {
  int height = 0;
  int width = 0;
  int channels = 0;
  std::vector<uint8_t> pixels;
  std::vector<float> values;  ///< whole numbers as shares of the largest of their type, in [0, 1]; floats as they are

  Image() = default;
  Image(int height, int width, int channels) { reshape(height, width, channels); }

  /// An image of values, which are 0.
  static Image of_values(int height, int width, int channels) {
    Image image;
    image.height = height;
    image.width = width;
    image.channels = channels;
    image.values.resize(size_t(height) * width * channels);
    return image;
  }

  /// Gives the image another shape and keeps the memory where it can; the pixels are then undefined.
  void reshape(int new_height, int new_width, int new_channels) {
    height = new_height;
    width = new_width;
    channels = new_channels;
    pixels.resize(size_t(height) * width * channels);
  }

  bool in_bytes() const { return values.empty(); }

  ImageView view() const { return {checked_pixels(), height, width, channels}; }
  MutableImageView view() { return {const_cast<uint8_t*>(checked_pixels()), height, width, channels}; }
  ValueView value_view() const { return {values.data(), height, width, channels}; }
  MutableValueView value_view() { return {values.data(), height, width, channels}; }

 private:
  const uint8_t* checked_pixels() const {
    check(in_bytes(), "image: its values are no 8-bit pixels");
    return pixels.data();
  }
};

}  // namespace dino
