#pragma once

#include <string>

#include "models/layers.h"

namespace dino {

/// One pre-norm transformer block: x += attention(norm1(x)); x += mlp(norm2(x)), each branch with drop path.
struct TransformerBlock {
  NormLayer norm1, norm2;
  LinearLayer qkv, proj, fc1, fc2;
  int64_t dim = 0, heads = 0;
  Activation gelu = Activation::gelu;

  static TransformerBlock declare(ParameterStore& store, const std::string& name, int64_t dim, int64_t heads,
                                  int64_t mlp_hidden, Activation gelu);

  /// Factors of the two branches per sequence [sequences]; absent ones are 1.
  struct Scales {
    Tensor attention, mlp;
  };

  /// Residual stream [tokens, dim] → the same, with the MLP's branch still to be added.
  void operator()(Context& context, Residual& residual, const Sequences& sequences, const Scales& scales) const;

  /// The same for the CLS tokens only: [tokens, dim] → [sequences, dim]. Exact, and all that a last block needs whose
  /// patch tokens nobody reads: q, projection and MLP run on one row per image.
  void cls_only(Context& context, Residual& residual, const Sequences& sequences, const Scales& scales) const;

  /// Softmax attention [images, heads, tokens, tokens] of this block for images of one size.
  Tensor attention_probabilities(Context& context, Residual& residual, const Sequences& sequences) const;

 private:
  Tensor mlp(Context& context, const Tensor& x) const;
  double scale() const;
};

}  // namespace dino
