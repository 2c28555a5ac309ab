#include "train/feature_drift.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

namespace dino {
namespace {

/// Images that go through the network at one time, so that they need less memory than a step.
constexpr size_t kBatch = 16;

/// NaN if one of them is zero.
double cosine(const float* a, const float* b, int64_t dim) {
  const double dot = std::inner_product(a, a + dim, b, 0.0);
  const double lengths = std::inner_product(a, a + dim, a, 0.0) * std::inner_product(b, b + dim, b, 0.0);
  return lengths > 0 ? dot / std::sqrt(lengths) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

FeatureDrift::FeatureDrift(Trainer& trainer, const Dataset& dataset) : dataset_(dataset) {
  const size_t count = std::min(kImages, dataset.size());
  for (size_t i = 0; i < count; ++i) images_.push_back(i * dataset.size() / count);
  beginning_ = features(trainer);
}

std::vector<float> FeatureDrift::features(Trainer& trainer) const {
  const TrainConfig& config = trainer.config();
  const FeatureConfig wanted{.images = {.size = config.augment.global_crops_size,
                                        .channels = static_cast<int>(config.channels),
                                        .mean = config.mean,
                                        .deviation = config.deviation}};
  Context& context = trainer.context();
  const Backbone& backbone = trainer.teacher().network().backbone();
  const auto dim = static_cast<size_t>(feature_dim(backbone));
  std::vector<float> all;
  for (size_t begin = 0; begin < images_.size(); begin += kBatch) {
    const std::span<const size_t> rows = std::span(images_).subspan(begin, std::min(kBatch, images_.size() - begin));
    const int64_t size = wanted.images.size;
    const Tensor pixels = context.host_tensor({Dtype::f32, Shape{static_cast<int64_t>(rows.size()), size, size, config.channels}});
    std::vector<LoadFailure> failures;
    load_evaluation_images(dataset_, rows, wanted.images, context.pool(), pixels.view().as<float>(), failures);
    const Tensor batch = batch_features(context, backbone, pixels, wanted);
    const float* values = batch.view().as<float>();
    all.insert(all.end(), values, values + rows.size() * dim);
    for (const LoadFailure& failure : failures) std::fill_n(all.end() - static_cast<int64_t>((rows.size() - failure.row) * dim), dim, 0.0f);
  }
  return all;
}

double FeatureDrift::similarity(Trainer& trainer) const {
  const std::vector<float> now = features(trainer);
  const auto dim = static_cast<int64_t>(now.size() / images_.size());
  double sum = 0;
  int64_t counted = 0;
  for (size_t image = 0; image < images_.size(); ++image) {
    const auto at = static_cast<int64_t>(image) * dim;
    const double one = cosine(beginning_.data() + at, now.data() + at, dim);
    if (std::isnan(one)) continue;
    sum += one;
    ++counted;
  }
  return sum / static_cast<double>(counted);
}

}  // namespace dino
