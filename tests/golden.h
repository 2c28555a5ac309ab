#pragma once

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/network.h"

namespace dino::golden {

/// Numbers that the reference implementation of DINO printed in f64 for the tiny network below.
inline nlohmann::json reference() {
  std::ifstream file(DINO_TESTS_DIR "/golden/reference.json");
  REQUIRE(file);
  return nlohmann::json::parse(file);
}

/// The generator of all weights and inputs: element i of tensor k, in [−1, 1).
inline double value(uint64_t k, uint64_t i) {
  uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u + (k + 1) * 0xBF58476D1CE4E5B9u;
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9u;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * std::ldexp(1.0, -53) * 2 - 1;
}

inline NetworkConfig tiny_config() {
  NetworkConfig config;
  config.backbone.arch = "vit_tiny";
  config.backbone.image_size = 32;
  config.backbone.patch_size = 8;
  config.backbone.embed_dim = 24;
  config.backbone.depth = 2;
  config.backbone.heads = 3;
  config.head = {.in = 24, .hidden = 16, .bottleneck = 8, .out = 20, .layers = 3};
  return config;
}

/// Fills a tensor, wherever it lies, with value_of(i) for all elements i.
template <class F>
void set_elements(const Tensor& tensor, F&& value_of) {
  with_float(tensor.dtype(), [&](auto zero) {
    std::vector<decltype(zero)> values(static_cast<size_t>(tensor.shape().count()));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<decltype(zero)>(value_of(static_cast<int64_t>(i)));
    copy_from_host(values.data(), tensor.view());
  });
}

inline void fill(ParameterStore& parameters) {
  for (size_t k = 0; k < parameters.entries().size(); ++k) {
    const auto& entry = parameters.entries()[k];
    set_elements(parameters.tensor(static_cast<int>(k)), [&](int64_t i) {
      const double r = value(k, static_cast<uint64_t>(i));
      if (entry.name.ends_with("weight_g")) return 1.0;
      if (entry.name.find("norm") != std::string::npos && entry.name.ends_with("weight")) return 1 + 0.1 * r;
      return (entry.shape.rank == 1 ? 0.05 : 0.15) * r;
    });
  }
  parameters.values_changed();
}

/// Image batch in(k), in host memory: generated as [images, channels, height, width], returned as NHWC.
inline Tensor input(Context& context, Dtype dtype, uint64_t k, int64_t images, int64_t height, int64_t width) {
  const Tensor tensor = context.host_tensor({dtype, Shape{images, height, width, 3}});
  set_elements(tensor, [&](int64_t i) {
    const int64_t c = i % 3, col = i / 3 % width, row = i / 3 / width % height, n = i / 3 / width / height;
    const int64_t flat = ((n * 3 + c) * height + row) * width + col;
    return value(1000 + k, static_cast<uint64_t>(flat));
  });
  return tensor;
}

/// Several inputs stacked crop-major.
inline Tensor inputs(Context& context, Dtype dtype, uint64_t k, int64_t crops, int64_t images, int64_t size) {
  std::vector<Tensor> parts;
  const Tensor all = context.host_tensor({dtype, Shape{crops * images, size, size, 3}});
  for (int64_t crop = 0; crop < crops; ++crop) {
    const Tensor part = input(context, dtype, k + static_cast<uint64_t>(crop), images, size, size);
    std::copy_n(static_cast<const std::byte*>(part.view().data),
                static_cast<size_t>(part.shape().count()) * bytes_of(dtype),
                static_cast<std::byte*>(all.view().data) +
                    static_cast<size_t>(crop * part.shape().count()) * bytes_of(dtype));
  }
  return all;
}

inline double at(const Tensor& tensor, int64_t i) { return values_of(tensor)[static_cast<size_t>(i)]; }

inline double sum(const Tensor& tensor) {
  double total = 0;
  for (const double x : values_of(tensor)) total += x;
  return total;
}

inline double l2(const Tensor& tensor) {
  double total = 0;
  for (const double x : values_of(tensor)) total += x * x;
  return std::sqrt(total);
}

/// |actual − expected| ≤ tolerance · max(1, |expected|); false for NaN.
inline bool near(double actual, double expected, double tolerance = 1e-10) {
  return std::abs(actual - expected) <= tolerance * std::max(1.0, std::abs(expected));
}

}  // namespace dino::golden
