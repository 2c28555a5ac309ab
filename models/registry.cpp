#include "models/registry.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace dino {
namespace {

struct VitSize {
  int64_t dim, depth, heads;
  bool conv_stem;
};

const std::map<std::string, VitSize>& vit_sizes() {
  static const std::map<std::string, VitSize> sizes = {
      {"vit_tiny", {192, 12, 3, false}},  {"vit_small", {384, 12, 6, false}}, {"vit_base", {768, 12, 12, false}},
      {"deit_tiny", {192, 12, 3, false}}, {"deit_small", {384, 12, 6, false}}, {"hybrid_small", {128, 4, 4, true}},
  };
  return sizes;
}

struct ResNetSize {
  std::array<int64_t, 4> blocks;
  bool bottleneck;
  bool operator==(const ResNetSize&) const = default;
};

/// He et al. (2016), table 1.
const std::map<std::string, ResNetSize>& resnet_sizes() {
  static const std::map<std::string, ResNetSize> sizes = {
      {"resnet18", {{2, 2, 2, 2}, false}}, {"resnet34", {{3, 4, 6, 3}, false}},   {"resnet50", {{3, 4, 6, 3}, true}},
      {"resnet101", {{3, 4, 23, 3}, true}}, {"resnet152", {{3, 8, 36, 3}, true}},
  };
  return sizes;
}

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = 1 + word.size() / 3;
  for (const std::string& candidate : candidates)
    if (const size_t distance = edit_distance(word, candidate); distance <= best_distance && (best.empty() || distance < best_distance)) {
      best = candidate;
      best_distance = distance;
    }
  return best;
}

Activation gelu_named(const std::string& name) {
  check<UsageError>(name == "erf" || name == "tanh", "--gelu ", name, " is not known (known: erf, which is exact, and tanh)");
  return name == "erf" ? Activation::gelu : Activation::gelu_tanh;
}

const std::vector<std::string>& backbone_names() {
  static const std::vector<std::string> names = {"vit_tiny", "vit_small", "vit_base", "resnet18",  "resnet34",   "resnet50",
                                                 "resnet101", "resnet152", "conv_small", "hybrid_small", "deit_tiny", "deit_small"};
  return names;
}

bool is_transformer(const std::string& arch) { return vit_sizes().contains(arch); }

bool has_batch_norm(const std::string& arch) {
  const auto vit = vit_sizes().find(arch);
  return vit == vit_sizes().end() || vit->second.conv_stem;
}

std::string resnet_named(const std::array<int64_t, 4>& blocks, bool bottleneck) {
  for (const auto& [name, size] : resnet_sizes())
    if (size == ResNetSize{blocks, bottleneck}) return name;
  return {};
}

Backbone make_backbone(ParameterStore& store, const std::string& prefix, const BackboneConfig& config) {
  if (config.arch == "conv_small") {
    ConvNetConfig conv{.channels = config.channels};
    if (config.conv_widths) conv.widths = *config.conv_widths;
    if (config.conv_pool) conv.pool = *config.conv_pool;
    return ConvNet(store, prefix, conv);
  }
  if (const auto resnet = resnet_sizes().find(config.arch); resnet != resnet_sizes().end())
    return ResNet(store, prefix, {.channels = config.channels, .blocks = resnet->second.blocks, .bottleneck = resnet->second.bottleneck});
  const auto size = vit_sizes().find(config.arch);
  if (size == vit_sizes().end()) {
    const std::string near = nearest(config.arch, backbone_names());
    std::string known;
    for (const std::string& name : backbone_names()) known += (known.empty() ? "" : ", ") + name;
    throw UsageError(str("--arch ", config.arch, " is not known", near.empty() ? "" : str("; did you mean ", near, "?"), " (known: ", known, ")"));
  }
  return VisionTransformer(store, prefix,
                           VitConfig{.image_size = config.image_size,
                                     .patch = config.patch_size,
                                     .channels = config.channels,
                                     .dim = config.embed_dim.value_or(size->second.dim),
                                     .depth = config.depth.value_or(size->second.depth),
                                     .heads = config.heads.value_or(size->second.heads),
                                     .mlp_ratio = config.mlp_ratio.value_or(4),
                                     .drop_path_rate = config.drop_path_rate,
                                     .gelu = config.gelu,
                                     .conv_stem = size->second.conv_stem,
                                     .recompute = config.recompute});
}

int64_t feature_dim(const Backbone& backbone) {
  return std::visit([](const auto& net) { return net.dim(); }, backbone);
}

Tensor features(Context& context, const Backbone& backbone, std::span<const Tensor> images, const Mode& mode) {
  return std::visit([&](const auto& net) { return net(context, images, mode); }, backbone);
}

}  // namespace dino
