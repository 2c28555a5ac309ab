#pragma once

#include <cstdint>
#include <span>

namespace dino {

enum class ImageFormat : uint8_t { unknown, jpeg, png, bmp, pnm, webp, tiff, pixels, npy };

/// "JPEG", "PNG", …; "pixels" for those that lie bare in IDX and CIFAR files.
const char* name_of(ImageFormat format);

/// What a file says about its image before a pixel is decoded.
struct ImageHeader {
  ImageFormat format = ImageFormat::unknown;
  int64_t width = 0, height = 0;  ///< 0 where the header cannot be read
  int channels = 0;               ///< samples per pixel, transparency included; a palette counts as 3
  int bits = 8;                   ///< per sample
  bool alpha = false;
  bool cmyk = false;
  bool real = false;  ///< samples are floats
  bool operator==(const ImageHeader&) const = default;
};

/// Reads the header of an encoded image; never throws: what it cannot read stays 0.
ImageHeader read_image_header(std::span<const uint8_t> bytes);

}  // namespace dino
