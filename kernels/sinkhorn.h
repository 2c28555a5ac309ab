#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// Teacher targets by Sinkhorn-Knopp (Cuturi, 2013; Caron et al., 2020): from exp(logits / temperature), `iterations`
/// times each prototype is scaled to equal mass over the batch and then each sample to 1. One iteration is the
/// "softmax over the batch" of the DINO paper. Temperature from the step scalars.
struct Sinkhorn {
  static constexpr std::string_view kName = "sinkhorn";
  static constexpr std::array<std::string_view, 1> kInputs = {"logits"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"p"};
  enum Inputs { logits };
  enum Outputs { p };
  static constexpr uint32_t kWideInputs = ~0u;

  int iterations = 3;

  /// logits [rows, prototypes] → p [rows, prototypes], rows sum to 1.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<Sinkhorn>> cases(Tiny);
  static std::vector<Case<Sinkhorn>> cases(Real);
};

}  // namespace dino
