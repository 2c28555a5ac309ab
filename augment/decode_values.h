#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "augment/image.h"
#include "augment/image_header.h"

/// Readers of images whose samples 8 bits or four channels do not hold, for `decode` only. They throw DataError for what they cannot read.
namespace dino {

/// An image of values as its file holds it.
struct StoredValues {
  Image image;
  SampleType type;
  bool alpha = false;  ///< the last channel is transparency
};

StoredValues decode_png16(std::span<const uint8_t> bytes, std::string_view name);
StoredValues decode_pnm16(std::span<const uint8_t> bytes, std::string_view name);
StoredValues decode_tiff_values(std::span<const uint8_t> bytes, std::string_view name);
/// `channels` tells [height, width, channels] from [channels, height, width]; where it does not, or is 0, the smaller of the outer two
/// axes is that of the channels, the last one if they are alike.
StoredValues decode_npy(std::span<const uint8_t> bytes, int channels, std::string_view name);
/// What `decode_npy` would read with 0 channels; nothing is known of a header that cannot be read.
ImageHeader npy_image_header(std::span<const uint8_t> bytes);

/// Throws DataError unless an image of so many values may be read from a file of `file_bytes`: a few damaged bytes must not cause a giant
/// allocation.
void check_values(int64_t width, int64_t height, int64_t channels, size_t file_bytes, std::string_view name);

/// `image` as an image of `kind`, which is none of bytes. Throws DataError for another number of channels, but for transparency that is
/// left out, another type of samples, and values that are no numbers.
Image with_kind(StoredValues stored, ImageKind kind, std::string_view name);

}  // namespace dino
