#pragma once

#include <array>

#include "kernels/op.h"
#include "kernels/sequences.h"

namespace dino {

/// Draws which sequences keep which residual branch (stochastic depth; Huang et al., 2016). Layer i of `depth` drops
/// with rate max_rate · i / (depth − 1); a kept branch is scaled by 1 / (1 − rate). Draws depend on the run's seed, the
/// step, the branch and the identity of the sequence: with V crops of `crops_of` images each, sequence v · crops_of + b
/// of this micro-batch is sequence v · batch + first + b of the whole batch.
struct DropPathMask {
  static constexpr std::string_view kName = "drop_path_mask";
  static constexpr std::array<std::string_view, 1> kInputs = {"like"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"scale"};
  enum Inputs { like };
  enum Outputs { scale };
  static constexpr uint32_t kWideInputs = ~0u;

  int64_t depth = 1;
  double max_rate = 0;
  int64_t sequences = 1;  ///< in this micro-batch
  int64_t crops_of = 1;   ///< images in this micro-batch
  int64_t batch = 1;      ///< images in the whole batch
  int64_t first = 0;      ///< number of this micro-batch's first image in the whole batch

  /// like [any] gives the dtype → scale [2 · depth, sequences], 0 or 1 / (1 − rate); two branches per layer.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<DropPathMask>> cases(Tiny);
  static std::vector<Case<DropPathMask>> cases(Real);
};

/// y = x + scale[sequence of the row] · branch: a residual connection with drop path. Without scale, a plain sum.
struct ResidualAdd {
  static constexpr std::string_view kName = "residual_add";
  static constexpr std::array<std::string_view, 3> kInputs = {"x", "branch", "scale"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x, branch, scale };
  enum Outputs { y };
  static constexpr uint32_t kWideInputs = bit(x) | bit(scale);
  static constexpr uint32_t kDifferentiable = bit(x) | bit(branch);

  Sequences sequences;    ///< rows of x are tokens of these; not used without scale
  bool cls_only = false;  ///< each row of x is the CLS token of one sequence

  /// x [rows, dim], branch [rows, dim], optional scale [sequences] → y [rows, dim].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(scale), 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<ResidualAdd>> cases(Tiny);
  static std::vector<Case<ResidualAdd>> cases(Real);
};

}  // namespace dino
