#pragma once

#include <array>

#include "kernels/op.h"
#include "kernels/sequences.h"

namespace dino {

/// A residual connection with drop path and the layer norm that follows it, in one pass over memory:
/// sum = x + scale[sequence of the row] · branch, y = layer_norm(sum); without scale, a plain sum.
struct ResidualLayerNorm {
  static constexpr std::string_view kName = "residual_layer_norm";
  static constexpr std::array<std::string_view, 5> kInputs = {"x", "branch", "scale", "gamma", "beta"};
  static constexpr std::array<std::string_view, 4> kOutputs = {"sum", "y", "mean", "rstd"};
  enum Inputs { x, branch, scale, gamma, beta };
  enum Outputs { sum, y, mean, rstd };
  static constexpr uint32_t kWideInputs = bit(x) | bit(scale) | bit(gamma) | bit(beta);
  static constexpr uint32_t kGradOutputs = bit(sum) | bit(y);
  static constexpr bool kOwnBf16 = true;
  static constexpr uint32_t kDifferentiable = bit(x) | bit(branch) | bit(gamma) | bit(beta);

  double eps = 1e-6;
  Dtype output = Dtype::none;  ///< of y: bf16; none: as x
  Sequences sequences;         ///< rows of x are tokens of these; not used without scale
  bool cls_only = false;       ///< each row of x is the CLS token of one sequence

  /// x [rows, dim], branch [rows, dim], optional scale [sequences], gamma [dim], beta [dim]
  /// → sum [rows, dim], y [rows, dim], mean [rows], rstd [rows].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(scale) | bit(gamma), bit(sum) | bit(mean) | bit(rstd)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  /// The gradients of sum, y, x and branch must not overlap.
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  static std::vector<Case<ResidualLayerNorm>> cases(Tiny);
  static std::vector<Case<ResidualLayerNorm>> cases(Real);
};

}  // namespace dino
