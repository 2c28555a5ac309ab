#pragma once

#include <span>
#include <vector>

#include "models/block.h"

namespace dino {

/// The dimensions of a vision transformer.
struct VitConfig {
  int64_t image_size = 224;  ///< pixels; fixes the grid of the stored position embedding
  int64_t patch = 16;        ///< pixels
  int64_t channels = 3;      ///< of the images
  int64_t dim = 384;
  int64_t depth = 12;
  int64_t heads = 6;
  double mlp_ratio = 4;
  double drop_path_rate = 0; ///< of the last block; rises linearly from 0
  Activation gelu = Activation::gelu;  ///< or gelu_tanh
  bool conv_stem = false;    ///< patches by strided convolutions (a hybrid) instead of one linear map
  bool recompute = false;    ///< backward computes the activations inside of blocks anew instead of finding them kept
};

/// A vision transformer (Dosovitskiy et al., 2021), as the reference implementation of DINO defines it, or a hybrid whose
/// patch embedding is a stack of 3×3 stride-2 convolutions with batch norm and GELU (Xiao et al., 2021).
class VisionTransformer {
 public:
  /// Declares all parameters, with names that begin with `prefix`. Throws UsageError for impossible dimensions.
  VisionTransformer(ParameterStore& store, const std::string& prefix, const VitConfig& config);

  const VitConfig& config() const { return config_; }
  int64_t dim() const { return config_.dim; }

  /// Features: the normed CLS token of each image. images: NHWC tensors, one for each resolution → [images, dim].
  Tensor operator()(Context& context, std::span<const Tensor> images, const Mode& mode) const;

  /// All tokens after each of the last `n` blocks, normed, shallow to deep: n × [tokens, dim].
  std::vector<Tensor> last_blocks(Context& context, std::span<const Tensor> images, int64_t n) const;

  /// Attention of the last block: images [n, height, width, channels] → [n, heads, tokens, tokens].
  Tensor last_attention(Context& context, const Tensor& images) const;

  /// The position table for images of these sizes: [Σ over resolutions of (1 + rows · cols), dim].
  Tensor positions(Context& context, std::span<const Tensor> images) const;

  /// How the tokens of `images` divide into sequences.
  Sequences sequences(std::span<const Tensor> images) const;

 private:
  Tensor embed(Context& context, std::span<const Tensor> images, const Sequences& sequences, const Mode& mode) const;
  Tensor patches(Context& context, std::span<const Tensor> images, const Sequences& sequences, const Mode& mode) const;
  void run_block(Context& context, size_t block, Residual& residual, const Sequences& sequences,
                 const TransformerBlock::Scales& scales) const;
  std::vector<TransformerBlock::Scales> drop_path(Context& context, const Sequences& sequences, const Mode& mode) const;

  VitConfig config_;
  Parameter cls_token_, pos_embed_;
  LinearLayer patch_embed_;
  std::vector<ConvLayer> stem_;
  std::vector<BatchNormLayer> stem_norms_;
  std::vector<TransformerBlock> blocks_;
  NormLayer norm_;
};

}  // namespace dino
