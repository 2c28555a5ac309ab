#include "models/resnet.h"

namespace dino {

ResNet::ResNet(ParameterStore& store, const std::string& prefix, const ResNetConfig& config) : config_(config) {
  check<UsageError>(config.channels > 0 && config.width > 0, "a residual network needs channels");
  stem_ = declare(store, prefix + "conv1", prefix + "bn1", config.channels, config.width, 7, 2, Activation::relu);
  int64_t in = config.width;
  for (size_t stage = 0; stage < config.blocks.size(); ++stage) {
    check<UsageError>(config.blocks[stage] > 0, "a residual network needs at least one block in each stage");
    const int64_t width = config.width << stage;
    for (int64_t i = 0; i < config.blocks[stage]; ++i) {
      blocks_.push_back(declare_block(store, str(prefix, "layer", stage + 1, '.', i), in, width, stage > 0 && i == 0 ? 2 : 1));
      in = width * expansion();
    }
  }
}

ResNet::Unit ResNet::declare(ParameterStore& store, const std::string& conv, const std::string& norm, int64_t in, int64_t out, int64_t kernel,
                             int64_t stride, Activation activation) {
  Unit unit;
  unit.conv = ConvLayer::declare(store, conv, in, out, kernel, stride);
  unit.norm = BatchNormLayer::declare(store, norm, out, activation);
  return unit;
}

ResNet::Block ResNet::declare_block(ParameterStore& store, const std::string& name, int64_t in, int64_t width, int64_t stride) const {
  Block block;
  const auto add = [&](int64_t from, int64_t to, int64_t kernel, int64_t step) {
    const size_t number = block.units.size() + 1;
    block.units.push_back(declare(store, str(name, ".conv", number), str(name, ".bn", number), from, to, kernel, step, Activation::relu));
  };
  if (config_.bottleneck) {
    add(in, width, 1, 1);
    add(width, width, 3, stride);
    add(width, 4 * width, 1, 1);
  } else {
    add(in, width, 3, stride);
    add(width, width, 3, 1);
  }
  const int64_t out = width * expansion();
  if (stride != 1 || in != out) block.shortcut.push_back(declare(store, name + ".downsample.0", name + ".downsample.1", in, out, 1, stride, Activation::none));
  return block;
}

Tensor ResNet::features(Context& context, const Tensor& images, const Mode& mode) const {
  const auto apply = [&](const Unit& unit, const Tensor& x, const Tensor& residual = {}) { return unit.norm(context, unit.conv(context, x), mode, residual); };
  Tensor x = run(context, MaxPool{}, {apply(stem_, images)})[MaxPool::y];
  for (const Block& block : blocks_) {
    const Tensor shortcut = block.shortcut.empty() ? x : apply(block.shortcut.front(), x);
    for (size_t i = 0; i + 1 < block.units.size(); ++i) x = apply(block.units[i], x);
    x = apply(block.units.back(), x, shortcut);
  }
  return run(context, AveragePool{}, {x})[AveragePool::y].reshaped(Shape{images.shape()[0], dim()});
}

Tensor ResNet::operator()(Context& context, std::span<const Tensor> images, const Mode& mode) const {
  std::vector<Tensor> groups;
  for (const Tensor& group : images) groups.push_back(features(context, group, mode));
  return groups.size() == 1 ? groups.front() : run(context, ConcatRows{}, groups)[ConcatRows::y];
}

}  // namespace dino
