#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// Layer normalisation over the last axis (Ba, Kiros, Hinton, 2016): y = (x − mean) · rstd · gamma + beta with
/// rstd = 1 / √(variance + eps), biased variance.
struct LayerNorm {
  static constexpr std::string_view kName = "layer_norm";
  static constexpr std::array<std::string_view, 3> kInputs = {"x", "gamma", "beta"};
  static constexpr std::array<std::string_view, 3> kOutputs = {"y", "mean", "rstd"};
  enum Inputs { x, gamma, beta };
  enum Outputs { y, mean, rstd };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr bool kOwnBf16 = true;
  static constexpr uint32_t kDifferentiable = bit(x) | bit(gamma) | bit(beta);

  double eps = 1e-6;
  Dtype output = Dtype::none;  ///< of y: bf16; none: as x

  /// x [rows, dim], gamma [dim], beta [dim] → y [rows, dim], mean [rows], rstd [rows].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(x) | bit(gamma), bit(mean) | bit(rstd)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<LayerNorm>> cases(Tiny);
  static std::vector<Case<LayerNorm>> cases(Real);
};

}  // namespace dino
