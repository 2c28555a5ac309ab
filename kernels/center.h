#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// Sums over the rows, added to what earlier micro-batches had.
struct ColumnSums {
  static constexpr std::string_view kName = "column_sums";
  static constexpr std::array<std::string_view, 2> kInputs = {"x", "before"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"sums"};
  enum Inputs { x, before };
  enum Outputs { sums };
  static constexpr uint32_t kWideInputs = ~0u;

  /// x [rows, cols], optional before [1, cols] → sums [1, cols].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<ColumnSums>> cases(Tiny);
  static std::vector<Case<ColumnSums>> cases(Real);
};

/// c ← momentum · c + (1 − momentum) · sums / rows (Caron et al., 2021, equation 4), unless `healthy` is 0.
struct UpdateCenter {
  static constexpr std::string_view kName = "update_center";
  static constexpr std::array<std::string_view, 3> kInputs = {"center", "sums", "healthy"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"updated"};
  enum Inputs { center, sums, healthy };
  enum Outputs { updated };
  static constexpr uint32_t kWideInputs = ~0u;

  double momentum = 0.9;
  int64_t rows = 1;  ///< teacher rows that the sums cover

  /// center [1, prototypes], sums [1, prototypes], healthy [1] → updated [1, prototypes], which may be center itself.
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<UpdateCenter>> cases(Tiny);
  static std::vector<Case<UpdateCenter>> cases(Real);
};

}  // namespace dino
