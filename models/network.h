#pragma once

#include <optional>

#include "models/dino_head.h"
#include "models/registry.h"

namespace dino {

/// Backbone, projection head and, on a student, perhaps a predictor. Student and teacher are two of these.
struct NetworkConfig {
  BackboneConfig backbone;
  DinoHeadConfig head;                     ///< `in` is set from the backbone
  std::optional<int64_t> predictor_hidden; ///< a predictor with this hidden layer
};

/// One network with its parameters.
class Network {
 public:
  Network(const NetworkConfig& config, const Placement& placement, uint64_t seed, bool gradients);

  ParameterStore& parameters() { return parameters_; }
  const ParameterStore& parameters() const { return parameters_; }
  const Backbone& backbone() const { return backbone_; }
  const DinoHead& head() const { return head_; }

  /// Logits of crops (Caron et al., 2021, algorithm 1). `crops` are NHWC tensors [crops · batch, height, width, channels],
  /// crop-major; consecutive ones of equal width go through the backbone as one batch, which matters to batch norm; the
  /// head sees all rows at once → [Σ rows, prototypes].
  Tensor operator()(Context& context, std::span<const Tensor> crops, const Mode& mode) const;

  /// Its two parts: crops → features [Σ rows, dim] → logits.
  Tensor features(Context& context, std::span<const Tensor> crops, const Mode& mode) const;
  Tensor logits(Context& context, const Tensor& features, const Mode& mode) const;

 private:
  ParameterStore parameters_;
  Backbone backbone_;
  DinoHead head_;
  std::optional<Predictor> predictor_;
};

/// Merges consecutive NHWC tensors of equal height and width into one.
std::vector<Tensor> merge_equal_sizes(Context& context, std::span<const Tensor> crops);

}  // namespace dino
