#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// Cross-entropy between the softmax of logits and integer labels, averaged over the rows, for several
/// classifiers side by side that do not influence one another: the loss is the sum of theirs.
struct LabelCrossEntropy {
  static constexpr std::string_view kName = "label_cross_entropy";
  static constexpr std::array<std::string_view, 2> kInputs = {"logits", "labels"};
  static constexpr std::array<std::string_view, 3> kOutputs = {"loss", "losses", "lse"};
  enum Inputs { logits, labels };
  enum Outputs { loss, losses, lse };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr uint32_t kDifferentiable = bit(logits);

  int64_t heads =
      1;  ///< classifiers; columns [h · classes, (h + 1) · classes) of the logits are those of classifier h

  /// logits [rows, heads · classes], labels [rows] (i64, in [0, classes)) → loss [1], losses [heads] of each
  /// classifier, lse [rows, heads] (logarithm of the sum of the exponentials). Only `loss` has a gradient.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(logits) | bit(labels), bit(lse)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  static std::vector<Case<LabelCrossEntropy>> cases(Tiny);
  static std::vector<Case<LabelCrossEntropy>> cases(Real);
};

}  // namespace dino
