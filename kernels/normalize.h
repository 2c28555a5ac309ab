#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// y = x / max(‖x‖₂, eps) for each row.
struct L2Normalize {
  static constexpr std::string_view kName = "l2_normalize";
  static constexpr std::array<std::string_view, 1> kInputs = {"x"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"y", "norm"};
  enum Inputs { x };
  enum Outputs { y, norm };
  static constexpr uint32_t kDifferentiable = bit(x);

  double eps = 1e-12;

  /// x [rows, dim] → y [rows, dim], norm [rows] (after the maximum).
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, bit(y) | bit(norm)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<L2Normalize>> cases(Tiny);
  static std::vector<Case<L2Normalize>> cases(Real);
};

/// Weight normalisation (Salimans, Kingma, 2016): row k of w is g_k · v_k / ‖v_k‖₂.
struct WeightNorm {
  static constexpr std::string_view kName = "weight_norm";
  static constexpr std::array<std::string_view, 2> kInputs = {"g", "v"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"w", "norm"};
  enum Inputs { g, v };
  enum Outputs { w, norm };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr bool kOwnBf16 = true;
  static constexpr uint32_t kWideOutputGradients = bit(w);
  static constexpr uint32_t kDifferentiable = bit(g) | bit(v);

  Dtype output = Dtype::none;  ///< of w: bf16, with a gradient in f32; none: as v

  /// g [out, 1], v [out, in] → w [out, in], norm [out].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(g) | bit(v), bit(norm)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<WeightNorm>> cases(Tiny);
  static std::vector<Case<WeightNorm>> cases(Real);
};

}  // namespace dino
