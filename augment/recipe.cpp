#include "augment/recipe.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "kernels/color.h"

namespace dino {
namespace {

// torchvision and Python's random decide with < in one place and <= in another. With 0 both must mean never.
bool below(float u, float probability) { return u < probability; }
bool up_to(float u, float probability) { return probability > 0 && u <= probability; }

float jitter_factor(Random& random, float strength) {
  return random.uniform(std::max(0.0f, 1.0f - strength), 1.0f + strength);
}

// Always the same number of draws, so that leaving an operation out does not change what follows.
void plan_color(const AugmentConfig& config, Random& random, CropPlan& plan) {
  std::array<ColorOp, 4> order{ColorOp::brightness, ColorOp::contrast, ColorOp::saturation, ColorOp::hue};
  for (uint32_t i = 3; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  const std::array<float, 4> strength{config.brightness, config.contrast, config.saturation, config.hue};
  const std::array<float, 4> factor{
      jitter_factor(random, config.brightness), jitter_factor(random, config.contrast),
      jitter_factor(random, config.saturation), random.uniform(-config.hue, config.hue)};
  for (const ColorOp op : order) {
    const size_t i = static_cast<size_t>(op);
    if (strength[i] > 0) plan.color[plan.color_steps++] = {op, factor[i]};
  }
}

void apply(const ColorStep& step, MutableImageView image) {
  switch (step.op) {
    case ColorOp::brightness:
      return adjust_brightness(image, step.factor);
    case ColorOp::contrast:
      return adjust_contrast(image, step.factor);
    case ColorOp::saturation:
      return adjust_saturation(image, step.factor);
    case ColorOp::hue:
      return adjust_hue(image, step.factor);
  }
}

void check_range(std::string_view name, const std::array<float, 2>& range, float low, float high) {
  check<UsageError>(range[0] >= low && range[0] <= range[1] && range[1] <= high, "augment: ", name,
                    " must be an interval within [", low, ", ", high, "]; got ", range[0], " to ", range[1]);
}

void check_probability(std::string_view name, float value) {
  check<UsageError>(value >= 0 && value <= 1, "augment: ", name, " must be in [0, 1]; got ", value);
}

}  // namespace

std::array<ViewRecipe, 3> view_recipes(const AugmentConfig& config) {
  const auto& global = config.global_crops_scale;
  const auto& local = config.local_crops_scale;
  return {ViewRecipe{1, config.global_crops_size, global[0], global[1], config.blur_prob_global1, 0.0f},
          ViewRecipe{1, config.global_crops_size, global[0], global[1], config.blur_prob_global2,
                     config.solarize_prob},
          ViewRecipe{config.local_crops_number, config.local_crops_size, local[0], local[1],
                     config.blur_prob_local, 0.0f}};
}

ViewRecipe recipe_of(const AugmentConfig& config, int crop_index) {
  return view_recipes(config)[static_cast<size_t>(std::clamp(crop_index, 0, 2))];
}

void check_config(const AugmentConfig& config) {
  constexpr int kMaxSide = 4096, kMaxCrops = 1000;
  check<UsageError>(config.channels >= 1 && config.channels <= kMostChannels, "augment: channels must be 1 to ", kMostChannels, "; got ",
                    config.channels);
  for (const int size : {config.global_crops_size, config.local_crops_size}) {
    check<UsageError>(size > 0 && size <= kMaxSide, "augment: crop sizes must be in [1, ", kMaxSide,
                      "]; got ", size);
  }
  check<UsageError>(config.local_crops_number >= 0 && config.local_crops_number <= kMaxCrops,
                    "augment: local_crops_number must be in [0, ", kMaxCrops, "]; got ",
                    config.local_crops_number);
  check_range("global_crops_scale", config.global_crops_scale, 0, 1);
  check_range("local_crops_scale", config.local_crops_scale, 0, 1);
  check_range("ratio", config.ratio, 0.01f, 100);
  check_range("blur_sigma", config.blur_sigma, 0, 100);
  check_probability("flip_prob", config.flip_prob);
  check_probability("jitter_prob", config.jitter_prob);
  check_probability("grayscale_prob", config.grayscale_prob);
  check_probability("blur_prob_global1", config.blur_prob_global1);
  check_probability("blur_prob_global2", config.blur_prob_global2);
  check_probability("blur_prob_local", config.blur_prob_local);
  check_probability("solarize_prob", config.solarize_prob);
  for (const float strength : {config.brightness, config.contrast, config.saturation}) {
    check<UsageError>(strength >= 0 && strength <= 100, "augment: jitter strengths must be in [0, 100]; got ",
                      strength);
  }
  check<UsageError>(config.hue >= 0 && config.hue <= 0.5f, "augment: hue must be in [0, 0.5]; got ",
                    config.hue);
  normalization_of(config.channels, config.mean, config.deviation);
}

Normalization normalization_of(int channels, std::span<const float> mean, std::span<const float> deviation) {
  const size_t n = static_cast<size_t>(channels);
  Normalization result{{mean.begin(), mean.end()}, {deviation.begin(), deviation.end()}};
  if (mean.empty()) result.mean = channels == 3 ? std::vector{0.485f, 0.456f, 0.406f} : std::vector(n, 0.5f);
  if (deviation.empty())
    result.deviation = channels == 3 ? std::vector{0.229f, 0.224f, 0.225f} : std::vector(n, 0.5f);
  check<UsageError>(result.mean.size() == n && result.deviation.size() == n,
                    "--mean and --std need one value per channel; got ", result.mean.size(), " and ",
                    result.deviation.size(), " for ", channels, " channels");
  const bool positive =
      std::all_of(result.deviation.begin(), result.deviation.end(), [](float x) { return x > 0; });
  check<UsageError>(positive, "--std must be positive");
  return result;
}

CropPlan plan_crop(const AugmentConfig& config, int height, int width, uint64_t sample_position,
                   int crop_index) {
  Random random(config.seed, Purpose::augment, sample_position, static_cast<uint32_t>(crop_index));
  const ViewRecipe recipe = recipe_of(config, crop_index);
  const CropRange range{recipe.scale_min, recipe.scale_max, config.ratio[0], config.ratio[1]};
  CropPlan plan{};
  plan.size = recipe.size;
  plan.box = sample_crop_box(height, width, range, random);
  plan.flip = below(random.uniform(), config.flip_prob);
  if (up_to(random.uniform(), config.jitter_prob)) plan_color(config, random, plan);
  plan.gray = below(random.uniform(), config.grayscale_prob);
  if (up_to(random.uniform(), recipe.blur_prob)) {
    plan.blur_sigma = random.uniform(config.blur_sigma[0], config.blur_sigma[1]);
  }
  plan.solarize = below(random.uniform(), recipe.solarize_prob);
  return plan;
}

int reduction_for(std::span<const CropPlan> plans) {
  int reduction = 8;
  for (const CropPlan& plan : plans) {
    while (reduction > 1 && std::min(plan.box.width, plan.box.height) < plan.size * reduction) reduction /= 2;
  }
  return reduction;
}

CropSource source_of(const CropPlan& plan) {
  const int r = plan.reduction;
  const CropBox& box = plan.box;
  const int bottom = box.top + box.height, right = box.left + box.width;
  CropBox pixels{box.top / r, box.left / r, 0, 0};
  pixels.height = (bottom + r - 1) / r - pixels.top;
  pixels.width = (right + r - 1) / r - pixels.left;
  // Exact: whole numbers of at most 18 bits, divided by a power of two.
  const auto from = [r](int full, int origin) { return static_cast<float>(full - origin * r) / static_cast<float>(r); };
  return {pixels,
          {from(box.left, pixels.left), from(box.top, pixels.top), from(right, pixels.left), from(bottom, pixels.top)}};
}

namespace {

void render_values(const AugmentConfig& config, const Image& image, const CropPlan& plan, float* out, ValueScratch& scratch) {
  const MutableValueView crop(out, plan.size, plan.size, image.channels);
  const auto [pixels, part] = source_of(plan);
  resize(image.value_view().crop(pixels.top, pixels.left, pixels.height, pixels.width), part, crop, Filter::bicubic, scratch);
  if (plan.flip) flip_horizontally(crop);
  if (plan.blur_sigma > 0) gaussian_blur(crop, plan.blur_sigma, scratch);
  float scale = 1, shift = 0;
  for (const ColorStep& step : std::span(plan.color).first(static_cast<size_t>(plan.color_steps))) {
    if (step.op == ColorOp::brightness) shift += step.factor - 1;
    if (step.op != ColorOp::contrast) continue;
    scale *= step.factor;
    shift *= step.factor;
  }
  const Normalization normalization = normalization_of(config.channels, config.mean, config.deviation);
  normalize(crop, normalization.mean, normalization.deviation, scale, shift, out);
}

}  // namespace

void normalize(const Image& image, const Normalization& normalization, float* out) {
  if (image.in_bytes()) return normalize(image.view(), normalization.mean, normalization.deviation, out);
  normalize(image.value_view(), normalization.mean, normalization.deviation, 1, 0, out);
}

void render_crop(const AugmentConfig& config, const Image& image, const CropPlan& plan, float* out,
                 CropScratch& scratch) {
  check<UsageError>(image.channels == config.channels, "render_crop: the image has ", image.channels,
                    " channels, the configuration ", config.channels);
  if (!image.in_bytes()) return render_values(config, image, plan, out, scratch.values);
  scratch.crop.reshape(plan.size, plan.size, image.channels);
  const MutableImageView crop = scratch.crop.view();
  const auto [pixels, part] = source_of(plan);
  resize(image.view().crop(pixels.top, pixels.left, pixels.height, pixels.width), part, crop, Filter::bicubic,
         scratch.resize);
  if (plan.flip) flip_horizontally(crop);
  for (int i = 0; i < plan.color_steps; ++i) apply(plan.color[static_cast<size_t>(i)], crop);
  if (plan.gray) to_grayscale(crop);
  if (plan.blur_sigma > 0) gaussian_blur(crop, plan.blur_sigma, scratch.blur);
  if (plan.solarize) solarize(crop);
  const Normalization normalization = normalization_of(config.channels, config.mean, config.deviation);
  normalize(crop, normalization.mean, normalization.deviation, out);
}

}  // namespace dino
