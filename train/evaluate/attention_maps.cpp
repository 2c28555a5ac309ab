#include "train/evaluate/attention_maps.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "augment/geometry.h"
#include "augment/image_kind.h"
#include "augment/recipe.h"
#include "engine/atomic_file.h"
#include "engine/npy.h"
#include "train/png.h"

namespace dino {
namespace {

/// Calls f(pixel, patch index) for every pixel of an image of whole patches.
template <class F>
void for_pixels(Image& image, int64_t cols, int patch, const F& f) {
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x)
      f(image.view().row(y) + static_cast<ptrdiff_t>(x) * image.channels,
        static_cast<size_t>(y / patch * cols + x / patch));
}

}  // namespace

PreparedImage prepare_for_attention(Context& context, const Image& image, int height, int width, int patch,
                                    std::span<const float> mean, std::span<const float> deviation) {
  const int rows = height / patch * patch, cols = width / patch * patch;
  check<UsageError>(rows > 0 && cols > 0, "--image-size ", height, " ", width,
                    " must be at least one patch of ", patch);
  const Image resized = resize_to(image, height, width, Filter::bilinear);
  ImageScratch unused;
  const Image part = resize_part(resized, {0, 0, rows, cols}, rows, cols, Filter::bilinear, unused);
  PreparedImage prepared{to_look_at(part), context.host_tensor({Dtype::f32, Shape{1, rows, cols, image.channels}})};
  normalize(part, normalization_of(image.channels, mean, deviation), prepared.input.view().as<float>());
  return prepared;
}

AttentionMaps attention_maps(Context& context, const VisionTransformer& vit, const Tensor& image) {
  const Sequences sequences = vit.sequences(std::span<const Tensor>(&image, 1));
  check<UsageError>(sequences.count() == 1, "attention: one image at a time; got ", sequences.count());
  const Tensor p = context.on_host(vit.last_attention(context, context.on_device(image)));  // [1, heads, tokens, tokens]
  const int64_t tokens = p.shape()[3];
  AttentionMaps maps{p.shape()[1], sequences.group[0].rows, sequences.group[0].cols, {}};
  for (int64_t head = 0; head < maps.heads; ++head) {
    const float* cls_row = p.view().as<float>() + head * tokens * tokens;
    maps.values.insert(maps.values.end(), cls_row + 1, cls_row + tokens);
  }
  return maps;
}

std::vector<float> mean_map(const AttentionMaps& maps) {
  std::vector<float> mean(static_cast<size_t>(maps.rows * maps.cols), 0.0f);
  for (int64_t head = 0; head < maps.heads; ++head)
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += maps.map(head)[i] / static_cast<float>(maps.heads);
  return mean;
}

std::vector<uint8_t> mass_mask(std::span<const float> map, double threshold) {
  std::vector<size_t> order(map.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return map[a] < map[b]; });
  const double total = std::accumulate(map.begin(), map.end(), 0.0);
  std::vector<uint8_t> mask(map.size(), 0);
  double sum = 0;
  for (const size_t i : order) {
    sum += static_cast<double>(map[i]) / total;
    mask[i] = sum > 1 - threshold ? 1 : 0;
  }
  return mask;
}

Image draw_map(std::span<const float> map, int64_t rows, int64_t cols, int patch) {
  const auto [low, high] = std::minmax_element(map.begin(), map.end());
  const double least = static_cast<double>(*low), range = static_cast<double>(*high) - least;
  std::vector<std::array<uint8_t, 3>> colors;
  for (float value : map)
    colors.push_back(perceptual_color(range > 0 ? (static_cast<double>(value) - least) / range : 0));
  Image image(static_cast<int>(rows) * patch, static_cast<int>(cols) * patch, 3);
  for_pixels(image, cols, patch,
             [&](uint8_t* pixel, size_t i) { std::copy(colors[i].begin(), colors[i].end(), pixel); });
  return image;
}

Image draw_mask(const Image& image, std::span<const uint8_t> mask, int64_t cols, int patch) {
  constexpr std::array<int, 3> kColor = {230, 60, 40};
  Image result(image.height, image.width, 3);
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) {
      const uint8_t* in = image.view().row(y) + static_cast<ptrdiff_t>(x) * image.channels;
      uint8_t* out = result.view().row(y) + static_cast<ptrdiff_t>(x) * 3;
      for (int c = 0; c < 3; ++c) out[c] = in[image.channels == 3 ? c : 0];
    }
  for_pixels(result, cols, patch, [&](uint8_t* pixel, size_t i) {
    if (!mask[i]) return;
    for (size_t c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>((pixel[c] + kColor[c] + 1) / 2);
  });
  return result;
}

Image draw_input(const Tensor& input) {
  const Shape& shape = input.shape();
  const std::span<const float> values(input.view().as<float>(), static_cast<size_t>(shape.count()));
  if (shape[3] != 1 && shape[3] != 3) {
    Image image = Image::of_values(static_cast<int>(shape[1]), static_cast<int>(shape[2]), static_cast<int>(shape[3]));
    std::copy(values.begin(), values.end(), image.values.begin());
    return to_look_at(image);
  }
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const float least = *low, range = std::max(*high - *low, 1e-5f);
  Image image(static_cast<int>(shape[1]), static_cast<int>(shape[2]), static_cast<int>(shape[3]));
  std::transform(values.begin(), values.end(), image.pixels.begin(), [&](float value) {
    return static_cast<uint8_t>(std::lround(255 * (value - least) / range));
  });
  return image;
}

std::vector<std::string> save_attention(const std::string& folder, const PreparedImage& image,
                                        const AttentionMaps& maps, int patch, double threshold) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check<UsageError>(!error && !folder.empty(), "--out ", folder, ": cannot create the folder",
                    error ? ": " + error.message() : std::string());
  check_writable((std::filesystem::path(folder) / "img.png").string());
  std::vector<std::string> paths;
  const auto path = [&](const std::string& name) {
    return paths.emplace_back((std::filesystem::path(folder) / name).string());
  };
  const auto draw = [&](std::span<const float> map) { return draw_map(map, maps.rows, maps.cols, patch); };
  save_png(path("img.png"), draw_input(image.input).view());
  for (int64_t head = 0; head < maps.heads; ++head) {
    save_png(path(str("attn-head", head, ".png")), draw(maps.map(head)).view());
    if (threshold > 0)
      save_png(path(str("mask_th", threshold, "_head", head, ".png")),
               draw_mask(image.shown, mass_mask(maps.map(head), threshold), maps.cols, patch).view());
  }
  save_png(path("attn-mean.png"), draw(mean_map(maps)).view());
  save_npy(path("attention.npy"), maps.values, {maps.heads, maps.rows, maps.cols});
  return paths;
}

}  // namespace dino
