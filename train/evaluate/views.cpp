#include "train/evaluate/views.h"

#include <algorithm>
#include <numeric>

#include "engine/ops.h"

namespace dino {
namespace {

/// Far behind every position that training reaches, so that these crops are drawn for nothing else.
constexpr uint64_t kFirstPosition = uint64_t{1} << 48;

Tensor borrowed(const std::vector<float>& values, Shape shape) { return Tensor(View(const_cast<float*>(values.data()), Dtype::f32, shape), nullptr); }

}  // namespace

float Views::cosine(size_t first, size_t second) const {
  const auto length = static_cast<size_t>(dim);
  const float* const row = &features[0][first * length];
  return std::inner_product(row, row + length, &features[1][second * length], 0.0f);
}

std::vector<float> view_of(const Dataset& dataset, const AugmentConfig& augment, size_t image, int view) {
  const Image whole = dataset.load(image);
  const CropPlan plan = plan_crop(augment, whole.height, whole.width, kFirstPosition + image, view);
  std::vector<float> crop(static_cast<size_t>(plan.size * plan.size * augment.channels));
  CropScratch scratch;
  render_crop(augment, whole, plan, crop.data(), scratch);
  return crop;
}

Views two_views(Context& context, const Backbone& backbone, const Dataset& dataset, const AugmentConfig& augment, size_t most) {
  const FeatureConfig config;
  Views views;
  views.dim = feature_dim(backbone);
  const int64_t size = augment.global_crops_size, values = size * size * augment.channels;
  const size_t count = std::min(most, dataset.size());
  for (size_t first = 0; first < count; first += static_cast<size_t>(config.batch_size)) {
    const size_t wanted = std::min(count - first, static_cast<size_t>(config.batch_size));
    std::vector<std::vector<float>> crops[2] = {std::vector<std::vector<float>>(wanted), std::vector<std::vector<float>>(wanted)};
    const auto image_at = [&](size_t i) { return (first + i) * dataset.size() / count; };
    context.pool().parallel(static_cast<int64_t>(wanted), [&](int64_t i, int) {
      const auto at = static_cast<size_t>(i);
      try {
        for (int view = 0; view < 2; ++view) crops[view][at] = view_of(dataset, augment, image_at(at), view);
      } catch (const DataError&) {  // training names these
        crops[0][at].clear();
      }
    });
    std::vector<float> pixels[2];
    for (size_t i = 0; i < wanted; ++i) {
      if (crops[0][i].empty()) continue;
      views.images.push_back(image_at(i));
      for (int view = 0; view < 2; ++view) pixels[view].insert(pixels[view].end(), crops[view][i].begin(), crops[view][i].end());
    }
    const int64_t readable = static_cast<int64_t>(pixels[0].size()) / values;
    for (int view = 0; readable > 0 && view < 2; ++view) {
      const Tensor rows = batch_features(context, backbone, borrowed(pixels[view], Shape{readable, size, size, augment.channels}), config);
      const Tensor unit = context.on_host(run(context, L2Normalize{}, {rows})[L2Normalize::y]);
      views.features[view].insert(views.features[view].end(), unit.view().as<float>(), unit.view().as<float>() + unit.shape().count());
    }
  }
  check<DataError>(!views.images.empty(), "none of ", count, " images can be read");
  return views;
}

double view_retrieval(Context& context, const Views& views) {
  const auto images = static_cast<int64_t>(views.images.size());
  const auto matrix = [&](int view) { return context.on_device(borrowed(views.features[view], Shape{images, views.dim})); };
  const Tensor found = context.on_host(run(context, TopK{.k = 1}, {matrix(0), matrix(1)})[TopK::indices]);
  int64_t right = 0;
  for (int64_t image = 0; image < images; ++image) right += found.view().as<int64_t>()[image] == image;
  return 100.0 * static_cast<double>(right) / static_cast<double>(images);
}

}  // namespace dino
