#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// Two-dimensional convolution (cross-correlation, as in all of deep learning) of images whose channels lie
/// innermost: y[n, i, j, o] = bias[o] + Σ_{c, r, s} x[n, i·stride + r − pad, j·stride + s − pad, c] ·
/// weight[o, c, r, s], where x is zero outside of the image.
struct Conv2d {
  static constexpr std::string_view kName = "conv2d";
  static constexpr std::array<std::string_view, 3> kInputs = {"x", "weight", "bias"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x, weight, bias };
  enum Outputs { y };
  static constexpr uint32_t kWideGradients = bit(weight) | bit(bias);
  static constexpr uint32_t kDifferentiable = bit(x) | bit(weight) | bit(bias);

  int64_t kernel = 3;  ///< height and width of the filter, in pixels
  int64_t stride = 1;
  int64_t pad = 1;  ///< zeros on each side

  /// x [images, height, width, in_channels], weight [out_channels, in_channels, kernel, kernel] (the layout
  /// of checkpoints), optional bias [out_channels] → y [images, out_height, out_width, out_channels] with
  /// out_height = ⌊(height + 2 · pad − kernel) / stride⌋ + 1. All views are dense.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(x) | bit(weight), 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  static std::vector<Case<Conv2d>> cases(Tiny);
  static std::vector<Case<Conv2d>> cases(Real);
  double flops(std::span<const Spec> in) const;
  /// The most that backward takes on the host besides its inputs and outputs, in bytes.
  size_t host_scratch(std::span<const Spec> in) const;
};

}  // namespace dino
