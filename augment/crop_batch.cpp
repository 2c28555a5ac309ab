#include "augment/crop_batch.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

namespace dino {
namespace {

static_assert(std::is_trivially_copyable_v<CropDescriptor>);

size_t aligned(size_t bytes) {
  return (bytes + PackedCrops::kAlignment - 1) / PackedCrops::kAlignment * PackedCrops::kAlignment;
}

size_t packed_bytes(const Image& image) { return size_t(image.height) * aligned(image.view().row_bytes()); }

struct Table {
  int64_t offset;
  int32_t taps;
};

/// Appends the weights that make `size` pixels of the part [begin, end) of `pixels` pixels. The same size is no special
/// case for a kernel: weight 1.
Table append_table(std::vector<int32_t>& tables, int pixels, float begin, float end, int size) {
  const auto offset = static_cast<int64_t>(tables.size() * sizeof(int32_t));
  const size_t n = static_cast<size_t>(size);
  if (pixels == size && begin == 0 && end == static_cast<float>(pixels)) {
    for (int i = 0; i < size; ++i) tables.push_back(i);
    tables.insert(tables.end(), n, 1);
    tables.insert(tables.end(), n, 1 << ResampleWeights::kFractionBits);
    return {offset, 1};
  }
  const ResampleWeights weights = resample_weights(pixels, begin, end, size, Filter::bicubic);
  const int32_t taps = *std::max_element(weights.count.begin(), weights.count.end());
  tables.insert(tables.end(), weights.first.begin(), weights.first.end());
  tables.insert(tables.end(), weights.count.begin(), weights.count.end());
  for (int32_t tap = 0; tap < taps; ++tap) {
    for (size_t i = 0; i < n; ++i)
      tables.push_back(weights.weight[i * static_cast<size_t>(weights.taps) + static_cast<size_t>(tap)]);
  }
  return {offset, taps};
}

CropDescriptor describe(const Image& image, const CropPlan& plan, std::vector<int32_t>& tables) {
  const auto [box, part] = source_of(plan);
  image.view().crop(box.top, box.left, box.height, box.width);  // throws if it is outside
  const size_t row_bytes = aligned(image.view().row_bytes());
  CropDescriptor crop{};
  crop.pixels = static_cast<int64_t>(row_bytes) * box.top + int64_t{box.left} * image.channels;
  crop.image_row_bytes = static_cast<int32_t>(row_bytes);
  const Table columns = append_table(tables, box.width, part.left, part.right, plan.size);
  const Table rows = append_table(tables, box.height, part.top, part.bottom, plan.size);
  crop.columns = columns.offset;
  crop.column_taps = columns.taps;
  crop.rows = rows.offset;
  crop.flip = plan.flip;
  crop.gray = plan.gray;
  crop.solarize = plan.solarize;
  crop.color_steps = plan.color_steps;
  crop.color = plan.color;
  crop.blur = CropDescriptor::kNoBlur;
  if (plan.blur_sigma > 0) {
    const BoxFilter filter = gaussian_box_filter(plan.blur_sigma);
    if (filter.radius > 0 || filter.edge > 0) crop.blur = filter;
  }
  return crop;
}

}  // namespace

void CropBatch::reset(int images, int crops, int channels) {
  rows_.resize(static_cast<size_t>(images));
  crops_ = crops;
  channels_ = channels;
  for (Row& row : rows_) {
    row.image = {};
    row.crops.clear();
    row.tables.clear();
  }
}

void CropBatch::set(int row, Image image, std::span<const CropPlan> plans) {
  check<UsageError>(row >= 0 && row < images() && plans.size() == static_cast<size_t>(crops_),
                    "crop batch: a row of the batch and a plan per crop; got row ", row, " of ", images(), ", ",
                    plans.size(), " plans for ", crops_, " crops");
  check<UsageError>(image.channels == channels_, "crop batch: the image has ", image.channels, " channels, the batch ",
                    channels_);
  Row& to = rows_[static_cast<size_t>(row)];
  to.image = std::move(image);
  to.crops.clear();
  to.tables.clear();
  for (const CropPlan& plan : plans) to.crops.push_back(describe(to.image, plan, to.tables));
}

size_t CropBatch::bytes() const {
  size_t total = aligned(rows_.size() * static_cast<size_t>(crops_) * sizeof(CropDescriptor));
  for (const Row& row : rows_) total += aligned(row.tables.size() * sizeof(int32_t)) + packed_bytes(row.image);
  return total;
}

void CropBatch::write(std::byte* to) const {
  auto* descriptors = reinterpret_cast<CropDescriptor*>(to);
  size_t at = aligned(rows_.size() * static_cast<size_t>(crops_) * sizeof(CropDescriptor));
  const auto append = [&](const void* from, size_t bytes) {
    std::memcpy(to + at, from, bytes);
    std::memset(to + at + bytes, 0, aligned(bytes) - bytes);
    at += aligned(bytes);
  };
  for (size_t r = 0; r < rows_.size(); ++r) {
    const Row& row = rows_[r];
    check<UsageError>(row.crops.size() == static_cast<size_t>(crops_), "crop batch: row ", r, " was not set");
    const auto tables = static_cast<int64_t>(at);
    append(row.tables.data(), row.tables.size() * sizeof(int32_t));
    const auto image = static_cast<int64_t>(at);
    for (int y = 0; y < row.image.height; ++y) append(row.image.view().row(y), row.image.view().row_bytes());
    for (size_t c = 0; c < row.crops.size(); ++c) {
      CropDescriptor crop = row.crops[c];
      crop.columns += tables;
      crop.rows += tables;
      crop.pixels += image;
      std::memcpy(descriptors + c * rows_.size() + r, &crop, sizeof crop);
    }
  }
}

PixelScale pixel_scale(const AugmentConfig& config) {
  const Normalization normalization = normalization_of(config.channels, config.mean, config.deviation);
  PixelScale scale;
  check<UsageError>(normalization.mean.size() <= scale.mean.size(), "crop batch: at most 4 channels; got ", config.channels);
  std::copy(normalization.mean.begin(), normalization.mean.end(), scale.mean.begin());
  std::copy(normalization.deviation.begin(), normalization.deviation.end(), scale.deviation.begin());
  return scale;
}

}  // namespace dino
