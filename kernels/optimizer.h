#pragma once

#include <array>
#include <bit>

#include "kernels/op.h"

namespace dino {

/// Columns of a segment table.
enum Segment { kBegin, kCount, kRegularized, kActive, kRate, kSegmentColumns };

/// A rate as the table holds it: what the learning rate of a tensor is multiplied with, such as 0.65 of that of the head.
inline int64_t rate_bits(double rate) { return std::bit_cast<int64_t>(rate); }

/// ‖grad‖₂ of each tensor of a flat buffer.
/// Parameters lie in one flat buffer; row t of `segments` (i64) is {begin, count, regularized, active, rate_bits} of tensor
/// t, in elements. Tensors do not overlap, and their begins ascend. Those that are not active have no gradient in this step:
/// they, their state and their step count stay.
struct GradNorm {
  static constexpr std::string_view kName = "grad_norm";
  static constexpr std::array<std::string_view, 2> kInputs = {"grad", "segments"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"norms"};
  enum Inputs { grad, segments };
  enum Outputs { norms };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr uint32_t kAnyShape = bit(grad);  ///< the segments say what is read

  /// grad [elements], segments [tensors, 5] → norms [tensors]; 0 for tensors that are not active.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<GradNorm>> cases(Tiny);
  static std::vector<Case<GradNorm>> cases(Real);
};

/// 1 if the loss and the gradient norms of all active tensors are finite, else 0. Updates of a sick step do nothing.
struct Health {
  static constexpr std::string_view kName = "health";
  static constexpr std::array<std::string_view, 3> kInputs = {"loss", "norms", "segments"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"healthy"};
  enum Inputs { loss, norms, segments };
  enum Outputs { healthy };
  static constexpr uint32_t kWideInputs = ~0u;

  /// loss [1], norms [tensors], segments [tensors, 5] → healthy [1].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<Health>> cases(Tiny);
  static std::vector<Case<Health>> cases(Real);
};

/// AdamW with decoupled weight decay (Loshchilov, Hutter, 2019) after clipping each tensor's gradient to norm `clip`:
/// w ← w(1 − ηδ) − (η / (1 − β₁ᵗ)) · m / (√v / √(1 − β₂ᵗ) + eps), η (times the tensor's rate) and δ from the step scalars, t counted
/// per tensor.
/// With a teacher also teacher ← m · teacher + (1 − m) · w for all elements that it has, as Ema does, and with
/// `bf16_copies` (of f32 only) weights and teacher rounded to bf16, so that one pass over the parameters is enough.
/// Outputs may be the inputs themselves.
struct AdamW {
  static constexpr std::string_view kName = "adamw";
  static constexpr std::array<std::string_view, 9> kInputs = {"weight", "grad",     "m",       "v",      "steps",
                                                              "norms",  "segments", "healthy", "teacher"};
  static constexpr std::array<std::string_view, 7> kOutputs = {"new_weight",  "new_m",       "new_v",       "new_steps",
                                                               "new_teacher", "weight_copy", "teacher_copy"};
  enum Inputs { weight, grad, m, v, steps, norms, segments, healthy, teacher };
  enum Outputs { new_weight, new_m, new_v, new_steps, new_teacher, weight_copy, teacher_copy };
  static constexpr uint32_t kWideInputs = ~0u;

  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double clip = 0;           ///< 0: no clipping
  bool bf16_copies = false;  ///< whether the copies are wanted

  /// weight, grad, m, v [elements]; steps, norms [tensors]; segments [tensors, 5]; healthy [1]; optional teacher
  /// [≤ elements] → like weight, m, v, steps, teacher; copies like weight and teacher, or absent.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<AdamW>> cases(Tiny);
  static std::vector<Case<AdamW>> cases(Real);
};

/// Stochastic gradient descent with momentum and coupled decay: g ← g + δw; b ← momentum · b + g; w ← w − ηb.
/// Outputs may be the inputs themselves.
struct Sgd {
  static constexpr std::string_view kName = "sgd";
  static constexpr std::array<std::string_view, 6> kInputs = {"weight", "grad", "momentum_buffer", "norms", "segments", "healthy"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"new_weight", "new_buffer"};
  enum Inputs { weight, grad, momentum_buffer, norms, segments, healthy };
  enum Outputs { new_weight, new_buffer };
  static constexpr uint32_t kWideInputs = ~0u;

  double momentum = 0.9;
  double clip = 0;

  /// weight, grad, momentum_buffer [elements]; norms [tensors]; segments [tensors, 5]; healthy [1] → like the first and third.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<Sgd>> cases(Tiny);
  static std::vector<Case<Sgd>> cases(Real);
};

/// LARS (You, Gitman, Ginsburg, 2017): as SGD, but the decayed gradient of a regularized tensor is scaled by
/// trust · ‖w‖ / ‖g‖; other tensors are neither decayed nor scaled. Outputs may be the inputs themselves.
struct Lars {
  static constexpr std::string_view kName = "lars";
  static constexpr std::array<std::string_view, 6> kInputs = {"weight", "grad", "momentum_buffer", "norms", "segments", "healthy"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"new_weight", "new_buffer"};
  enum Inputs { weight, grad, momentum_buffer, norms, segments, healthy };
  enum Outputs { new_weight, new_buffer };
  static constexpr uint32_t kWideInputs = ~0u;

  double momentum = 0.9;
  double trust = 0.001;
  double clip = 0;

  /// weight, grad, momentum_buffer [elements]; norms [tensors]; segments [tensors, 5]; healthy [1] → like the first and third.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<Lars>> cases(Tiny);
  static std::vector<Case<Lars>> cases(Real);
};

/// teacher ← m · teacher + (1 − m) · student, m from the step scalars (or 0, to copy), unless `healthy` is 0.
struct Ema {
  static constexpr std::string_view kName = "ema";
  static constexpr std::array<std::string_view, 3> kInputs = {"teacher", "student", "healthy"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"updated"};
  enum Inputs { teacher, student, healthy };
  enum Outputs { updated };
  static constexpr uint32_t kWideInputs = ~0u;

  bool copy = false;  ///< m = 0

  /// teacher, student [elements], healthy [1] → updated [elements], which may be teacher itself.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<Ema>> cases(Tiny);
  static std::vector<Case<Ema>> cases(Real);
};

}  // namespace dino
