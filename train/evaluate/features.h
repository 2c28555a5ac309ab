#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "augment/dataset.h"
#include "augment/evaluation_images.h"
#include "engine/run.h"
#include "models/registry.h"

namespace dino {

/// Feature vectors of the readable images of a dataset, in its order.
struct FeatureSet {
  std::vector<float> values{};  ///< [images, dim]
  int64_t images = 0, dim = 0;
  std::vector<int> labels{};           ///< [images], -1 where unknown
  std::vector<std::string> names{};    ///< [images]
  std::vector<std::string> classes{};  ///< names of the labels; may be empty
  std::vector<std::string> failed{};   ///< one line per unreadable image, which has no row above

  const float* row(int64_t image) const { return values.data() + image * dim; }
  /// The values as a tensor [images, dim] that borrows them.
  Tensor tensor() const;
};

/// Which tokens of a vision transformer make the feature.
enum class Pool { cls, mean, cls_mean };

/// The pool of that name: cls, mean or cls+mean. Throws UsageError for another.
Pool pool_of(const std::string& name);

struct FeatureConfig {
  EvaluationConfig images{};
  int64_t batch_size = 64;
  int64_t n_last_blocks = 1;  ///< concatenates the CLS tokens of so many blocks, shallow to deep
  /// Adds the mean of the patch tokens, element by element: [cls₀, mean₀, cls₁, …], as the reference's
  /// released linear classifiers expect it. Only with one block.
  bool avgpool = false;
  Pool pool = Pool::cls;  ///< of the last block; cls_mean is [cls, mean] one after the other
  bool l2 = false;        ///< scale every feature to length 1
};

/// Called after every batch with the images done and all images.
using Progress = std::function<void(int64_t done, int64_t total)>;

/// Length of the features. Throws UsageError for a combination that cannot be, such as tokens of a network
/// without any.
int64_t feature_length(const Backbone& backbone, const FeatureConfig& config);

/// Features of images [n, height, width, channels] → [n, dim], the backbone in evaluation mode.
Tensor batch_features(Context& context, const Backbone& backbone, const Tensor& images,
                      const FeatureConfig& config);

/// Features of a whole dataset. Images that cannot be read are listed and left out; throws DataError if none
/// can be.
FeatureSet extract_features(Context& context, const Backbone& backbone, const Dataset& dataset,
                            const FeatureConfig& config, const Progress& progress = {});

/// The normalised pixels themselves as features [images, size · size · channels]: what a network must beat.
FeatureSet extract_pixels(Context& context, const Dataset& dataset, const FeatureConfig& config,
                          const Progress& progress = {});

/// Scales every row to length 1 (zero rows stay).
void normalize_rows(Context& context, FeatureSet& set);

/// Gives a network that was never trained the running statistics of batch norm which its weights imply: the
/// plain mean of the batch statistics over up to `images` images, spread over the dataset. Returns the number
/// of images used: 0 for a network without batch norm.
int64_t calibrate_batch_norm(Context& context, const Backbone& backbone, ParameterStore& parameters,
                             const Dataset& dataset, const FeatureConfig& config, int64_t images = 2000);

}  // namespace dino
