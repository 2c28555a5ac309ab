#include <bit>
#include <cstring>

#include "augment/decode_formats.h"
#include "augment/decode_values.h"
#include "engine/npy.h"

namespace dino {
namespace {

struct SampleFormat {
  std::string_view descr;
  SampleType type;
  int bytes;
  bool swapped;
};
constexpr SampleFormat kFormats[] = {{"|u1", SampleType::uint8, 1, false},   {"<u2", SampleType::uint16, 2, false},
                                     {">u2", SampleType::uint16, 2, true},   {"<f4", SampleType::float32, 4, false},
                                     {">f4", SampleType::float32, 4, true}};
static_assert(std::endian::native == std::endian::little);

const SampleFormat* format_of(const NpyHeader& header) {
  for (const SampleFormat& format : kFormats)
    if (format.descr == header.descr) return &format;
  return nullptr;
}

/// How the axes of an array are those of an image.
struct Layout {
  int64_t height = 0, width = 0, channels = 1;
  bool channels_first = false;
};

Layout layout_of(const std::vector<int64_t>& shape, int channels) {
  if (shape.size() == 2) return {shape[0], shape[1]};
  const bool fits_last = shape[2] == channels, fits_first = shape[0] == channels;
  const bool last = fits_last || (!fits_first && shape[2] <= shape[0]);
  return last ? Layout{shape[0], shape[1], shape[2]} : Layout{shape[1], shape[2], shape[0], true};
}

NpyHeader header_of(std::span<const uint8_t> bytes, std::string_view name) { return read_npy_header(std::as_bytes(bytes), std::string(name)); }

float value_at(const uint8_t* at, const SampleFormat& format) {
  uint8_t bytes[4] = {};
  for (int i = 0; i < format.bytes; ++i) bytes[i] = at[format.swapped ? format.bytes - 1 - i : i];
  if (format.type == SampleType::uint8) return static_cast<float>(bytes[0]) / 255;
  if (format.type == SampleType::uint16) return static_cast<float>(bytes[0] | bytes[1] << 8) / 65535;
  float value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

}  // namespace

StoredValues decode_npy(std::span<const uint8_t> bytes, int channels, std::string_view name) {
  NpyHeader header;
  try {
    header = header_of(bytes, name);
  } catch (const FormatError& error) {
    throw DataError(str(error.what(), "; write the image with numpy.save from a C-ordered array"));
  }
  const SampleFormat* const format = format_of(header);
  check<DataError>(format != nullptr, name, ": holds samples of type ", quote(header.descr), "; convert them to uint8, uint16 or float32");
  check<DataError>(header.shape.size() == 2 || header.shape.size() == 3, name, ": an array with ", header.shape.size(),
                   " axes; an image has [height, width], [height, width, channels] or [channels, height, width]");
  const Layout layout = layout_of(header.shape, channels);
  check_values(layout.width, layout.height, layout.channels, bytes.size(), name);
  const auto values = static_cast<size_t>(layout.width * layout.height * layout.channels);
  check<DataError>(bytes.size() - header.data_offset == values * static_cast<size_t>(format->bytes), name, ": expected ",
                   values * static_cast<size_t>(format->bytes), " bytes of samples, found ", bytes.size() - header.data_offset,
                   "; the file is damaged or truncated, replace it");
  StoredValues stored{Image::of_values(static_cast<int>(layout.height), static_cast<int>(layout.width), static_cast<int>(layout.channels)), format->type};
  const auto depth = static_cast<size_t>(layout.channels), plane = values / depth;
  for (size_t i = 0; i < values; ++i) {
    const size_t to = layout.channels_first ? i % plane * depth + i / plane : i;
    stored.image.values[to] = value_at(&bytes[header.data_offset + i * static_cast<size_t>(format->bytes)], *format);
  }
  return stored;
}

ImageHeader npy_image_header(std::span<const uint8_t> bytes) {
  ImageHeader image{.format = ImageFormat::npy};
  try {
    const NpyHeader header = header_of(bytes, {});
    const SampleFormat* const format = format_of(header);
    if (format == nullptr || header.shape.size() < 2 || header.shape.size() > 3) return image;
    const Layout layout = layout_of(header.shape, 0);
    if (layout.channels > kMostChannels) return image;
    image.width = layout.width;
    image.height = layout.height;
    image.channels = static_cast<int>(layout.channels);
    image.bits = 8 * format->bytes;
    image.real = format->type == SampleType::float32;
  } catch (const FormatError&) {  // what decoding will say
  }
  return image;
}

}  // namespace dino
