#include "augment/decode_values.h"

#include <algorithm>
#include <cmath>

#include "augment/decode.h"
#include "augment/decode_formats.h"
#include "augment/image_kind.h"

namespace dino {
namespace {

/// No measurement is as large; the usual mark for missing data is the largest negative float.
constexpr float kLargestValue = 1e30f;

Image without_last_channel(const Image& image) {
  Image result = Image::of_values(image.height, image.width, image.channels - 1);
  const auto all = static_cast<size_t>(image.channels);
  auto out = result.values.begin();
  for (size_t pixel = 0; pixel < image.values.size(); pixel += all)
    out = std::copy_n(image.values.begin() + static_cast<ptrdiff_t>(pixel), all - 1, out);
  return result;
}

}  // namespace

void check_values(int64_t width, int64_t height, int64_t channels, size_t file_bytes, std::string_view name) {
  constexpr int64_t kMostValues = int64_t{1} << 28;
  // Deflate packs at most 1032 bytes into one; others hardly more of anything that was measured.
  constexpr uint64_t kValuesPerByte = 4096;
  check<DataError>(channels >= 1 && channels <= kMostChannels, name, ": the image has ", channels, " channels; 1 to ", kMostChannels,
                   " are read, leave some out");
  check_image_size(width, height, file_bytes, kValuesPerByte, name);
  const int64_t values = width * height * channels;
  check<DataError>(values <= kMostValues, name, ": the image has ", width, " x ", height, " pixels of ", channels, " channels; at most ",
                   kMostValues, " values are read, cut it into pieces");
  check<DataError>(static_cast<uint64_t>(values) / kValuesPerByte <= file_bytes, name, ": ", values, " values cannot be in ", file_bytes,
                   " bytes; the file is truncated, replace it");
}

Image with_kind(StoredValues stored, ImageKind kind, std::string_view name) {
  const int channels = stored.image.channels;
  const bool drops_alpha = stored.alpha && channels == kind.channels + 1;
  check<DataError>((channels == kind.channels || drops_alpha) && stored.type == kind.samples, name, ": the image has ",
                   text_of({channels, stored.type}), "; ", text_of(kind), " are read here, remove or convert it");
  for (const float value : stored.image.values)
    check<DataError>(std::abs(value) < kLargestValue, name, ": holds the value ", value,
                     ", which is no measurement; fill in what is missing, or remove the image");
  return drops_alpha ? without_last_channel(stored.image) : std::move(stored.image);
}

}  // namespace dino
