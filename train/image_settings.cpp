#include "train/image_settings.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "augment/image_kind.h"
#include "train/options.h"

namespace dino {
namespace {

namespace fs = std::filesystem;

/// Images whose values are averaged: the error of a mean is then a 30th of the spread between images.
constexpr size_t kMeasuredImages = 1000;

std::string list_of(const std::vector<float>& values) {
  std::string text;
  char number[32];
  for (const float value : values) {
    std::snprintf(number, sizeof number, "%.4g", static_cast<double>(value));
    text += (text.empty() ? "" : ", ") + std::string(number);
  }
  return text;
}

/// What the run began with, if it goes on.
std::optional<TrainConfig> config_before(const TrainConfig& config) {
  const fs::path out = config.out;
  std::error_code unknown;
  if (!fs::exists(out / "checkpoint.safetensors", unknown) || !fs::exists(out / "config.json", unknown)) return std::nullopt;
  TrainConfig before;
  std::vector<Option> options = options_of(before);
  try {
    read_config_file((out / "config.json").string(), options);
  } catch (const UsageError&) {  // the checkpoint will tell what does not fit
    return std::nullopt;
  }
  return before;
}

/// As config.json will say it, so that a run that goes on from there has the same values.
std::vector<float> as_recorded(std::vector<float> values) {
  for (float& value : values) value = std::strtof(str(value).c_str(), nullptr);
  return values;
}

void measure(TrainConfig& config, const Dataset& dataset) {
  const ChannelStatistics found = channel_statistics(dataset, kMeasuredImages, static_cast<int>(config.num_workers));
  if (config.mean.empty()) config.mean = as_recorded(found.mean);
  if (config.deviation.empty()) config.deviation = as_recorded(found.deviation);
  std::fprintf(stderr, "images: mean %s, standard deviation %s (of %zu images; --mean and --std say otherwise)\n", list_of(config.mean).c_str(),
               list_of(config.deviation).c_str(), found.images);
  for (const int channel : found.constant) std::fprintf(stderr, "images: channel %d has the same value everywhere\n", channel);
}

}  // namespace

void settle_kind(TrainConfig& config, Dataset& dataset) {
  if (const auto before = config_before(config)) {
    if (config.channels == 0) config.channels = before->channels;
    if (config.pixel_type == "auto") config.pixel_type = name_of(image_kind(*before).samples);
  } else if (config.channels == 0 || config.pixel_type == "auto") {
    const ImageKind kind = detect_kind(dataset, static_cast<int>(config.channels), sample_type_named(config.pixel_type));
    config.channels = kind.channels;
    config.pixel_type = name_of(kind.samples);
  }
  dataset.read_as(image_kind(config));
}

void settle_images(TrainConfig& config, Dataset& dataset) {
  const auto before = config_before(config);
  const bool detected = !before && (config.channels == 0 || config.pixel_type == "auto");
  settle_kind(config, dataset);
  for (const auto& [flag, list] : {std::pair{"--mean", &config.mean}, std::pair{"--std", &config.deviation}})
    check<UsageError>(list->empty() || static_cast<int64_t>(list->size()) == config.channels, flag, " needs one value for each of ", config.channels,
                      " channels; got ", list->size());
  if (dataset.kind().in_bytes()) return;
  std::fprintf(stderr, "images: %s%s; saturation, hue, gray and solarization are off, which only 8-bit gray and colour have%s\n",
               text_of(dataset.kind()).c_str(), detected ? " (--channels and --pixel-type say otherwise)" : "",
               placement(config).device == Device::cuda ? "; crops are made on the CPU, the GPU's are 8-bit" : "");
  if (before) {
    if (config.mean.empty()) config.mean = before->mean;
    if (config.deviation.empty()) config.deviation = before->deviation;
  }
  if (config.mean.empty() || config.deviation.empty()) measure(config, dataset);
}

std::unique_ptr<Dataset> open_settled(TrainConfig& config) {
  std::unique_ptr<Dataset> dataset = Dataset::open(config.data);
  settle_images(config, *dataset);
  return dataset;
}

}  // namespace dino
