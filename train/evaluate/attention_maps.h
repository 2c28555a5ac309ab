#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "augment/image.h"
#include "engine/run.h"
#include "models/vit.h"

namespace dino {

/// How much the CLS token of the last block attends to each patch.
struct AttentionMaps {
  int64_t heads = 0, rows = 0, cols = 0;
  std::vector<float> values;  ///< [heads, rows, cols]; with the CLS token's own share each head sums to 1

  std::span<const float> map(int64_t head) const {
    return std::span(values).subspan(static_cast<size_t>(head * rows * cols),
                                     static_cast<size_t>(rows * cols));
  }
};

/// An image as the network sees it, to be looked at and normalised.
struct PreparedImage {
  Image shown;   ///< [height, width, 1 or 3] in bytes, both multiples of the patch size
  Tensor input;  ///< [1, height, width, channels]
};

/// Resizes (bilinear) to `height` x `width` and cuts right and bottom to multiples of `patch`. `mean` and
/// `deviation` as in EvaluationConfig. Throws UsageError if that leaves nothing.
PreparedImage prepare_for_attention(Context& context, const Image& image, int height, int width, int patch,
                                    std::span<const float> mean, std::span<const float> deviation);

/// The maps of one image [1, height, width, channels].
AttentionMaps attention_maps(Context& context, const VisionTransformer& vit, const Tensor& image);

/// The mean over the heads, [rows, cols].
std::vector<float> mean_map(const AttentionMaps& maps);

/// Marks the fewest patches that hold the share `threshold` of the map's mass: sorted ascending, those whose
/// cumulative share exceeds 1 − threshold.
std::vector<uint8_t> mass_mask(std::span<const float> map, double threshold);

/// The map [rows, cols] in colours from its smallest to its largest value, every patch as patch x patch equal
/// pixels.
Image draw_map(std::span<const float> map, int64_t rows, int64_t cols, int patch);

/// `image` with the patches of a mask [rows, cols] half covered by a colour.
Image draw_mask(const Image& image, std::span<const uint8_t> mask, int64_t cols, int patch);

/// The normalised input stretched from its smallest to its largest value, as a colour (or gray) image; of other channels as `to_look_at`.
Image draw_input(const Tensor& input);

/// Writes img.png, attn-head{j}.png, attn-mean.png, attention.npy [heads, rows, cols] and, for a threshold in
/// (0, 1), mask_th{threshold}_head{j}.png. Returns the paths. Throws Error if a file cannot be written.
std::vector<std::string> save_attention(const std::string& folder, const PreparedImage& image,
                                        const AttentionMaps& maps, int patch, double threshold = 0);

}  // namespace dino
