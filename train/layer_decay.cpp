#include "train/layer_decay.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace dino {
namespace {

/// The number behind `prefix` if `name` is `prefix`, a number, a dot and more; else -1.
int number_behind(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return -1;
  name.remove_prefix(prefix.size());
  int number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const bool followed_by_dot = end != name.data() + name.size() && *end == '.';
  return error == std::errc() && followed_by_dot ? number : -1;
}

constexpr int kTop = std::numeric_limits<int>::max();

/// The block that an entry belongs to, counted from 1: 0 for what comes before the blocks, kTop for what comes after.
int block_of(std::string_view name) {
  constexpr std::string_view kBackbone = "backbone.";
  if (!name.starts_with(kBackbone)) return kTop;
  name.remove_prefix(kBackbone.size());
  if (const int block = number_behind(name, "blocks."); block >= 0) return block + 1;
  if (const int stage = number_behind(name, "layer"); stage >= 0) return stage;
  return name.starts_with("norm.") ? kTop : 0;
}

}  // namespace

std::vector<double> layer_rates(const ParameterStore& parameters, double decay) {
  int blocks = 0;
  for (const ParameterStore::Entry& entry : parameters.entries())
    if (const int block = block_of(entry.name); block < kTop) blocks = std::max(blocks, block);
  std::vector<double> rates;
  for (const ParameterStore::Entry& entry : parameters.entries()) {
    const int block = std::min(block_of(entry.name), blocks + 1);
    rates.push_back(std::pow(decay, blocks + 1 - block));
  }
  return rates;
}

}  // namespace dino
