#pragma once

#include <span>
#include <vector>

#include "models/layers.h"

namespace dino {

/// The dimensions of a small residual network.
struct ConvNetConfig {
  int64_t channels = 3;                        ///< of the images
  std::vector<int64_t> widths = {32, 64, 256}; ///< channels of the stages; each stage but the first halves the resolution
  int64_t pool = 2;                            ///< the feature is the last map averaged to pool × pool cells
};

/// A small convolutional network for little data and little time: a 3×3 stride-2 stem and one basic residual block
/// (He et al., 2016) per stage. Its feature is the last map, averaged to a pool × pool grid and standardised by a batch
/// norm without scale and shift.
class ConvNet {
 public:
  ConvNet(ParameterStore& store, const std::string& prefix, const ConvNetConfig& config);

  const ConvNetConfig& config() const { return config_; }
  int64_t dim() const { return config_.widths.back() * config_.pool * config_.pool; }

  /// images: NHWC tensors, one for each resolution → [images, dim]. Batch statistics are per resolution.
  Tensor operator()(Context& context, std::span<const Tensor> images, const Mode& mode) const;

 private:
  struct Stage {
    ConvLayer conv1, conv2, shortcut;
    BatchNormLayer bn1, bn2, shortcut_norm;
  };
  Tensor features(Context& context, const Tensor& images, const Mode& mode) const;

  ConvNetConfig config_;
  ConvLayer conv1_;
  BatchNormLayer bn1_, norm_;
  std::vector<Stage> stages_;
};

}  // namespace dino
