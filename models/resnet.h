#pragma once

#include <array>
#include <span>
#include <vector>

#include "models/layers.h"

namespace dino {

/// The dimensions of a residual network.
struct ResNetConfig {
  int64_t channels = 3;                         ///< of the images
  std::array<int64_t, 4> blocks = {3, 4, 6, 3}; ///< of the stages; each stage but the first halves the resolution
  bool bottleneck = true;                       ///< blocks of 1×1, 3×3 and 1×1 filters, four times as wide at their end; else of two 3×3 filters
  int64_t width = 64;                           ///< channels of the 3×3 filters of the first stage; each stage doubles them
};

/// A residual network (He et al., 2016) as torchvision builds it, with its names: a 7×7 stride-2 stem, max pooling, four stages of blocks
/// whose 3×3 filters take the stride, batch norm everywhere. Its feature is the last map averaged over all pixels; there is no classifier.
class ResNet {
 public:
  /// Declares all parameters, with names that begin with `prefix`. Throws UsageError for impossible dimensions.
  ResNet(ParameterStore& store, const std::string& prefix, const ResNetConfig& config);

  const ResNetConfig& config() const { return config_; }
  int64_t dim() const { return config_.width * 8 * expansion(); }

  /// images: NHWC tensors, one for each resolution → [images, dim]. Batch statistics are per resolution.
  Tensor operator()(Context& context, std::span<const Tensor> images, const Mode& mode) const;

 private:
  /// A convolution and the batch norm after it.
  struct Unit {
    ConvLayer conv;
    BatchNormLayer norm;
  };
  struct Block {
    std::vector<Unit> units;      ///< the last one's activation comes after the shortcut is added
    std::vector<Unit> shortcut;   ///< at most one; none is the identity
  };
  static Unit declare(ParameterStore& store, const std::string& conv, const std::string& norm, int64_t in, int64_t out, int64_t kernel, int64_t stride,
                      Activation activation);
  Block declare_block(ParameterStore& store, const std::string& name, int64_t in, int64_t width, int64_t stride) const;
  int64_t expansion() const { return config_.bottleneck ? 4 : 1; }
  Tensor features(Context& context, const Tensor& images, const Mode& mode) const;

  ResNetConfig config_;
  Unit stem_;
  std::vector<Block> blocks_;
};

}  // namespace dino
