#pragma once

#include <array>

#include "kernels/op.h"
#include "kernels/sequences.h"

namespace dino {

/// Multi-head softmax attention inside each sequence (Vaswani et al., 2017): o = softmax(q kᵀ · scale) v per head. The
/// score matrix exists per thread and head only; backward recomputes it from the log-sum-exp of each row.
struct Attention {
  static constexpr std::string_view kName = "attention";
  static constexpr std::array<std::string_view, 3> kInputs = {"q", "k", "v"};
  static constexpr std::array<std::string_view, 2> kOutputs = {"o", "lse"};
  enum Inputs { q, k, v };
  enum Outputs { o, lse };
  static constexpr bool kOwnBf16 = true;
  static constexpr uint32_t kDifferentiable = bit(q) | bit(k) | bit(v);
  static constexpr bool kStridedInputs = true;

  int64_t heads = 1;
  double scale = 1;       ///< usually 1 / √(dim of a head)
  Sequences sequences;
  bool cls_only = false;  ///< q has one row per sequence, the CLS token's

  /// q [tokens or sequences, dim], k and v [tokens, dim], rows may be strided → o like q, lse [rows of q, heads].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {bit(q) | bit(k) | bit(v), bit(o) | bit(lse)}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<Attention>> cases(Tiny);
  static std::vector<Case<Attention>> cases(Real);
  double flops(std::span<const Spec> in) const;
};

/// The matrix that `Attention` never stores: softmax(q kᵀ · scale). For visualisation; all images of one size.
struct AttentionProbabilities {
  static constexpr std::string_view kName = "attention_probabilities";
  static constexpr std::array<std::string_view, 2> kInputs = {"q", "k"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"p"};
  enum Inputs { q, k };
  enum Outputs { p };

  int64_t heads = 1;
  double scale = 1;
  Sequences sequences;  ///< one group

  /// q, k [images · tokens, dim] → p [images, heads, tokens, tokens].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<AttentionProbabilities>> cases(Tiny);
  static std::vector<Case<AttentionProbabilities>> cases(Real);
};

}  // namespace dino
