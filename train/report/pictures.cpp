#include "train/report/pictures.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "augment/geometry.h"
#include "augment/image_kind.h"
#include "train/evaluate/attention_maps.h"
#include "train/evaluate/features.h"
#include "train/evaluate/views.h"
#include "train/png.h"
#include "train/report/markup.h"
#include "train/weights.h"

namespace dino {
namespace {

constexpr int kLargestSide = 112;     ///< of a picture in the report
constexpr size_t kCandidates = 2000;  ///< among which neighbours are looked for
constexpr size_t kNeighbours = 5;
constexpr int kLocalCrops = 4;        ///< of an image that are shown

Picture picture(std::string caption, const Image& whole) {
  const Image image = to_look_at(whole);
  const int side = std::max(image.height, image.width);
  if (side <= kLargestSide) return {std::move(caption), encode_png(image.view())};
  const auto shrunk = [&](int length) { return std::max(1, length * kLargestSide / side); };
  return {std::move(caption), encode_png(resize_to(image, shrunk(image.height), shrunk(image.width), Filter::bilinear).view())};
}

std::string name_of_image(const Dataset& dataset, size_t index) {
  const std::string file = std::filesystem::path(dataset.name(index)).filename().string();
  const int label = dataset.label(index);
  const auto& classes = dataset.class_names();
  return label >= 0 && static_cast<size_t>(label) < classes.size() ? classes[static_cast<size_t>(label)] + " " + file : file;
}

/// `count` numbers of images, evenly spread over `total`.
std::vector<size_t> spread(size_t total, size_t count) {
  std::vector<size_t> indices(std::min(total, count));
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = (2 * i + 1) * total / (2 * indices.size());
  return indices;
}

/// Normalised pixels [size, size, channels] as an image of `kind`.
Image image_of(const std::vector<float>& pixels, int size, const AugmentConfig& config, ImageKind kind) {
  if (!kind.in_bytes()) {
    Image image = Image::of_values(size, size, kind.channels);
    image.values = pixels;
    return image;
  }
  const Normalization n = normalization_of(config.channels, config.mean, config.deviation);
  Image image(size, size, config.channels);
  for (size_t i = 0; i < pixels.size(); ++i) {
    const size_t c = i % static_cast<size_t>(config.channels);
    image.pixels[i] = static_cast<uint8_t>(std::lround(std::clamp((pixels[i] * n.deviation[c] + n.mean[c]) * 255, 0.0f, 255.0f)));
  }
  return image;
}

/// Images and their features, in rows.
struct Gallery {
  std::vector<size_t> indices;
  std::vector<float> features;  ///< [images, dim], of length 1
  size_t dim = 0;

  float cosine(size_t a, size_t b) const {
    return std::inner_product(&features[a * dim], &features[a * dim] + dim, &features[b * dim], 0.0f);
  }
  /// The rows with the largest cosines to `row`, without itself.
  std::vector<size_t> nearest(size_t row, size_t count) const {
    std::vector<std::pair<float, size_t>> others;
    for (size_t other = 0; other < indices.size(); ++other)
      if (other != row) others.emplace_back(-cosine(row, other), other);
    const size_t kept = std::min(count, others.size());
    std::partial_sort(others.begin(), others.begin() + static_cast<ptrdiff_t>(kept), others.end());
    std::vector<size_t> rows(kept);
    for (size_t i = 0; i < kept; ++i) rows[i] = others[i].second;
    return rows;
  }
};

/// Features of the queries, which come first, and of images to compare them with. Images that cannot be read are left out.
Gallery gallery_of(Context& context, const LoadedBackbone& network, const FeatureConfig& config, const Dataset& dataset,
                   const std::vector<size_t>& queries) {
  std::vector<size_t> wanted = queries;
  for (const size_t index : spread(dataset.size(), kCandidates))
    if (std::find(queries.begin(), queries.end(), index) == queries.end()) wanted.push_back(index);
  Gallery gallery;
  gallery.dim = static_cast<size_t>(feature_dim(network.backbone));
  const int64_t size = config.images.size, channels = config.images.channels;
  for (size_t begin = 0; begin < wanted.size(); begin += static_cast<size_t>(config.batch_size)) {
    const size_t count = std::min(wanted.size() - begin, static_cast<size_t>(config.batch_size));
    const Tensor images = context.host_tensor({Dtype::f32, Shape{static_cast<int64_t>(count), size, size, channels}});
    std::vector<LoadFailure> failures;
    load_evaluation_images(dataset, std::span(wanted).subspan(begin, count), config.images, context.pool(), images.view().as<float>(), failures);
    const Tensor features = batch_features(context, network.backbone, images, config);
    for (size_t i = 0; i < count; ++i) {
      if (std::any_of(failures.begin(), failures.end(), [&](const LoadFailure& failure) { return failure.row == i; })) continue;
      const float* row = features.view().as<float>() + i * gallery.dim;
      const float length = std::sqrt(std::inner_product(row, row + gallery.dim, row, 0.0f));
      gallery.indices.push_back(wanted[begin + i]);
      for (size_t d = 0; d < gallery.dim; ++d) gallery.features.push_back(length > 0 ? row[d] / length : 0);
    }
  }
  return gallery;
}

Picture attention_picture(Context& context, const VisionTransformer& vit, const LoadedBackbone& network, const Image& image) {
  const auto size = static_cast<int>(network.recipe.image_size), patch = static_cast<int>(vit.config().patch);
  const PreparedImage prepared = prepare_for_attention(context, image, size, size, patch, network.recipe.mean, network.recipe.deviation);
  const AttentionMaps maps = attention_maps(context, vit, prepared.input);
  return picture("attention", draw_map(mean_map(maps), maps.rows, maps.cols, patch));
}

}  // namespace

PictureTable crop_pictures(const RunRecord& run, const Dataset& dataset, int count) {
  const AugmentConfig config = augment_config(run.config);
  PictureTable table{"What the networks see", "One image a row: the whole, the two global crops, and some of the local ones.", {}};
  if (!dataset.kind().in_bytes())
    table.note += " Shown are the first three channels, or the first as gray if there are fewer, each from its smallest to its largest value in the picture.";
  CropScratch scratch;
  for (const size_t index : spread(dataset.size(), static_cast<size_t>(count))) {
    Image image;
    try {
      image = dataset.load(index);
    } catch (const DataError& error) {  // the other images are still worth showing
      table.rows.push_back({str(name_of_image(dataset, index), ": ", error.what()), {}});
      continue;
    }
    PictureRow row{name_of_image(dataset, index), {picture("whole image", image)}};
    for (int crop = 0; crop < std::min(config.crops(), 2 + kLocalCrops); ++crop) {
      const CropPlan plan = plan_crop(config, image.height, image.width, index, crop);
      std::vector<float> pixels(static_cast<size_t>(plan.size) * static_cast<size_t>(plan.size) * static_cast<size_t>(config.channels));
      render_crop(config, image, plan, pixels.data(), scratch);
      row.pictures.push_back(picture(crop < 2 ? "global crop" : "local crop", image_of(pixels, plan.size, config, dataset.kind())));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

PictureTable feature_pictures(Context& context, const RunRecord& run, const std::string& weights, const Dataset& dataset, int count) {
  LoadOptions options{.path = weights};
  options.placement.device = context.device();
  const LoadedBackbone network = load_backbone(options);
  FeatureConfig config{.images = {static_cast<int>(network.recipe.image_size), static_cast<int>(run.config.channels), network.recipe.mean,
                                  network.recipe.deviation}};
  const std::vector<size_t> queries = spread(dataset.size(), static_cast<size_t>(count));
  const Gallery gallery = gallery_of(context, network, config, dataset, queries);
  const auto* vit = std::get_if<VisionTransformer>(&network.backbone);
  PictureTable table{std::filesystem::path(weights).filename().string(),
                     str("The ", kNeighbours, " images with the nearest features of ", gallery.indices.size(), ", with their cosines."), {}};
  for (size_t query = 0; query < gallery.indices.size(); ++query) {
    const size_t index = gallery.indices[query];
    if (std::find(queries.begin(), queries.end(), index) == queries.end()) break;  // the queries come first
    const Image image = dataset.load(index);
    PictureRow row{name_of_image(dataset, index), {picture("image", image)}};
    if (vit) row.pictures.push_back(attention_picture(context, *vit, network, image));
    for (const size_t other : gallery.nearest(query, kNeighbours))
      row.pictures.push_back(picture(short_number(gallery.cosine(query, other), 2) + " " + name_of_image(dataset, gallery.indices[other]),
                                     dataset.load(gallery.indices[other])));
    table.rows.push_back(std::move(row));
  }
  return table;
}

PictureTable hardest_pictures(Context& context, const RunRecord& run, const std::string& weights, const Dataset& dataset, int count) {
  LoadOptions options{.path = weights};
  options.placement.device = context.device();
  const LoadedBackbone network = load_backbone(options);
  const AugmentConfig augment = augment_config(run.config);
  const Views views = two_views(context, network.backbone, dataset, augment);
  std::vector<std::pair<float, size_t>> cosines;
  for (size_t i = 0; i < views.images.size(); ++i) cosines.emplace_back(views.cosine(i, i), i);
  const size_t shown = std::min(cosines.size(), static_cast<size_t>(count));
  std::partial_sort(cosines.begin(), cosines.begin() + static_cast<ptrdiff_t>(shown), cosines.end());
  PictureTable table{"Hardest images", str("Of ", views.images.size(), " images, those whose two random crops have the least similar features, with the cosine."), {}};
  for (size_t i = 0; i < shown; ++i) {
    const size_t index = views.images[cosines[i].second];
    PictureRow row{str(short_number(cosines[i].first, 2), " ", name_of_image(dataset, index)), {picture("image", dataset.load(index))}};
    for (int view = 0; view < 2; ++view) row.pictures.push_back(picture("crop", image_of(view_of(dataset, augment, index, view), augment.global_crops_size, augment, dataset.kind())));
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace dino
