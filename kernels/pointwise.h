#pragma once

#include <array>

#include "kernels/activation.h"
#include "kernels/op.h"

namespace dino {

/// y = x · Φ(x), the Gaussian error linear unit, or y = x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2, which is within 5e-4 of
/// it (Hendrycks, Gimpel, 2016).
struct Gelu {
  static constexpr std::string_view kName = "gelu";
  static constexpr std::array<std::string_view, 1> kInputs = {"x"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x };
  enum Outputs { y };
  static constexpr bool kOwnBf16 = true;
  static constexpr uint32_t kDifferentiable = bit(x);

  Activation form = Activation::gelu;  ///< or gelu_tanh

  /// x of any shape → y of the same shape.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(x), 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<Gelu>> cases(Tiny);
  static std::vector<Case<Gelu>> cases(Real);
};

/// y = max(x, 0).
struct Relu {
  static constexpr std::string_view kName = "relu";
  static constexpr std::array<std::string_view, 1> kInputs = {"x"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x };
  enum Outputs { y };
  static constexpr uint32_t kDifferentiable = bit(x);

  /// x of any shape → y of the same shape.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, bit(y)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<Relu>> cases(Tiny);
  static std::vector<Case<Relu>> cases(Real);
};

}  // namespace dino
