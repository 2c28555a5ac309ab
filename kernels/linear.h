#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// y = x Wᵀ + b.
struct Linear {
  static constexpr std::string_view kName = "linear";
  static constexpr std::array<std::string_view, 3> kInputs = {"x", "weight", "bias"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x, weight, bias };
  enum Outputs { y };
  static constexpr uint32_t kWideGradients = bit(weight) | bit(bias);
  static constexpr uint32_t kDifferentiable = bit(x) | bit(weight) | bit(bias);
  static constexpr bool kStridedInputs = true;
  static constexpr bool kOwnBf16 = true;

  Dtype output = Dtype::none;  ///< of y: f32, though x is bf16; none: as x

  /// x [rows, in], weight [out, in], optional bias [out] → y [rows, out].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(x) | bit(weight), 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<Linear>> cases(Tiny);
  static std::vector<Case<Linear>> cases(Real);
  double flops(std::span<const Spec> in) const;
  /// The most that forward and backward take on the host besides their inputs and outputs, in bytes.
  size_t host_scratch(std::span<const Spec> in) const;
};

}  // namespace dino
