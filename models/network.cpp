#include "models/network.h"

namespace dino {
namespace {

DinoHeadConfig with_input(DinoHeadConfig head, int64_t dim) {
  head.in = dim;
  return head;
}

}  // namespace

Network::Network(const NetworkConfig& config, const Placement& placement, uint64_t seed, bool gradients)
    : backbone_(make_backbone(parameters_, "backbone.", config.backbone)),
      head_(parameters_, "head.", with_input(config.head, feature_dim(backbone_))) {
  if (config.predictor_hidden)
    predictor_.emplace(parameters_, "predictor.", config.head.out, *config.predictor_hidden, config.head.batch_norm, config.head.gelu);
  parameters_.allocate(placement, seed, gradients);
}

Tensor Network::operator()(Context& context, std::span<const Tensor> crops, const Mode& mode) const {
  return logits(context, features(context, crops, mode), mode);
}

Tensor Network::features(Context& context, std::span<const Tensor> crops, const Mode& mode) const {
  return dino::features(context, backbone_, merge_equal_sizes(context, crops), mode);
}

Tensor Network::logits(Context& context, const Tensor& features, const Mode& mode) const {
  const Tensor logits = head_(context, features, mode);
  return predictor_ ? (*predictor_)(context, logits, mode) : logits;
}

std::vector<Tensor> merge_equal_sizes(Context& context, std::span<const Tensor> crops) {
  std::vector<Tensor> groups;
  for (const Tensor& crop : crops) {
    if (groups.empty() || groups.back().shape()[1] != crop.shape()[1] || groups.back().shape()[2] != crop.shape()[2]) {
      groups.push_back(crop);
      continue;
    }
    const Shape& shape = crop.shape();
    const Tensor both = run(context, ConcatRows{}, {groups.back(), crop})[ConcatRows::y];
    groups.back() = both.reshaped(Shape{groups.back().shape()[0] + shape[0], shape[1], shape[2], shape[3]});
  }
  return groups;
}

}  // namespace dino
