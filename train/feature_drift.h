#pragma once

#include <vector>

#include "train/evaluate/features.h"
#include "train/trainer.h"

namespace dino {

/// How far a run has moved away from the weights that it began with: the teacher's features of a few fixed images, kept from
/// when this was made and compared with those of later steps. Features tell it better than weights, which can move far in
/// directions that no image shows, and cost no more than a few forward passes.
class FeatureDrift {
 public:
  static constexpr size_t kImages = 64;  ///< at most, spread over the dataset

  /// Takes `trainer`'s teacher as the beginning. `dataset` must outlive this.
  FeatureDrift(Trainer& trainer, const Dataset& dataset);

  /// Mean over the images of the cosine between the teacher's features now and at the beginning, in [−1, 1]: 1 for a teacher
  /// that has not moved. NaN if none of the images can be read.
  double similarity(Trainer& trainer) const;

 private:
  /// [images, dim]; rows of images that cannot be read are zero.
  std::vector<float> features(Trainer& trainer) const;

  const Dataset& dataset_;
  std::vector<size_t> images_;
  std::vector<float> beginning_;
};

}  // namespace dino
