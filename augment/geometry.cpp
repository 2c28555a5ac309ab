#include "augment/geometry.h"

#include <algorithm>
#include <cmath>

#include "kernels/color.h"

namespace dino {
namespace {

// Rounds half to even, the default rounding mode, as Python's round does.
int rounded(double value) { return static_cast<int>(std::nearbyint(value)); }

CropBox central_box(int height, int width, const CropRange& range) {
  const double ratio = static_cast<double>(width) / height;
  int h = height, w = width;
  if (ratio < range.ratio_min)
    h = std::clamp(rounded(width / static_cast<double>(range.ratio_min)), 1, height);
  if (ratio > range.ratio_max)
    w = std::clamp(rounded(height * static_cast<double>(range.ratio_max)), 1, width);
  return {(height - h) / 2, (width - w) / 2, h, w};
}

// The better of the two whole numbers around `ideal`, at least 1.
template <class Distance>
int nearest_side(double ideal, Distance distance) {
  const double low = std::floor(ideal), high = std::ceil(ideal);
  return static_cast<int>(std::max(distance(high) < distance(low) ? high : low, 1.0));
}

Image cut(const Image& image, CropBox box) {
  ImageScratch unused;
  return resize_part(image, box, box.height, box.width, Filter::bicubic, unused);
}

}  // namespace

CropBox sample_crop_box(int height, int width, const CropRange& range, Random& random) {
  constexpr int kTries = 10;
  const double area = static_cast<double>(height) * width;
  const float low = std::log(range.ratio_min), high = std::log(range.ratio_max);
  for (int i = 0; i < kTries; ++i) {
    const double target = area * static_cast<double>(random.uniform(range.scale_min, range.scale_max));
    const double ratio = static_cast<double>(std::exp(random.uniform(low, high)));
    const double w = std::nearbyint(std::sqrt(target * ratio)), h = std::nearbyint(std::sqrt(target / ratio));
    if (!(w > 0 && w <= width && h > 0 && h <= height)) continue;
    const int box_height = static_cast<int>(h), box_width = static_cast<int>(w);
    const int top = static_cast<int>(random.below(static_cast<uint32_t>(height - box_height + 1)));
    const int left = static_cast<int>(random.below(static_cast<uint32_t>(width - box_width + 1)));
    return {top, left, box_height, box_width};
  }
  return central_box(height, width, range);
}

Image resize_part(const Image& image, CropBox box, int height, int width, Filter filter, ImageScratch& scratch) {
  Image result = image.in_bytes() ? Image(height, width, image.channels) : Image::of_values(height, width, image.channels);
  if (image.in_bytes()) {
    resize(image.view().crop(box.top, box.left, box.height, box.width), result.view(), filter, scratch.bytes);
    return result;
  }
  const ResizeBox whole{0, 0, static_cast<float>(box.width), static_cast<float>(box.height)};
  resize(image.value_view().crop(box.top, box.left, box.height, box.width), whole, result.value_view(), filter, scratch.values);
  return result;
}

void flip_horizontally(Image& image) {
  if (image.in_bytes()) return flip_horizontally(image.view());
  flip_horizontally(image.value_view());
}

Image resize_to(const Image& image, int height, int width, Filter filter) {
  check<UsageError>(height > 0 && width > 0, "resize_to: the size must be positive; got ", height, " x ",
                    width);
  ImageScratch scratch;
  return resize_part(image, {0, 0, image.height, image.width}, height, width, filter, scratch);
}

Image resize_short_center_crop(const Image& image, int resize, int crop) {
  check<UsageError>(crop > 0 && crop <= resize, "resize_short_center_crop: 0 < crop <= resize; got crop ",
                    crop, ", resize ", resize);
  if (image.height == crop && image.width == crop) return image;
  const int short_side = std::min(image.height, image.width), long_side = std::max(image.height, image.width);
  // Division after the exact product, in double, then truncation: Python's int(a * b / c).
  const int new_long = static_cast<int>(static_cast<double>(int64_t{resize} * long_side) / short_side);
  const bool wide = image.width > image.height;
  check<DataError>(int64_t{new_long} * resize <= (int64_t{1} << 28), "resize: ", image.height, " x ",
                   image.width, " is too elongated to give its short side ", resize,
                   " pixels; leave the image out");
  const Image resized = resize_to(image, wide ? resize : new_long, wide ? new_long : resize, Filter::bicubic);
  const int top = rounded((resized.height - crop) / 2.0), left = rounded((resized.width - crop) / 2.0);
  return cut(resized, {top, left, crop, crop});
}

Image thumbnail(const Image& image, int side) {
  check<UsageError>(side > 0, "thumbnail: the side must be positive; got ", side);
  if (image.width <= side && image.height <= side) return image;
  const double aspect = static_cast<double>(image.width) / image.height;
  int width = side, height = side;
  if (aspect <= 1.0) {
    width = nearest_side(side * aspect, [&](double n) { return std::abs(aspect - n / side); });
  } else {
    height =
        nearest_side(side / aspect, [&](double n) { return n == 0 ? 0.0 : std::abs(aspect - side / n); });
  }
  const int factor_x = std::max(1, static_cast<int>(static_cast<double>(image.width) / width / 2.0));
  const int factor_y = std::max(1, static_cast<int>(static_cast<double>(image.height) / height / 2.0));
  if (factor_x == 1 && factor_y == 1) return resize_to(image, height, width, Filter::lanczos);

  Image reduced((image.height + factor_y - 1) / factor_y, (image.width + factor_x - 1) / factor_x,
                image.channels);
  box_reduce(image.view(), factor_x, factor_y, reduced.view());
  Image result(height, width, image.channels);
  ResizeScratch scratch;
  const ResizeBox box{0, 0, static_cast<float>(static_cast<double>(image.width) / factor_x),
                      static_cast<float>(static_cast<double>(image.height) / factor_y)};
  resize(reduced.view(), box, result.view(), Filter::lanczos, scratch);
  return result;
}

}  // namespace dino
