#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "engine/parameters.h"
#include "train/evaluate/features.h"

namespace dino {

struct LinearConfig {
  int64_t epochs = 100;
  int64_t batch_size = 128;
  /// Base learning rates; each trains its own classifier on the same batches, at rate · batch_size / 256.
  std::vector<double> lr = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3};
  double momentum = 0.9;
  int64_t val_freq = 1;  ///< epochs between validations; the last epoch is always validated
  uint64_t seed = 0;     ///< of the initial weights, the order of the images and their augmentation
};

/// Learning rate in epoch `epoch` of `epochs`: half a cosine from `base` to 0, stepped once an epoch.
double cosine_epoch_lr(double base, int64_t epoch, int64_t epochs);

/// Linear classifiers on the same features, one for each learning rate, trained side by side by SGD with
/// momentum on the cross-entropy. All start from the same weights, N(0, 0.01²), and do not influence one
/// another.
class LinearClassifiers {
 public:
  LinearClassifiers(int64_t dim, int64_t classes, int64_t count, uint64_t seed);

  int64_t dim() const { return dim_; }
  int64_t classes() const { return classes_; }
  int64_t count() const { return count_; }

  /// One update on features [rows, dim]; `lr` has one rate per classifier. Returns the loss of each before
  /// the update.
  std::vector<double> step(Context& context, const Tensor& features, const std::vector<int>& labels,
                           const std::vector<double>& lr, double momentum);

  struct Score {
    double loss = 0;            ///< mean cross-entropy
    double top1 = 0, top5 = 0;  ///< percent; equal logits: the lower class first
  };
  /// The score of each classifier on a whole set, whose labels are given.
  std::vector<Score> evaluate(Context& context, const FeatureSet& set, const std::vector<int>& labels) const;

  /// Weight [classes, dim] and bias [classes] of one classifier.
  std::vector<float> weight(int64_t classifier) const;
  std::vector<float> bias(int64_t classifier) const;

 private:
  Tensor logits(Context& context, const Tensor& features) const;

  int64_t dim_, classes_, count_;
  ParameterStore parameters_;
  Parameter weight_, bias_;
  std::vector<float> velocity_;
};

/// The classifier of one learning rate.
struct LinearScore {
  double lr = 0;                            ///< base rate, before scaling by the batch
  LinearClassifiers::Score last{}, best{};  ///< after the last epoch, and of the epoch with the best top-1
  int64_t best_epoch = 0;
};

struct LinearResult {
  std::vector<LinearScore> sweep{};  ///< in the order of the rates
  size_t best = 0;                   ///< index of the rate with the best top-1 after the last epoch
  int64_t dim = 0, classes = 0, train_images = 0, val_images = 0;
  std::vector<float> weight{}, bias{};  ///< of that classifier, after the last epoch
  std::vector<std::string> notes{};
};

/// What is reported after each validation. `train_loss` and `lr` (as used) have one value per classifier.
struct LinearEpoch {
  int64_t epoch = 0;
  std::vector<double> lr{}, train_loss{};
  std::vector<LinearClassifiers::Score> val{};
};
using LinearLog = std::function<void(const LinearEpoch&)>;

/// Trains on features that were computed once, without augmentation. Throws as `knn` does.
LinearResult linear_probe(Context& context, const FeatureSet& train, const FeatureSet& val,
                          const LinearConfig& config, const LinearLog& log = {});

/// The protocol of the DINO paper: in every epoch each training image goes through the backbone again, as a
/// random crop that may be mirrored. `config.lr` should be the one rate 0.001. `val` holds features of whole
/// images.
LinearResult linear_probe_augmented(Context& context, const Backbone& backbone, const Dataset& train,
                                    const FeatureSet& val, const FeatureConfig& features,
                                    const LinearConfig& config, const LinearLog& log = {});

nlohmann::json to_json(const LinearResult& result, const LinearConfig& config);

/// One line of log.jsonl. With several classifiers the numbers are those of the best now, and `sweep` has
/// all.
nlohmann::json to_json(const LinearEpoch& epoch);

/// Writes the best classifier as safetensors: linear.weight [classes, dim] and linear.bias [classes].
void save_linear(const std::string& path, const LinearResult& result);

}  // namespace dino
