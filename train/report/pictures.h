#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "augment/dataset.h"
#include "engine/run.h"
#include "train/report/run_record.h"

namespace dino {

struct Picture {
  std::string caption;
  std::vector<uint8_t> png;
};

struct PictureRow {
  std::string caption;
  std::vector<Picture> pictures;
};

struct PictureTable {
  std::string title, note;
  std::vector<PictureRow> rows;
};

/// The crops that training would make of `count` images, evenly chosen from the dataset.
PictureTable crop_pictures(const RunRecord& run, const Dataset& dataset, int count);

/// For `count` images, what the network of `weights` sees in them: the attention of the CLS token of the last block, averaged
/// over the heads, where it is a transformer, and the images with the nearest features among at most 2,000 others.
PictureTable feature_pictures(Context& context, const RunRecord& run, const std::string& weights, const Dataset& dataset, int count);

/// The `count` images that the network of `weights` recognises least: of at most 1,024, those whose two random global crops have
/// the smallest cosine of features.
PictureTable hardest_pictures(Context& context, const RunRecord& run, const std::string& weights, const Dataset& dataset, int count);

}  // namespace dino
