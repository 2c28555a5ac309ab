#include "train/validation.h"

#include "train/evaluate/features.h"
#include "train/evaluate/knn.h"
#include "train/evaluate/views.h"

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
      : config_(config), train_(train), val_(Dataset::open(config.val, image_kind(config))) {
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
    Context& context = trainer.context();
    return view_retrieval(context, two_views(context, trainer.teacher().network().backbone(), train_, augment_config(config_)));
  }

 private:
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
