#include "augment/image_kind.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/thread_pool.h"

namespace dino {
namespace {

constexpr const char* kSampleTypes[] = {"uint8", "uint16", "float32"};

/// `count` numbers of images at most, evenly spread.
std::vector<size_t> spread(const Dataset& dataset, size_t count) {
  std::vector<size_t> images(std::min(count, dataset.size()));
  for (size_t i = 0; i < images.size(); ++i) images[i] = i * dataset.size() / images.size();
  return images;
}

/// Means of the values and of their squares, per channel, of one image.
struct Moments {
  std::vector<double> first, second;
};

Moments moments_of(const Image& image) {
  const auto channels = static_cast<size_t>(image.channels);
  Moments sums{std::vector<double>(channels), std::vector<double>(channels)};
  const size_t count = image.in_bytes() ? image.pixels.size() : image.values.size();
  for (size_t i = 0, c = 0; i < count; ++i, c = c + 1 < channels ? c + 1 : 0) {
    const double value = image.in_bytes() ? image.pixels[i] / 255.0 : static_cast<double>(image.values[i]);
    sums.first[c] += value;
    sums.second[c] += value * value;
  }
  const double pixels = static_cast<double>(count / channels);
  for (size_t c = 0; c < channels; ++c) {
    sums.first[c] /= pixels;
    sums.second[c] /= pixels;
  }
  return sums;
}

}  // namespace

const char* name_of(SampleType type) { return kSampleTypes[static_cast<size_t>(type)]; }

std::optional<SampleType> sample_type_named(std::string_view name) {
  const auto found = std::find(std::begin(kSampleTypes), std::end(kSampleTypes), name);
  if (found == std::end(kSampleTypes)) return std::nullopt;
  return static_cast<SampleType>(found - std::begin(kSampleTypes));
}

std::string text_of(ImageKind kind) {
  return str(kind.channels, kind.channels == 1 ? " channel of " : " channels of ", name_of(kind.samples));
}

std::optional<ImageKind> kind_in(const ImageHeader& header) {
  if (header.format == ImageFormat::unknown || header.width <= 0 || header.channels <= 0) return std::nullopt;
  const bool holds_more = header.format == ImageFormat::png || header.format == ImageFormat::pnm || header.format == ImageFormat::tiff ||
                          header.format == ImageFormat::npy;
  if (!holds_more || header.cmyk) return ImageKind(header.channels == 1 ? 1 : 3);
  const SampleType samples = header.real ? SampleType::float32 : header.bits > 8 ? SampleType::uint16 : SampleType::uint8;
  return ImageKind(header.channels - (header.alpha && header.channels > 1 ? 1 : 0), samples);
}

ImageKind detect_kind(const Dataset& dataset, int channels, std::optional<SampleType> samples) {
  constexpr size_t kLookedAt = 64;
  const auto less = [](const ImageKind& a, const ImageKind& b) { return std::pair(a.channels, a.samples) < std::pair(b.channels, b.samples); };
  std::map<ImageKind, size_t, decltype(less)> counts(less);
  for (const size_t image : spread(dataset, kLookedAt)) {
    try {
      if (const auto kind = kind_in(dataset.stored(image).header)) ++counts[*kind];
    } catch (const DataError&) {  // others tell
    }
  }
  const ImageKind usual(channels > 0 ? channels : 3, samples.value_or(SampleType::uint8));
  const bool plain = std::any_of(counts.begin(), counts.end(), [](const auto& count) { return count.first.in_bytes(); });
  if (counts.empty() || plain) return usual;
  const ImageKind most = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
  // What was asked for and can be made of any image is made of it.
  if (channels > 0 && channels != most.channels && usual.in_bytes()) return usual;
  return {channels > 0 ? channels : most.channels, samples.value_or(most.samples)};
}

ChannelStatistics channel_statistics(const Dataset& dataset, size_t most, int workers) {
  const std::vector<size_t> images = spread(dataset, most);
  std::vector<Moments> moments(images.size());
  std::vector<std::string> failures(images.size());
  ThreadPool pool(workers);
  pool.parallel(static_cast<int64_t>(images.size()), [&](int64_t i, int) {
    const auto at = static_cast<size_t>(i);
    try {
      moments[at] = moments_of(dataset.load(images[at]));
    } catch (const DataError& error) {
      failures[at] = error.what();
    }
  });
  ChannelStatistics result;
  Moments sum;
  for (const Moments& one : moments) {
    if (one.first.empty()) continue;
    ++result.images;
    sum.first.resize(one.first.size());
    sum.second.resize(one.first.size());
    for (size_t c = 0; c < one.first.size(); ++c) {
      sum.first[c] += one.first[c];
      sum.second[c] += one.second[c];
    }
  }
  check<DataError>(result.images > 0, "statistics: none of ", images.size(), " images can be read; the first: ",
                   failures.empty() ? std::string() : failures.front());
  for (size_t c = 0; c < sum.first.size(); ++c) {
    const double count = static_cast<double>(result.images), mean = sum.first[c] / count;
    const double deviation = std::sqrt(std::max(0.0, sum.second[c] / count - mean * mean));
    // What rounding leaves of a constant is no spread.
    const bool constant = deviation <= 1e-7 * std::abs(mean) || deviation < 1e-30;
    if (constant) result.constant.push_back(static_cast<int>(c));
    result.mean.push_back(static_cast<float>(mean));
    result.deviation.push_back(constant ? 1.0f : static_cast<float>(deviation));
  }
  return result;
}

Image to_look_at(const Image& image) {
  if (image.in_bytes()) return image;
  const auto all = static_cast<size_t>(image.channels);
  const size_t shown = all < 3 ? 1 : 3;
  Image picture(image.height, image.width, static_cast<int>(shown));
  for (size_t c = 0; c < shown; ++c) {
    float low = image.values[c], high = low;
    for (size_t i = c; i < image.values.size(); i += all) {
      low = std::min(low, image.values[i]);
      high = std::max(high, image.values[i]);
    }
    const float range = high > low ? high - low : 1;
    for (size_t i = c, o = c; i < image.values.size(); i += all, o += shown)
      picture.pixels[o] = static_cast<uint8_t>(std::lround(255 * (image.values[i] - low) / range));
  }
  return picture;
}

}  // namespace dino
