#pragma once

#include <vector>

#include "augment/recipe.h"
#include "train/evaluate/features.h"

namespace dino {

/// Features of two random global crops of each of some images.
struct Views {
  std::vector<size_t> images;      ///< numbers in the dataset
  std::vector<float> features[2];  ///< [images, dim] of the first and of the second crops, each of length 1
  int64_t dim = 0;

  float cosine(size_t first, size_t second) const;
};

/// Views of up to `most` images that are spread over `dataset`, the same ones at each call. Images that cannot be read are left
/// out; throws DataError if none can be.
Views two_views(Context& context, const Backbone& backbone, const Dataset& dataset, const AugmentConfig& augment, size_t most = 1024);

/// The crop of image `image` of `dataset` that is its view 0 or 1: [size, size, channels], normalised.
std::vector<float> view_of(const Dataset& dataset, const AugmentConfig& augment, size_t image, int view);

/// View retrieval at 1: how many of the first views have the second view of the same image as the nearest of all second views, in
/// percent.
double view_retrieval(Context& context, const Views& views);

}  // namespace dino
