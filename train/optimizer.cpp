#include "train/optimizer.h"

#include <cstring>

namespace dino {
namespace {

Tensor zeros(Context& context, Spec spec) {
  const Tensor tensor = context.tensor(spec);
  std::memset(tensor.view().data, 0, static_cast<size_t>(spec.shape.count()) * bytes_of(spec.dtype));
  return tensor;
}

}  // namespace

Optimizer::Optimizer(Context& context, const OptimizerConfig& config, const ParameterStore& parameters) : config_(config) {
  for (size_t i = 0; i < parameters.entries().size(); ++i)
    if (parameters.entries()[i].trainable) tensors_.push_back(static_cast<int>(i));
  const Spec like = parameters.values().spec();
  const auto count = static_cast<int64_t>(tensors_.size());
  if (config.kind == OptimizerConfig::Kind::adamw) {
    states_ = {{"exp_avg", zeros(context, like)}, {"exp_avg_sq", zeros(context, like)}};
    steps_ = zeros(context, {like.dtype, Shape{count}});
  } else {
    states_ = {{"momentum_buffer", zeros(context, like)}};
  }
  segments_ = zeros(context, {Dtype::i64, Shape{count, kSegmentColumns}});
  norms_ = zeros(context, {like.dtype, Shape{count}});
}

Tensor Optimizer::check_health(Context& context, const ParameterStore& parameters, const Tensor& loss,
                               bool last_layer_frozen) {
  auto* row = segments_.view().as<int64_t>();
  for (const int index : tensors_) {
    const ParameterStore::Entry& entry = parameters.entries()[static_cast<size_t>(index)];
    const bool frozen = last_layer_frozen && entry.name.find("last_layer") != std::string::npos;
    row[kBegin] = entry.begin;
    row[kCount] = entry.shape.count();
    row[kRegularized] = entry.regularized();
    row[kActive] = !frozen && parameters.grad(index)->value().defined();
    row += kSegmentColumns;
  }
  run(context, GradNorm{}, {parameters.gradients(), segments_}, {norms_});
  return run(context, Health{}, {loss, norms_, segments_})[Health::healthy];
}

void Optimizer::update(Context& context, ParameterStore& parameters, const Tensor& healthy) {
  const Tensor weight = parameters.values(), grad = parameters.gradients();
  const Tensor& first = states_[0].values;
  switch (config_.kind) {
    case OptimizerConfig::Kind::adamw: {
      const Tensor& second = states_[1].values;
      run(context, AdamW{.clip = config_.clip_grad}, {weight, grad, first, second, steps_, norms_, segments_, healthy},
          {weight, first, second, steps_});
      break;
    }
    case OptimizerConfig::Kind::sgd:
      run(context, Sgd{.clip = config_.clip_grad}, {weight, grad, first, norms_, segments_, healthy}, {weight, first});
      break;
    case OptimizerConfig::Kind::lars:
      run(context, Lars{.clip = config_.clip_grad}, {weight, grad, first, norms_, segments_, healthy}, {weight, first});
      break;
  }
}

}  // namespace dino
