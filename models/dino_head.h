#pragma once

#include <string>
#include <vector>

#include "models/layers.h"

namespace dino {

/// The dimensions of a DINO projection head.
struct DinoHeadConfig {
  int64_t in = 384;
  int64_t hidden = 2048;
  int64_t bottleneck = 256;
  int64_t out = 65536;            ///< prototypes
  int64_t layers = 3;             ///< of the MLP, before the last layer
  bool batch_norm = false;
  bool norm_last_layer = true;    ///< keep the length of each prototype at 1
  Activation gelu = Activation::gelu;  ///< or gelu_tanh
};

/// The projection head of DINO (Caron et al., 2021, section 3.1): an MLP, L2 normalisation, and a weight-normalised linear
/// layer whose rows are the prototypes.
class DinoHead {
 public:
  DinoHead(ParameterStore& store, const std::string& prefix, const DinoHeadConfig& config);

  const DinoHeadConfig& config() const { return config_; }

  /// features [rows, in] → logits [rows, out].
  Tensor operator()(Context& context, const Tensor& features, const Mode& mode) const;

 private:
  DinoHeadConfig config_;
  std::vector<LinearLayer> mlp_;
  std::vector<BatchNormLayer> norms_;
  Parameter weight_g_, weight_v_;
};

/// The predictor of BYOL (Grill et al., 2020) on top of the student's head: linear, [batch norm], GELU, linear. The DINO
/// paper does not give its dimensions; here the hidden layer is given and input and output are the prototypes.
class Predictor {
 public:
  Predictor(ParameterStore& store, const std::string& prefix, int64_t dim, int64_t hidden, bool batch_norm, Activation gelu);

  /// logits [rows, dim] → [rows, dim].
  Tensor operator()(Context& context, const Tensor& logits, const Mode& mode) const;

 private:
  Activation gelu_;
  LinearLayer first_, second_;
  std::vector<BatchNormLayer> norm_;
};

}  // namespace dino
