#include "models/layers.h"

#include <cmath>

namespace dino {

Tensor as_operand(Context& context, const Tensor& x, const Parameter& weight) {
  const Dtype dtype = weight.store->operand_dtype();
  return x.dtype() == dtype ? x : run(context, Cast{.output = dtype}, {x})[Cast::y];
}

LinearLayer LinearLayer::declare(ParameterStore& store, const std::string& name, int64_t in, int64_t out, Init init,
                                 bool with_bias) {
  LinearLayer layer;
  layer.weight = store.add(name + ".weight", Shape{out, in}, init);
  if (with_bias) layer.bias = store.add(name + ".bias", Shape{out}, Init::zeros());
  return layer;
}

Tensor LinearLayer::operator()(Context& context, const Tensor& x, bool wide) const {
  const Linear op{.output = wide ? weight.store->dtype() : Dtype::none};
  return run(context, op, {as_operand(context, x, weight), weight.operand(context), bias.operand(context)})[Linear::y];
}

NormLayer NormLayer::declare(ParameterStore& store, const std::string& name, int64_t dim, double eps) {
  return {store.add(name + ".weight", Shape{dim}, Init::ones()), store.add(name + ".bias", Shape{dim}, Init::zeros()), eps};
}

Tensor NormLayer::operator()(Context& context, const Tensor& x) const {
  const LayerNorm op{.eps = eps, .output = weight.store->operand_dtype()};
  return run(context, op, {x, weight.tensor(), bias.tensor()})[LayerNorm::y];
}

Tensor NormLayer::operator()(Context& context, Residual& residual, const Sequences& sequences, bool cls_only) const {
  if (!residual.branch.defined()) return (*this)(context, residual.x);
  const ResidualLayerNorm op{
      .eps = eps, .output = weight.store->operand_dtype(), .sequences = sequences, .cls_only = cls_only};
  const auto out = run(context, op, {residual.x, residual.branch, residual.scale, weight.tensor(), bias.tensor()});
  residual = {out[ResidualLayerNorm::sum], {}, {}};
  return out[ResidualLayerNorm::y];
}

BatchNormLayer BatchNormLayer::declare(ParameterStore& store, const std::string& name, int64_t channels,
                                       Activation activation, bool affine) {
  BatchNormLayer layer;
  if (affine) {
    layer.weight = store.add(name + ".weight", Shape{channels}, Init::ones());
    layer.bias = store.add(name + ".bias", Shape{channels}, Init::zeros());
  }
  layer.running_mean = store.add_buffer(name + ".running_mean", Shape{channels}, Init::zeros());
  layer.running_var = store.add_buffer(name + ".running_var", Shape{channels}, Init::ones());
  layer.activation = activation;
  return layer;
}

Tensor BatchNormLayer::operator()(Context& context, const Tensor& x, const Mode& mode, const Tensor& residual) const {
  const BatchNorm op{.training = mode.training, .activation = activation};
  const auto out = run(context, op, {x, weight.tensor(), bias.tensor(), running_mean.tensor(), running_var.tensor(), residual});
  if (mode.training)
    run(context, RunningStats{.count = x.shape().rows()},
        {running_mean.tensor(), running_var.tensor(), out[BatchNorm::mean].detached(), out[BatchNorm::var].detached()},
        {running_mean.tensor(), running_var.tensor()});
  return out[BatchNorm::y];
}

ConvLayer ConvLayer::declare(ParameterStore& store, const std::string& name, int64_t in, int64_t out, int64_t kernel,
                             int64_t stride) {
  ConvLayer layer;
  // Kaiming normal for ReLU over the outgoing connections (He et al., 2015), as torchvision's residual networks.
  const double deviation = std::sqrt(2.0 / static_cast<double>(out * kernel * kernel));
  layer.weight = store.add(name + ".weight", Shape{out, in, kernel, kernel}, Init{Init::normal, deviation});
  layer.op = {.kernel = kernel, .stride = stride, .pad = kernel / 2};
  return layer;
}

Tensor ConvLayer::operator()(Context& context, const Tensor& x) const {
  return run(context, op, {as_operand(context, x, weight), weight.operand(context)})[Conv2d::y];
}

}  // namespace dino
