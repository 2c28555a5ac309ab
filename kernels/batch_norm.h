#pragma once

#include <array>

#include "kernels/activation.h"
#include "kernels/op.h"

namespace dino {

/// Batch normalisation (Ioffe, Szegedy, 2015) with what usually follows it: with one mean and variance per
/// channel, y = activation((x − mean) · rstd · gamma + beta + residual) and rstd = 1 / √(variance + eps).
struct BatchNorm {
  static constexpr std::string_view kName = "batch_norm";
  static constexpr std::array<std::string_view, 6> kInputs = {
      "x", "gamma", "beta", "running_mean", "running_var", "residual"};
  static constexpr std::array<std::string_view, 4> kOutputs = {"y", "mean", "var", "rstd"};
  enum Inputs { x, gamma, beta, running_mean, running_var, residual };
  enum Outputs { y, mean, var, rstd };
  static constexpr uint32_t kWideInputs = bit(gamma) | bit(beta) | bit(running_mean) | bit(running_var);
  static constexpr uint32_t kDifferentiable = bit(x) | bit(gamma) | bit(beta) | bit(residual);

  double eps = 1e-5;
  bool training =
      true;  ///< statistics of this batch, which have a gradient; else the running ones, which have none
  Activation activation = Activation::none;

  /// x [rows, channels] with any leading axes as rows; optional gamma (else 1), beta (else 0), both
  /// [channels]; running_mean and running_var [channels], read only if not training; optional residual like x
  /// → y like x; mean, biased var and rstd, which y was computed with, [channels]. Training takes at least
  /// two rows. All views are dense.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                std::span<const View> dout, std::span<const Grad> din) const;
  static std::vector<Case<BatchNorm>> cases(Tiny);
  static std::vector<Case<BatchNorm>> cases(Real);
};

/// The running statistics that evaluation uses: new = (1 − momentum) · old + momentum · batch, with the
/// unbiased variance of the batch. Outputs may lie where the inputs lie.
struct RunningStats {
  static constexpr std::string_view kName = "running_stats";
  static constexpr std::array<std::string_view, 4> kInputs = {"running_mean", "running_var", "mean", "var"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"new_mean", "new_var"};
  enum Inputs { running_mean, running_var, mean, var };
  enum Outputs { new_mean, new_var };
  static constexpr uint32_t kWideInputs = ~0u;

  double momentum = 0.1;
  int64_t count = 2;  ///< rows that mean and the biased var were taken over, at least 2

  /// All [channels].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<RunningStats>> cases(Tiny);
  static std::vector<Case<RunningStats>> cases(Real);
};

}  // namespace dino
