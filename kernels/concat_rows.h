#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// Stacks up to four matrices of equal width.
struct ConcatRows {
  static constexpr std::string_view kName = "concat_rows";
  static constexpr std::array<std::string_view, 4> kInputs = {"x0", "x1", "x2", "x3"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Outputs { y };
  static constexpr uint32_t kDifferentiable = 0b1111;

  /// x_i [rows_i, …, dim], absent ones at the end → y [Σ rows, dim].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<ConcatRows>> cases(Tiny);
  static std::vector<Case<ConcatRows>> cases(Real);
};

}  // namespace dino
