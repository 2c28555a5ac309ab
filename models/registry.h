#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "models/conv_net.h"
#include "models/resnet.h"
#include "models/vit.h"

namespace dino {

/// What a user may say about a backbone. Everything but the name is optional and overrides what the name stands for.
struct BackboneConfig {
  std::string arch = "vit_small";
  int64_t image_size = 224;        ///< pixels of the global crops
  int64_t channels = 3;
  int64_t patch_size = 16;         ///< ViT and hybrid
  double drop_path_rate = 0;       ///< ViT and hybrid
  Activation gelu = Activation::gelu;  ///< ViT and hybrid: or gelu_tanh
  bool recompute = false;          ///< ViT and hybrid: keep less for backward and compute it anew
  std::optional<int64_t> embed_dim, depth, heads;
  std::optional<double> mlp_ratio;
  std::optional<std::vector<int64_t>> conv_widths;  ///< conv_small
  std::optional<int64_t> conv_pool;                 ///< conv_small
};

using Backbone = std::variant<VisionTransformer, ConvNet, ResNet>;

/// The form of GELU that `name` (erf, tanh) stands for. Throws UsageError for another name.
Activation gelu_named(const std::string& name);

/// Names that `make_backbone` knows, for messages.
const std::vector<std::string>& backbone_names();

/// Whether a name stands for a transformer: these have patches, and blocks that can be computed anew. False for an unknown name.
bool is_transformer(const std::string& arch);

/// Whether a backbone has batch norm, so that the images of a batch are not independent of one another.
bool has_batch_norm(const std::string& arch);

/// The residual network with these blocks in its stages; empty if none has them.
std::string resnet_named(const std::array<int64_t, 4>& blocks, bool bottleneck);

/// Declares the backbone that `config` describes. Throws UsageError for an unknown name, with the nearest known one.
Backbone make_backbone(ParameterStore& store, const std::string& prefix, const BackboneConfig& config);

/// Length of the feature of one image.
int64_t feature_dim(const Backbone& backbone);

/// Features [images, dim] of NHWC tensors, one for each resolution.
Tensor features(Context& context, const Backbone& backbone, std::span<const Tensor> images, const Mode& mode);

/// The candidate nearest to `word` by edit distance, for "did you mean"; empty if none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace dino
