#pragma once

#include <tuple>

#include "kernels/attention.h"
#include "kernels/batch_norm.h"
#include "kernels/cast.h"
#include "kernels/center.h"
#include "kernels/concat_rows.h"
#include "kernels/conv2d.h"
#include "kernels/dino_loss.h"
#include "kernels/drop_path.h"
#include "kernels/label_cross_entropy.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/normalize.h"
#include "kernels/optimizer.h"
#include "kernels/patchify.h"
#include "kernels/pointwise.h"
#include "kernels/pool.h"
#include "kernels/residual_layer_norm.h"
#include "kernels/sinkhorn.h"
#include "kernels/tokens.h"
#include "kernels/top_k.h"

namespace dino {

/// Every op. Tests and benches fold over this list; an op that is not here does not exist.
using AllOps = std::tuple<Linear, Gelu, Relu, Cast, DropPathMask, ResidualAdd, Attention, AttentionProbabilities,
                          LayerNorm, ResidualLayerNorm, Patchify, ConcatRows, InterpolatePositions, Tokens,
                          SelectCls, PatchMean, L2Normalize, WeightNorm, TeacherSoftmax, CenteredUnit, DinoCrossEntropy, CropsMse, TargetStatistics,
                          Sinkhorn, ColumnSums, UpdateCenter, GradNorm, Health, AdamW, Sgd, Lars, Ema, TopK,
                          LabelCrossEntropy, Conv2d, BatchNorm, RunningStats, AveragePool, MaxPool>;

namespace detail {
template <class... O>
consteval bool all_are_ops(const std::tuple<O...>*) {
  return (Op<O> && ...);
}
}  // namespace detail
static_assert(detail::all_are_ops(static_cast<AllOps*>(nullptr)));

}  // namespace dino
