#include "train/validation.h"

#include <algorithm>

#include "augment/recipe.h"
#include "engine/ops.h"
#include "train/evaluate/features.h"
#include "train/evaluate/knn.h"

namespace dino {
namespace {

FeatureConfig feature_config(const TrainConfig& config) {
  return {.images = {.size = config.augment.global_crops_size,
                     .channels = static_cast<int>(config.channels),
                     .mean = config.mean,
                     .deviation = config.deviation}};
}

class Neighbours final : public Validation {
 public:
  Neighbours(const TrainConfig& config, const Dataset& train)
      : config_(config), train_(train), val_(Dataset::open(config.val, static_cast<int>(config.channels))) {
    check<UsageError>(train.labelled() && val_->labelled(),
                      "--val needs labels in --data and --val: class sub-folders or another labelled source");
  }

  const char* name() const override { return "knn_top1"; }
  const char* title() const override { return "k-NN (k 20, T 0.07)"; }

  double score(Trainer& trainer) const override {
    const FeatureConfig features = feature_config(config_);
    const Backbone& backbone = trainer.teacher().network().backbone();
    const FeatureSet train = extract_features(trainer.context(), backbone, train_, features);
    const FeatureSet val = extract_features(trainer.context(), backbone, *val_, features);
    return knn(trainer.context(), train, val, KnnConfig{.k = {20}}).scores.front().top1;
  }

 private:
  const TrainConfig& config_;
  const Dataset& train_;
  std::unique_ptr<Dataset> val_;
};

class ViewRetrieval final : public Validation {
 public:
  ViewRetrieval(const TrainConfig& config, const Dataset& train) : config_(config), train_(train) {}

  const char* name() const override { return "view_retrieval_top1"; }
  const char* title() const override { return "view retrieval"; }

  double score(Trainer& trainer) const override {
    FeatureSet views[2];
    for (int view = 0; view < 2; ++view) views[view] = features_of(trainer, view);
    const int64_t images = views[0].images;
    check<DataError>(images > 0, config_.data, ": none of the images for view retrieval can be read");
    Context& context = trainer.context();
    const auto unit = [&](const FeatureSet& set) { return run(context, L2Normalize{}, {context.on_device(set.tensor())})[L2Normalize::y]; };
    const Tensor found = context.on_host(run(context, TopK{.k = 1}, {unit(views[0]), unit(views[1])})[TopK::indices]);
    int64_t right = 0;
    for (int64_t image = 0; image < images; ++image) right += found.view().as<int64_t>()[image] == image;
    return 100.0 * static_cast<double>(right) / static_cast<double>(images);
  }

 private:
  static constexpr size_t kMostImages = 1024;
  /// Far behind every position that training reaches, so that these crops are drawn for nothing else.
  static constexpr uint64_t kFirstPosition = uint64_t{1} << 48;

  /// Features of global crop `view` of the images; those that cannot be read are left out.
  FeatureSet features_of(Trainer& trainer, int view) const {
    const AugmentConfig augment = augment_config(config_);
    const FeatureConfig features = feature_config(config_);
    const Backbone& backbone = trainer.teacher().network().backbone();
    const int64_t size = augment.global_crops_size, channels = augment.channels, values = size * size * channels;
    const size_t count = std::min(kMostImages, train_.size());
    FeatureSet set;
    set.dim = feature_length(backbone, features);
    for (size_t first = 0; first < count; first += static_cast<size_t>(features.batch_size)) {
      const size_t end = std::min(count, first + static_cast<size_t>(features.batch_size));
      const std::vector<float> crops = crops_of(trainer, augment, first, end, count, view);
      const auto readable = static_cast<int64_t>(crops.size()) / values;
      if (readable == 0) continue;
      const Tensor images(View(const_cast<float*>(crops.data()), Dtype::f32, Shape{readable, size, size, channels}), nullptr);
      const Tensor batch = batch_features(trainer.context(), backbone, images, features);
      set.values.insert(set.values.end(), batch.view().as<float>(), batch.view().as<float>() + batch.shape().count());
      set.images += readable;
    }
    return set;
  }

  /// Crops [readable images, size, size, channels] of images [first, end) of `count` that are spread over the data.
  std::vector<float> crops_of(Trainer& trainer, const AugmentConfig& augment, size_t first, size_t end, size_t count, int view) const {
    std::vector<std::vector<float>> crops(end - first);
    trainer.context().pool().parallel(static_cast<int64_t>(crops.size()), [&](int64_t i, int) {
      const size_t number = first + static_cast<size_t>(i);
      Image image;
      try {
        image = train_.load(number * train_.size() / count);
      } catch (const DataError&) {  // training names these
        return;
      }
      const CropPlan plan = plan_crop(augment, image.height, image.width, kFirstPosition + number, view);
      auto& crop = crops[static_cast<size_t>(i)];
      crop.resize(static_cast<size_t>(plan.size * plan.size * augment.channels));
      CropScratch scratch;
      render_crop(augment, image, plan, crop.data(), scratch);
    });
    std::vector<float> all;
    for (const auto& crop : crops) all.insert(all.end(), crop.begin(), crop.end());
    return all;
  }

  const TrainConfig& config_;
  const Dataset& train_;
};

}  // namespace

std::unique_ptr<Validation> make_validation(const TrainConfig& config, const Dataset& train) {
  if (!config.val.empty()) return std::make_unique<Neighbours>(config, train);
  if (config.eval_every > 0) return std::make_unique<ViewRetrieval>(config, train);
  return nullptr;
}

}  // namespace dino
