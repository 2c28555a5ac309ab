#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/evaluate/features.h"

namespace dino {

struct KnnConfig {
  std::vector<int64_t> k = {10, 20, 100, 200};
  double temperature = 0.07;
};

/// The score of one k.
struct KnnScore {
  int64_t k = 0;                 ///< as asked for
  int64_t neighbours = 0;        ///< that voted: k, or all training images if there are fewer
  double top1 = 0, top5 = 0;     ///< percent
  std::vector<int> predictions;  ///< [val_images] the class with most votes
};

struct KnnResult {
  std::vector<KnnScore> scores{};  ///< ascending in k
  double temperature = 0;
  int64_t train_images = 0, val_images = 0, classes = 0;
  std::vector<std::string> notes{};  ///< what a reader of the scores should know, one line each
};

/// The weighted k-nearest-neighbour classifier of Wu et al. (2018), as DINO evaluates with it: features
/// scaled to length 1, each of the k training images with the largest cosine votes for its class with weight
/// exp(cosine / temperature). Top-5 means the true class is among the first min(5, k). Equal votes: the lower
/// class first. Labels of `val` are matched to those of `train` by class name where both have names. Throws
/// UsageError for impossible settings or missing labels, DataError for features that are not finite.
KnnResult knn(Context& context, const FeatureSet& train, const FeatureSet& val, const KnnConfig& config);

/// {"protocol": {…}, "k": {"20": {"top1": .., "top5": ..}, …}, "train_images": n, "val_images": n}
nlohmann::json to_json(const KnnResult& result);

/// `set.labels` in the numbering of `classes`. Names that `classes` does not have get numbers after its last.
/// Without names on either side the labels are returned as they are. Throws UsageError if a label is unknown.
std::vector<int> labels_as_in(const std::vector<std::string>& classes, const FeatureSet& set);

/// Throws DataError naming `what` and the first image whose feature is NaN or infinite. Appends a note about
/// features that carry no information: all equal, or zero.
void check_features(const FeatureSet& set, const std::string& what, std::vector<std::string>& notes);

}  // namespace dino
