#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// Adaptive average pooling: output row i averages the input rows [⌊i · height / rows⌋, ⌈(i + 1) · height /
/// rows⌉), and columns likewise. rows = cols = 1 is global average pooling.
struct AveragePool {
  static constexpr std::string_view kName = "average_pool";
  static constexpr std::array<std::string_view, 1> kInputs = {"x"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x };
  enum Outputs { y };
  static constexpr uint32_t kDifferentiable = bit(x);

  int64_t rows = 1;
  int64_t cols = 1;

  /// x [images, height, width, channels] → y [images, rows, cols, channels]. Views are dense.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  static std::vector<Case<AveragePool>> cases(Tiny);
  static std::vector<Case<AveragePool>> cases(Real);
};

/// The maximum of each kernel × kernel window; what is outside of the image does not count. The first of
/// equal values wins, and a NaN wins over everything.
struct MaxPool {
  static constexpr std::string_view kName = "max_pool";
  static constexpr std::array<std::string_view, 1> kInputs = {"x"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"y", "index"};
  enum Inputs { x };
  enum Outputs { y, index };
  static constexpr uint32_t kDifferentiable = bit(x);

  int64_t kernel = 3;
  int64_t stride = 2;
  int64_t pad = 1;  ///< at most kernel / 2

  /// x [images, height, width, channels] → y [images, out_height, out_width, channels] with
  /// out_height = ⌊(height + 2 · pad − kernel) / stride⌋ + 1, and index of the same shape (i32): the pixel of
  /// the image, row · width + column, that won. Views are dense.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, bit(index)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  static std::vector<Case<MaxPool>> cases(Tiny);
  static std::vector<Case<MaxPool>> cases(Real);
};

}  // namespace dino
