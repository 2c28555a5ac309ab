#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// Teacher targets: softmax((logits − center) / temperature) over the prototypes, temperature from the step scalars.
/// Without center, plain sharpening (Caron et al., 2021, section 3.1).
struct TeacherSoftmax {
  static constexpr std::string_view kName = "teacher_softmax";
  static constexpr std::array<std::string_view, 2> kInputs = {"logits", "center"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"p"};
  enum Inputs { logits, center };
  enum Outputs { p };
  static constexpr uint32_t kWideInputs = ~0u;

  /// logits [rows, prototypes], optional center [1, prototypes] → p [rows, prototypes].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<TeacherSoftmax>> cases(Tiny);
  static std::vector<Case<TeacherSoftmax>> cases(Real);
};

/// Teacher targets of the MSE ablation: (logits − center) / ‖logits − center‖₂.
struct CenteredUnit {
  static constexpr std::string_view kName = "centered_unit";
  static constexpr std::array<std::string_view, 2> kInputs = {"logits", "center"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"p"};
  enum Inputs { logits, center };
  enum Outputs { p };
  static constexpr uint32_t kWideInputs = ~0u;

  /// logits [rows, prototypes], optional center [1, prototypes] → p [rows, prototypes].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<CenteredUnit>> cases(Tiny);
  static std::vector<Case<CenteredUnit>> cases(Real);
};

/// The DINO loss (Caron et al., 2021, equation 3): the mean over the pairs of a teacher crop q ∈ {0, 1} and a student
/// crop v ≠ q, and over the batch, of −Σ_k p_q[k] · log softmax(s_v / student_temp)[k].
struct DinoCrossEntropy {
  static constexpr std::string_view kName = "dino_cross_entropy";
  static constexpr std::array<std::string_view, 2> kInputs = {"student", "targets"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"loss", "lse"};
  enum Inputs { student, targets };
  enum Outputs { loss, lse };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr uint32_t kDifferentiable = bit(student);

  int64_t crops = 2;
  double student_temp = 0.1;

  /// student [crops · batch, prototypes], targets [2 · batch, prototypes], crop-major → loss [1], lse [crops · batch].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(student) | bit(targets), bit(lse)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<DinoCrossEntropy>> cases(Tiny);
  static std::vector<Case<DinoCrossEntropy>> cases(Real);
};

/// The mean over the same pairs of ‖s_v − p_q‖²: 2 − 2·cos for rows of length 1 (ablation of Caron et al., 2021, table 7).
struct CropsMse {
  static constexpr std::string_view kName = "crops_mse";
  static constexpr std::array<std::string_view, 2> kInputs = {"student", "targets"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"loss"};
  enum Inputs { student, targets };
  enum Outputs { loss };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr uint32_t kDifferentiable = bit(student);

  int64_t crops = 2;

  /// student [crops · batch, dim], targets [2 · batch, dim], crop-major → loss [1].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(student) | bit(targets), 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<CropsMse>> cases(Tiny);
  static std::vector<Case<CropsMse>> cases(Real);
};

/// What tells collapse from learning: the mean entropy of the targets, the entropy of their mean (both in nats), and the
/// share of prototypes that are somebody's largest.
struct TargetStatistics {
  static constexpr std::string_view kName = "target_statistics";
  static constexpr std::array<std::string_view, 1> kInputs = {"p"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"statistics"};
  enum Inputs { p };
  enum Outputs { statistics };
  static constexpr uint32_t kWideInputs = ~0u;

  /// p [rows, prototypes] → statistics [3].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<TargetStatistics>> cases(Tiny);
  static std::vector<Case<TargetStatistics>> cases(Real);
};

}  // namespace dino
