#pragma once

#include <string>

#include "engine/ops.h"
#include "engine/parameters.h"
#include "engine/run.h"

namespace dino {

/// Which images of which batch the sequences of a forward pass are. Drop path draws per image, and its draws must not
/// depend on how a batch was divided into micro-batches.
struct BatchPart {
  int64_t images = 1;  ///< in this micro-batch; sequence s shows image s mod images
  int64_t batch = 1;   ///< images in the whole batch
  int64_t first = 0;   ///< number of this micro-batch's first image in the whole batch
};

/// How a module runs.
struct Mode {
  bool training = false;              ///< batch norm uses and collects statistics of the batch
  const BatchPart* crops = nullptr;   ///< drop path is active if this is given
};

/// `x` in the type that `weight`'s network computes in.
Tensor as_operand(Context& context, const Tensor& x, const Parameter& weight);

/// y = x Wᵀ + b, with a bias unless declared without.
struct LinearLayer {
  Parameter weight, bias;

  /// Declares `name`.weight [out, in] and `name`.bias [out].
  static LinearLayer declare(ParameterStore& store, const std::string& name, int64_t in, int64_t out, Init init,
                             bool with_bias = true);
  /// x [rows, in] → [rows, out], in the type that the network computes in or, if `wide`, in that of its parameters.
  Tensor operator()(Context& context, const Tensor& x, bool wide = false) const;
};

/// The residual stream of a transformer: x [rows, dim] and, if present, a branch [rows, dim] that is still to be added to
/// it, with one factor per sequence unless `scale` is absent. The norm that comes next adds it on its way.
struct Residual {
  Tensor x, branch, scale;
};

/// Layer norm over the last axis.
struct NormLayer {
  Parameter weight, bias;
  double eps = 1e-6;

  static NormLayer declare(ParameterStore& store, const std::string& name, int64_t dim, double eps = 1e-6);
  Tensor operator()(Context& context, const Tensor& x) const;
  /// Adds the stream's branch to its x first. Rows are tokens of `sequences`, or with `cls_only` their CLS tokens.
  Tensor operator()(Context& context, Residual& residual, const Sequences& sequences, bool cls_only = false) const;
};

/// Batch norm over all axes but the last, with an activation after it.
struct BatchNormLayer {
  Parameter weight, bias, running_mean, running_var;
  Activation activation = Activation::none;

  /// Without `affine` there is no weight and no bias.
  static BatchNormLayer declare(ParameterStore& store, const std::string& name, int64_t channels,
                                Activation activation = Activation::none, bool affine = true);
  /// activation(norm(x) + residual). Training updates the running statistics.
  Tensor operator()(Context& context, const Tensor& x, const Mode& mode, const Tensor& residual = {}) const;
};

/// Convolution without bias, NHWC.
struct ConvLayer {
  Parameter weight;
  Conv2d op;

  static ConvLayer declare(ParameterStore& store, const std::string& name, int64_t in, int64_t out, int64_t kernel,
                           int64_t stride);
  Tensor operator()(Context& context, const Tensor& x) const;
};

}  // namespace dino
