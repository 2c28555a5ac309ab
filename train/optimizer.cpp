#include "train/optimizer.h"

#include "train/layer_decay.h"

namespace dino {
namespace {

Tensor zeros(Context& context, Spec spec) {
  const Tensor tensor = context.tensor(spec);
  clear(tensor.view());
  return tensor;
}

}  // namespace

Optimizer::Optimizer(Context& context, const OptimizerConfig& config, const ParameterStore& parameters)
    : config_(config), rates_(layer_rates(parameters, config.layer_decay)) {
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
  table_.resize(static_cast<size_t>(count * kSegmentColumns));
  norms_ = zeros(context, {like.dtype, Shape{count}});
}

Tensor Optimizer::check_health(Context& context, const ParameterStore& parameters, const Tensor& loss,
                               bool last_layer_frozen) {
  int64_t* row = table_.data();
  for (const int index : tensors_) {
    const ParameterStore::Entry& entry = parameters.entries()[static_cast<size_t>(index)];
    const bool frozen = last_layer_frozen && entry.name.find("last_layer") != std::string::npos;
    row[kBegin] = entry.begin;
    row[kCount] = entry.shape.count();
    row[kRegularized] = entry.regularized();
    row[kActive] = !frozen && parameters.grad(index)->value().defined();
    row[kRate] = rate_bits(rates_[static_cast<size_t>(index)]);
    row += kSegmentColumns;
  }
  context.upload(table_.data(), segments_);
  run(context, GradNorm{}, {parameters.gradients(), segments_}, {norms_});
  return run(context, Health{}, {loss, norms_, segments_})[Health::healthy];
}

void Optimizer::update(Context& context, const ParameterStore& parameters, const Tensor& healthy, const ParameterStore* average) {
  const Tensor weight = parameters.values(), grad = parameters.gradients();
  const Tensor& first = states_[0].values;
  if (config_.kind == OptimizerConfig::Kind::adamw) {
    const Tensor& second = states_[1].values;
    const Tensor teacher = average ? average->values() : Tensor();
    const bool copies = parameters.copies().defined();
    run(context, AdamW{.clip = config_.clip_grad, .bf16_copies = copies},
        {weight, grad, first, second, steps_, norms_, segments_, healthy, teacher},
        {weight, first, second, steps_, teacher, parameters.copies(), average ? average->copies() : Tensor()});
    parameters.values_changed(copies);
    if (average) average->values_changed(copies);
    return;
  }
  if (config_.kind == OptimizerConfig::Kind::sgd)
    run(context, Sgd{.clip = config_.clip_grad}, {weight, grad, first, norms_, segments_, healthy}, {weight, first});
  else
    run(context, Lars{.clip = config_.clip_grad}, {weight, grad, first, norms_, segments_, healthy}, {weight, first});
  parameters.values_changed();
  if (!average) return;
  // Parameters that only the student has come last.
  run(context, Ema{}, {average->values(), weight.rows(0, average->values().shape().count()), healthy}, {average->values()});
  average->values_changed();
}

}  // namespace dino
