#pragma once

#include <array>

#include "kernels/op.h"

namespace dino {

/// The k rows of `bank` with the largest dot product with each query, largest first, ties by the lower index.
struct TopK {
  static constexpr std::string_view kName = "top_k";
  static constexpr std::array<std::string_view, 2> kInputs = {"queries", "bank"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"scores", "indices"};
  enum Inputs { queries, bank };
  enum Outputs { scores, indices };
  static constexpr uint32_t kWideInputs = ~0u;

  int64_t k = 20;

  /// queries [queries, dim], bank [rows ≥ k, dim] → scores [queries, k], indices [queries, k] (i64).
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<TopK>> cases(Tiny);
  static std::vector<Case<TopK>> cases(Real);
};

}  // namespace dino
