#include "models/dino_head.h"

#include <cmath>

namespace dino {

DinoHead::DinoHead(ParameterStore& store, const std::string& prefix, const DinoHeadConfig& config) : config_(config) {
  check<UsageError>(config.layers >= 1 && config.hidden > 0 && config.bottleneck > 0 && config.out > 1,
                    "the projection head needs at least one layer and two prototypes");
  const Init init = Init::truncated_normal(0.02);
  if (config.layers == 1) {
    mlp_.push_back(LinearLayer::declare(store, prefix + "mlp", config.in, config.bottleneck, init));
  } else {
    int64_t position = 0;  // in the reference's sequence of linear, [batch norm], GELU
    for (int64_t i = 0; i < config.layers; ++i) {
      const bool last = i + 1 == config.layers;
      mlp_.push_back(LinearLayer::declare(store, str(prefix, "mlp.", position++), i == 0 ? config.in : config.hidden,
                                          last ? config.bottleneck : config.hidden, init));
      if (last) break;
      if (config.batch_norm)
        norms_.push_back(BatchNormLayer::declare(store, str(prefix, "mlp.", position++), config.hidden, config.gelu));
      ++position;
    }
  }
  weight_g_ = store.add(prefix + "last_layer.weight_g", Shape{config.out, 1}, Init::ones(), !config.norm_last_layer);
  weight_v_ = store.add(prefix + "last_layer.weight_v", Shape{config.out, config.bottleneck},
                        Init::uniform_within(1 / std::sqrt(static_cast<double>(config.bottleneck))));
}

Tensor DinoHead::operator()(Context& context, const Tensor& features, const Mode& mode) const {
  Tensor x = features;
  for (size_t i = 0; i < mlp_.size(); ++i) {
    x = mlp_[i](context, x);
    if (i + 1 == mlp_.size()) break;
    x = config_.batch_norm ? norms_[i](context, x, mode) : run(context, Gelu{.form = config_.gelu}, {x})[Gelu::y];
  }
  const Tensor unit = run(context, L2Normalize{}, {x})[L2Normalize::y];
  const ParameterStore& store = *weight_v_.store;
  const WeightNorm norm{.output = store.operand_dtype()};
  const Tensor prototypes = run(context, norm, {weight_g_.tensor(), weight_v_.tensor()})[WeightNorm::w];
  return run(context, Linear{.output = store.dtype()}, {unit, prototypes})[Linear::y];  // logits stay wide
}

Predictor::Predictor(ParameterStore& store, const std::string& prefix, int64_t dim, int64_t hidden, bool batch_norm, Activation gelu)
    : gelu_(gelu) {
  const Init init = Init::truncated_normal(0.02);
  first_ = LinearLayer::declare(store, prefix + "0", dim, hidden, init);
  if (batch_norm) norm_.push_back(BatchNormLayer::declare(store, prefix + "1", hidden, gelu));
  second_ = LinearLayer::declare(store, prefix + (batch_norm ? "3" : "2"), hidden, dim, init);
}

Tensor Predictor::operator()(Context& context, const Tensor& logits, const Mode& mode) const {
  const Tensor hidden = first_(context, logits);
  const Tensor active = norm_.empty() ? run(context, Gelu{.form = gelu_}, {hidden})[Gelu::y] : norm_.front()(context, hidden, mode);
  return second_(context, active, /*wide=*/true);
}

}  // namespace dino
