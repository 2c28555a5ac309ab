#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// y = x in another floating-point type; f32 gradients of x.
struct Cast {
  static constexpr std::string_view kName = "cast";
  static constexpr std::array<std::string_view, 1> kInputs = {"x"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x };
  enum Outputs { y };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr bool kOwnBf16 = true;
  static constexpr uint32_t kDifferentiable = bit(x);

  Dtype output = Dtype::none;  ///< of y: bf16; none: as x, so that y is a copy

  /// x [any] → y [as x].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  static std::vector<Case<Cast>> cases(Tiny);
  static std::vector<Case<Cast>> cases(Real);
};

}  // namespace dino
