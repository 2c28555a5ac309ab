#pragma once

#include <array>

#include "kernels/op.h"
#include "kernels/sequences.h"

namespace dino {

/// The table of position embeddings for the resolutions of a batch. A group with the grid of the stored embedding (and
/// square images) gets it unchanged; others get it resampled bicubically (A = −0.75, no antialiasing) with the scale
/// (rows + 0.1) / grid that the reference implementation of DINO uses for coordinates. The CLS entry is copied.
struct InterpolatePositions {
  static constexpr std::string_view kName = "interpolate_positions";
  static constexpr std::array<std::string_view, 1> kInputs = {"pos_embed"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"positions"};
  enum Inputs { pos_embed };
  enum Outputs { positions };
  static constexpr uint32_t kWideInputs = ~0u;
  static constexpr uint32_t kDifferentiable = bit(pos_embed);

  Sequences sequences;
  /// Whether the images of a group are square in pixels; the stored grid is used as it is only then.
  std::array<bool, Sequences::kMaxGroups> square{true, true, true, true};

  /// pos_embed [1, 1 + grid², dim] → positions [Σ over groups of (1 + rows · cols), dim].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<InterpolatePositions>> cases(Tiny);
  static std::vector<Case<InterpolatePositions>> cases(Real);
};

/// Builds the packed token matrix: in front of the patches of each image its CLS token, and positions added to both.
struct Tokens {
  static constexpr std::string_view kName = "tokens";
  static constexpr std::array<std::string_view, 3> kInputs = {"patches", "cls", "positions"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"x"};
  enum Inputs { patches, cls, positions };
  enum Outputs { x };
  static constexpr uint32_t kWideInputs = bit(cls) | bit(positions);
  static constexpr uint32_t kDifferentiable = bit(patches) | bit(cls) | bit(positions);

  Sequences sequences;

  /// patches [patches, dim], cls [1, 1, dim], positions [Σ over groups of (1 + rows · cols), dim] → x [tokens, dim].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<Tokens>> cases(Tiny);
  static std::vector<Case<Tokens>> cases(Real);
};

/// The CLS rows of the packed token matrix.
struct SelectCls {
  static constexpr std::string_view kName = "select_cls";
  static constexpr std::array<std::string_view, 1> kInputs = {"x"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x };
  enum Outputs { y };
  static constexpr uint32_t kDifferentiable = bit(x);

  Sequences sequences;

  /// x [tokens, dim] → y [sequences, dim].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  Keep keep() const { return {0, 0}; }
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  void backward(CpuStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  void backward(CudaStream& stream, std::span<const View> in, std::span<const View> out, std::span<const View> dout,
                std::span<const Grad> din) const;
  static std::vector<Case<SelectCls>> cases(Tiny);
  static std::vector<Case<SelectCls>> cases(Real);
};

/// Mean over the patch tokens of each sequence.
struct PatchMean {
  static constexpr std::string_view kName = "patch_mean";
  static constexpr std::array<std::string_view, 1> kInputs = {"x"};
  static constexpr std::array<std::string_view, 1> kOutputs = {"y"};
  enum Inputs { x };
  enum Outputs { y };

  Sequences sequences;

  /// x [tokens, dim] → y [sequences, dim].
  std::vector<Spec> infer(std::span<const Spec> in) const;
  void forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const;
  void forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const;
  static std::vector<Case<PatchMean>> cases(Tiny);
  static std::vector<Case<PatchMean>> cases(Real);
};

}  // namespace dino
