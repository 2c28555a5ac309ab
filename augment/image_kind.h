#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "augment/dataset.h"

/// What images of other than 8-bit gray or colour need: what they are, how they are normalised, how they are shown.
namespace dino {

/// "uint8", "uint16" or "float32".
const char* name_of(SampleType type);
std::optional<SampleType> sample_type_named(std::string_view name);
/// "5 channels of uint16".
std::string text_of(ImageKind kind);

/// What a file's header says of the kind of its image, transparency left out; nothing if the header cannot be read.
std::optional<ImageKind> kind_in(const ImageHeader& header);

/// The kind that a dataset is, by the headers of at most 64 images: 8-bit colour if any of them is an 8-bit gray or colour image, as files
/// of all kinds can be read as such; else the kind of most of them, if it has `channels` channels or these are 0. Where `samples` is said
/// it stays.
ImageKind detect_kind(const Dataset& dataset, int channels, std::optional<SampleType> samples);

/// Mean and standard deviation of each channel.
struct ChannelStatistics {
  std::vector<float> mean, deviation;  ///< of values as `Image::values` holds them; the deviation of a constant channel is 1
  size_t images = 0;                   ///< that were read
  std::vector<int> constant;           ///< channels, from 0
};

/// Over at most `most` images, spread evenly over the dataset; each counts alike whatever its size. Images that cannot be read are left
/// out; throws DataError if none can be. The result does not depend on `workers` (0: one per processor).
ChannelStatistics channel_statistics(const Dataset& dataset, size_t most, int workers);

/// An image to look at, in 8 bits: itself, or, of one of values, its first three channels as colours, or the first as gray if there are
/// fewer, each from its smallest value (black) to its largest.
Image to_look_at(const Image& image);

}  // namespace dino
