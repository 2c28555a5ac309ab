#include "augment/evaluation_images.h"

#include <algorithm>

#include "augment/geometry.h"
#include "augment/recipe.h"

namespace dino {
namespace {

Image evaluation_crop(const Image& image, int size) {
  // round(size * 8 / 7) in whole numbers; a half cannot occur.
  return resize_short_center_crop(image, (size * 16 + 7) / 14, size);
}

Image probe_crop(const Image& image, int size, Random random) {
  const CropBox box =
      sample_crop_box(image.height, image.width, {.scale_min = 0.08f, .scale_max = 1.0f}, random);
  ImageScratch scratch;
  Image crop = resize_part(image, box, size, size, Filter::bilinear, scratch);
  if (random.uniform() < 0.5f) flip_horizontally(crop);
  return crop;
}

// `make_crop(image, index)` gives the [size, size, channels] image to be normalised.
template <class MakeCrop>
void load_images(const Dataset& dataset, std::span<const size_t> indices, const EvaluationConfig& config,
                 ThreadPool& pool, float* out, std::vector<LoadFailure>& failures, MakeCrop make_crop) {
  check<UsageError>(config.size > 0 && config.size <= 8192,
                    "evaluation: the image size must be in [1, 8192]; got ", config.size);
  const Normalization normalization = normalization_of(config.channels, config.mean, config.deviation);
  const size_t values = size_t(config.size) * config.size * config.channels;
  std::vector<std::string> messages(indices.size());
  pool.parallel(static_cast<int64_t>(indices.size()), [&](int64_t chunk, int) {
    const size_t row = static_cast<size_t>(chunk), index = indices[row];
    float* pixels = out + row * values;
    try {
      const Image image = dataset.load(index);
      check<UsageError>(image.channels == config.channels, "evaluation: the dataset gives ", image.channels,
                        " channels, the configuration ", config.channels);
      const Image crop = make_crop(image, index);
      normalize(crop, normalization, pixels);
    } catch (const DataError& error) {
      messages[row] = error.what();
      std::fill_n(pixels, values, 0.0f);
    }
  });
  failures.clear();
  for (size_t row = 0; row < messages.size(); ++row) {
    if (!messages[row].empty()) failures.push_back({row, std::move(messages[row])});
  }
}

}  // namespace

void load_evaluation_images(const Dataset& dataset, std::span<const size_t> indices,
                            const EvaluationConfig& config, ThreadPool& pool, float* out,
                            std::vector<LoadFailure>& failures) {
  load_images(dataset, indices, config, pool, out, failures,
              [&](const Image& image, size_t) { return evaluation_crop(image, config.size); });
}

void load_probe_images(const Dataset& dataset, std::span<const size_t> indices,
                       const EvaluationConfig& config, uint64_t seed, int64_t epoch, ThreadPool& pool,
                       float* out, std::vector<LoadFailure>& failures) {
  constexpr uint32_t kAugmentation = 1;  // 0 is the order of the images
  load_images(dataset, indices, config, pool, out, failures, [&](const Image& image, size_t index) {
    const uint64_t position = static_cast<uint64_t>(epoch) * dataset.size() + index;
    return probe_crop(image, config.size, Random(seed, Purpose::probe, position, kAugmentation));
  });
}

}  // namespace dino
