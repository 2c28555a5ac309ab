#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "augment/image.h"
#include "augment/recipe.h"
#include "kernels/render_crops.h"

namespace dino {

/// The decoded images of a batch with all decisions about their crops, for rendering on a GPU: what one upload carries.
class CropBatch {
 public:
  /// Empties the batch and gives it `images` rows of `crops` crops with `channels` channels.
  void reset(int images, int crops, int channels);

  /// Puts an image, and the plan of each of its crops, into a row. Threads may set different rows at once. Throws
  /// UsageError if the image has other channels or a box lies outside of it.
  void set(int row, Image image, std::span<const CropPlan> plans);

  int images() const { return static_cast<int>(rows_.size()); }
  int crops() const { return crops_; }

  /// The size of the packed batch once all rows are set: images, 88 bytes per crop, and for each crop about
  /// 16 (w + h) + 48 S bytes of weights for a box of w x h pixels.
  size_t bytes() const;

  /// Writes the packed batch (`PackedCrops`), `bytes()` bytes, to memory aligned to 16 bytes.
  void write(std::byte* to) const;

 private:
  // Offsets in its descriptors count from the start of the tables and of the image.
  struct Row {
    Image image;
    std::vector<CropDescriptor> crops;
    std::vector<int32_t> tables;
  };

  std::vector<Row> rows_;
  int crops_ = 0, channels_ = 0;
};

/// The normalisation of a configuration, as kernels take it.
PixelScale pixel_scale(const AugmentConfig& config);

}  // namespace dino
