#pragma once

#include <cmath>

#include "engine/ops.h"

/// Shapes at which kernels are counted: a ViT-S/16 with two large and four small crops, 4096 prototypes, and a
/// convolutional network with few images. What depends on the shape, such as tails of tiles, is as in training; sizes
/// are such that an emulator takes seconds.
namespace dino::bench {

constexpr int64_t kDim = 384, kHeads = 6, kHidden = 1536, kPrototypes = 4096, kBottleneck = 256, kParameters = 1000000;

/// Two images of 14 × 14 patches and four of 6 × 6: sequences of 197 and 37 tokens.
inline Sequences gate_sequences() {
  Sequences sequences;
  sequences.append(2, 14, 14);
  sequences.append(4, 6, 6);
  return sequences;
}

/// The cases of an op that has no shapes of its own below.
template <class O>
std::vector<Case<O>> gate_cases(O) {
  return O::cases(Tiny{});
}

/// The same crops of 32 images. Norms take these: with fewer rows than this a block has fewer than in training, where what it
/// reads and writes once, γ, β and sums of their gradients, is a 128th of its rows or less.
inline Sequences many_sequences() {
  Sequences sequences;
  sequences.append(64, 14, 14);
  sequences.append(128, 6, 6);
  return sequences;
}

inline const CaseInput kTokens{{gate_sequences().tokens(), kDim}}, kManyTokens{{many_sequences().tokens(), kDim}};
inline const CaseInput kWeights{{kParameters}}, kSquares{{kParameters}, Fill::positive};
inline const CaseInput kOne{{1}, Fill::positive}, kPerTensor{{3}, Fill::positive};
/// Three tensors {first, count, …}, the second of which is not trained as the others are; as in kernels/optimizer.h.
inline const CaseInput kTable{
    {3, kSegmentColumns}, Fill::normal, Dtype::i64,
    {0, 600000, 1, 1, rate_bits(1), 600000, 100000, 0, 1, rate_bits(1), 700000, 300000, 1, 0, rate_bits(1)}};

inline std::vector<Case<Linear>> gate_cases(Linear) { return {{{}, {kTokens, {{kHidden, kDim}}, {{kHidden}}}}}; }
inline std::vector<Case<Gelu>> gate_cases(Gelu) {
  return {{{}, {{{542, kHidden}}}}, {{.form = Activation::gelu_tanh}, {{{542, kHidden}}}}};
}
inline std::vector<Case<Relu>> gate_cases(Relu) { return {{{}, {{{4, 28, 28, 64}}}}}; }
inline std::vector<Case<Cast>> gate_cases(Cast) { return {{{}, {kTokens}}}; }
inline std::vector<Case<DropPathMask>> gate_cases(DropPathMask) {
  return {{{.depth = 12, .max_rate = 0.1, .sequences = 640, .crops_of = 64, .batch = 64}, {{{1}}}}};
}
inline std::vector<Case<ResidualAdd>> gate_cases(ResidualAdd) {
  return {{{.sequences = gate_sequences()}, {kTokens, kTokens, {{6}, Fill::keep_mask}}}};
}
inline std::vector<Case<LayerNorm>> gate_cases(LayerNorm) { return {{{}, {kManyTokens, {{kDim}}, {{kDim}}}}}; }
inline std::vector<Case<ResidualLayerNorm>> gate_cases(ResidualLayerNorm) {
  return {{{.sequences = many_sequences()}, {kManyTokens, kManyTokens, {{192}, Fill::keep_mask}, {{kDim}}, {{kDim}}}}};
}
inline std::vector<Case<Patchify>> gate_cases(Patchify) {
  return {{{.patch = 16, .sequences = gate_sequences()}, {{{2, 224, 224, 3}}, {{4, 96, 96, 3}}, {{}}, {{}}}}};
}
inline std::vector<Case<ConcatRows>> gate_cases(ConcatRows) {
  return {{{}, {{{256, kDim}}, {{512, kDim}}, {{}}, {{}}}}};
}
inline std::vector<Case<InterpolatePositions>> gate_cases(InterpolatePositions) {
  return {{{.sequences = gate_sequences()}, {{{1, 197, kDim}}}}};
}
inline std::vector<Case<Tokens>> gate_cases(Tokens) {
  return {{{.sequences = gate_sequences()}, {{{536, kDim}}, {{1, 1, kDim}}, {{234, kDim}}}}};
}
inline std::vector<Case<SelectCls>> gate_cases(SelectCls) { return {{{.sequences = gate_sequences()}, {kTokens}}}; }
inline std::vector<Case<PatchMean>> gate_cases(PatchMean) { return {{{.sequences = gate_sequences()}, {kTokens}}}; }
inline std::vector<Case<L2Normalize>> gate_cases(L2Normalize) { return {{{}, {{{64, kBottleneck}}}}}; }
inline std::vector<Case<WeightNorm>> gate_cases(WeightNorm) {
  return {{{}, {{{kPrototypes, 1}, Fill::positive}, {{kPrototypes, kBottleneck}}}}};
}
inline std::vector<Case<TeacherSoftmax>> gate_cases(TeacherSoftmax) {
  return {{{}, {{{16, kPrototypes}}, {{1, kPrototypes}}}}};
}
inline std::vector<Case<CenteredUnit>> gate_cases(CenteredUnit) {
  return {{{}, {{{16, kPrototypes}}, {{1, kPrototypes}}}}};
}
inline std::vector<Case<DinoCrossEntropy>> gate_cases(DinoCrossEntropy) {
  return {{{.crops = 6}, {{{48, kPrototypes}}, {{16, kPrototypes}, Fill::probabilities}}}};
}
inline std::vector<Case<CropsMse>> gate_cases(CropsMse) {
  return {{{.crops = 6}, {{{48, kPrototypes}}, {{16, kPrototypes}}}}};
}
inline std::vector<Case<TargetStatistics>> gate_cases(TargetStatistics) {
  return {{{}, {{{16, kPrototypes}, Fill::probabilities}}}};
}
inline std::vector<Case<Sinkhorn>> gate_cases(Sinkhorn) { return {{{}, {{{128, kPrototypes}}}}}; }
inline std::vector<Case<ColumnSums>> gate_cases(ColumnSums) { return {{{}, {{{64, kPrototypes}}, {{}}}}}; }
inline std::vector<Case<UpdateCenter>> gate_cases(UpdateCenter) {
  return {{{.rows = 16}, {{{1, kPrototypes}}, {{1, kPrototypes}}, kOne}}};
}
inline std::vector<Case<GradNorm>> gate_cases(GradNorm) { return {{{}, {kWeights, kTable}}}; }
inline std::vector<Case<AdamW>> gate_cases(AdamW) {
  return {{{.clip = 3}, {kWeights, kWeights, kWeights, kSquares, kPerTensor, kPerTensor, kTable, kOne, kWeights}}};
}
inline std::vector<Case<Sgd>> gate_cases(Sgd) {
  return {{{}, {kWeights, kWeights, kWeights, kPerTensor, kTable, kOne}}};
}
inline std::vector<Case<Lars>> gate_cases(Lars) {
  return {{{}, {kWeights, kWeights, kWeights, kPerTensor, kTable, kOne}}};
}
inline std::vector<Case<Ema>> gate_cases(Ema) { return {{{}, {kWeights, kWeights, kOne}}}; }
inline std::vector<Case<TopK>> gate_cases(TopK) { return {{{.k = 20}, {{{32, kDim}}, {{20000, kDim}}}}}; }
inline std::vector<Case<RunningStats>> gate_cases(RunningStats) {
  return {{{0.1, 25088}, {{{2048}}, {{2048}, Fill::positive}, {{2048}}, {{2048}, Fill::positive}}}};
}
inline std::vector<Case<AveragePool>> gate_cases(AveragePool) { return {{{1, 1}, {{{8, 7, 7, 2048}}}}}; }
inline std::vector<Case<MaxPool>> gate_cases(MaxPool) { return {{{3, 2, 1}, {{{2, 56, 56, 64}}}}}; }
inline std::vector<Case<Conv2d>> gate_cases(Conv2d) {
  return {{{3, 1, 1}, {{{2, 28, 28, 64}}, {{64, 64, 3, 3}}, {{}}}},
          {{7, 2, 3}, {{{1, 64, 64, 3}}, {{64, 3, 7, 7}}, {{}}}}};
}

inline std::vector<Case<Attention>> gate_cases(Attention) {
  Attention op{.heads = kHeads, .scale = 0.125, .sequences = gate_sequences(), .cls_only = false};
  Attention cls = op, fine = op;
  cls.cls_only = true;
  fine.sequences = {};
  fine.sequences.append(1, 28, 28);  // patches of 8 pixels
  const CaseInput many{{785, kDim}};
  return {{op, {kTokens, kTokens, kTokens}}, {cls, {{{6, kDim}}, kTokens, kTokens}}, {fine, {many, many, many}}};
}

inline std::vector<Case<AttentionProbabilities>> gate_cases(AttentionProbabilities) {
  AttentionProbabilities op{.heads = kHeads, .scale = 0.125, .sequences = {}};
  op.sequences.append(1, 14, 14);
  return {{op, {{{197, kDim}}, {{197, kDim}}}}};
}

inline std::vector<Case<LabelCrossEntropy>> gate_cases(LabelCrossEntropy) {
  CaseInput labels{.shape = {32}, .dtype = Dtype::i64};
  for (int64_t i = 0; i < 32; ++i) labels.values.push_back(i * 31 % 1000);
  return {{{.heads = 4}, {{{32, 4000}}, labels}}};
}

inline std::vector<Case<BatchNorm>> gate_cases(BatchNorm) {
  const auto of = [](Shape x, Activation activation, bool residual) {
    const CaseInput channels{{x.cols()}};
    return Case<BatchNorm>{{1e-5, true, activation}, {{x}, channels, channels, {{}}, {{}}, {residual ? x : Shape{}}}};
  };
  return {of({4, 28, 28, 64}, Activation::relu, true), of({768, 2048}, Activation::gelu, false)};
}

}  // namespace dino::bench
