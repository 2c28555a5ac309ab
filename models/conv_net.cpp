#include "models/conv_net.h"

namespace dino {

ConvNet::ConvNet(ParameterStore& store, const std::string& prefix, const ConvNetConfig& config) : config_(config) {
  check<UsageError>(!config.widths.empty() && config.pool > 0 && config.channels > 0,
                    "a convolutional network needs at least one stage, channels and a pooling grid");
  conv1_ = ConvLayer::declare(store, prefix + "conv1", config.channels, config.widths.front(), 3, 2);
  bn1_ = BatchNormLayer::declare(store, prefix + "bn1", config.widths.front(), Activation::relu);
  int64_t in = config.widths.front();
  for (size_t i = 0; i < config.widths.size(); ++i) {
    const int64_t out = config.widths[i], stride = i == 0 ? 1 : 2;
    const std::string name = str(prefix, "layer", i + 1, ".0");
    Stage stage;
    stage.conv1 = ConvLayer::declare(store, name + ".conv1", in, out, 3, stride);
    stage.bn1 = BatchNormLayer::declare(store, name + ".bn1", out, Activation::relu);
    stage.conv2 = ConvLayer::declare(store, name + ".conv2", out, out, 3, 1);
    stage.bn2 = BatchNormLayer::declare(store, name + ".bn2", out, Activation::relu);
    stage.shortcut = ConvLayer::declare(store, name + ".downsample.0", in, out, 1, stride);
    stage.shortcut_norm = BatchNormLayer::declare(store, name + ".downsample.1", out);
    stages_.push_back(stage);
    in = out;
  }
  norm_ = BatchNormLayer::declare(store, prefix + "norm", dim(), Activation::none, false);
}

Tensor ConvNet::features(Context& context, const Tensor& images, const Mode& mode) const {
  Tensor x = bn1_(context, conv1_(context, images), mode);
  for (const Stage& stage : stages_) {
    const Tensor shortcut = stage.shortcut_norm(context, stage.shortcut(context, x), mode);
    const Tensor branch = stage.bn1(context, stage.conv1(context, x), mode);
    x = stage.bn2(context, stage.conv2(context, branch), mode, shortcut);
  }
  const AveragePool pool{.rows = config_.pool, .cols = config_.pool};
  const Tensor cells = run(context, pool, {x})[AveragePool::y];
  return norm_(context, cells.reshaped(Shape{images.shape()[0], dim()}), mode);
}

Tensor ConvNet::operator()(Context& context, std::span<const Tensor> images, const Mode& mode) const {
  std::vector<Tensor> groups;
  for (const Tensor& group : images) groups.push_back(features(context, group, mode));
  return groups.size() == 1 ? groups.front() : run(context, ConcatRows{}, groups)[ConcatRows::y];
}

}  // namespace dino
