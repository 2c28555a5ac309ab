#pragma once

#include <array>

#include "kernels/op.h"
#include "kernels/sequences.h"

namespace dino {

/// Cuts NHWC images into flattened patches, so that the patch embedding is one matmul for all resolutions. Inside a
/// patch the order is channel, row, column: the order of a convolution weight [dim, channels, p, p]. Pixels beyond the
/// last whole patch at the bottom and the right are left out.
struct Patchify {
  static constexpr std::string_view kName = "patchify";
  static constexpr std::array<std::string_view, 4> kInputs = {"images0", "images1", "images2", "images3"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"patches"};
  enum Outputs { patches };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr uint32_t kDifferentiable = 0b1111;

  int64_t patch = 16;
  Sequences sequences;  ///< one group for each input
  Dtype output = Dtype::none;  ///< of patches: bf16; none: as the images

  /// images_g [count_g, height, width, channels] → patches [Σ count·rows·cols, channels · patch²].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<Patchify>> cases(Tiny);
  static std::vector<Case<Patchify>> cases(Real);
};

}  // namespace dino
