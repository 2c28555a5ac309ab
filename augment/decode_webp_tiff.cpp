#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>

#include <tiffio.h>
#include <webp/decode.h>

#include "augment/decode.h"
#include "augment/decode_formats.h"
#include "augment/decode_values.h"

namespace dino {
namespace {

// The file in memory, as libtiff's callbacks see it.
struct TiffMemory {
  std::span<const uint8_t> bytes;
  uint64_t position = 0;
  char message[256] = "";
};

tmsize_t read_bytes(thandle_t handle, void* out, tmsize_t size) {
  TiffMemory& file = *static_cast<TiffMemory*>(handle);
  if (size < 0 || file.position >= file.bytes.size()) return 0;
  const uint64_t n = std::min<uint64_t>(size, file.bytes.size() - file.position);
  std::memcpy(out, file.bytes.data() + file.position, n);
  file.position += n;
  return static_cast<tmsize_t>(n);
}

tmsize_t write_nothing(thandle_t, void*, tmsize_t) { return 0; }
int close_nothing(thandle_t) { return 0; }
toff_t size_of_file(thandle_t handle) { return static_cast<TiffMemory*>(handle)->bytes.size(); }

toff_t seek_to(thandle_t handle, toff_t offset, int whence) {
  TiffMemory& file = *static_cast<TiffMemory*>(handle);
  if (whence == SEEK_CUR) offset += file.position;
  if (whence == SEEK_END) offset += file.bytes.size();
  return file.position = offset;
}

int map_memory(thandle_t handle, void** base, toff_t* size) {
  TiffMemory& file = *static_cast<TiffMemory*>(handle);
  *base = const_cast<uint8_t*>(file.bytes.data());
  *size = file.bytes.size();
  return 1;
}
void unmap_nothing(thandle_t, void*, toff_t) {}

__attribute__((format(printf, 4, 0))) int on_error(TIFF*, void* user, const char*, const char* format,
                                                   va_list arguments) {
  TiffMemory& file = *static_cast<TiffMemory*>(user);
  if (file.message[0] == '\0') std::vsnprintf(file.message, sizeof file.message, format, arguments);
  return 1;
}
int on_warning(TIFF*, void*, const char*, const char*, va_list) { return 1; }

// libtiff multiplies colours by an alpha that is not "associated". Alpha is dropped, so it must not touch
// them.
void keep_colors_unmultiplied(TIFF* tiff) {
  uint16_t count = 0;
  uint16_t* kinds = nullptr;
  if (!TIFFGetField(tiff, TIFFTAG_EXTRASAMPLES, &count, &kinds) || count == 0) return;
  std::vector<uint16_t> associated(count, uint16_t{EXTRASAMPLE_ASSOCALPHA});
  TIFFSetField(tiff, TIFFTAG_EXTRASAMPLES, count, associated.data());
}

using TiffHandle = std::unique_ptr<TIFF, void (*)(TIFF*)>;

TiffHandle open_tiff(TiffMemory& file) {
  const std::unique_ptr<TIFFOpenOptions, void (*)(TIFFOpenOptions*)> options(TIFFOpenOptionsAlloc(),
                                                                             TIFFOpenOptionsFree);
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), on_error, &file);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), on_warning, nullptr);
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), tmsize_t{kMaxPixels} * 8);
  // 'm' would forbid the memory mapping; 'O' loads tags when asked for.
  return {TIFFClientOpenExt("image", "r", &file, read_bytes, write_nothing, seek_to, close_nothing,
                            size_of_file, map_memory, unmap_nothing, options.get()),
          TIFFClose};
}

/// What a TIFF says about its samples.
struct TiffLayout {
  uint32_t width = 0, height = 0;
  uint16_t channels = 1, bits = 1, format = SAMPLEFORMAT_UINT, planes = PLANARCONFIG_CONTIG, kind = PHOTOMETRIC_MINISBLACK;
  bool alpha = false;
  SampleType type = SampleType::uint8;
};

TiffLayout read_layout(TIFF* tiff, size_t file_bytes, std::string_view name) {
  TiffLayout layout;
  TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &layout.width);
  TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &layout.height);
  TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLESPERPIXEL, &layout.channels);
  TIFFGetFieldDefaulted(tiff, TIFFTAG_BITSPERSAMPLE, &layout.bits);
  TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLEFORMAT, &layout.format);
  TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &layout.planes);
  TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &layout.kind);
  uint16_t extra = 0;
  uint16_t* kinds = nullptr;
  if (TIFFGetField(tiff, TIFFTAG_EXTRASAMPLES, &extra, &kinds) && extra > 0) layout.alpha = kinds[extra - 1] != EXTRASAMPLE_UNSPECIFIED;
  check_values(layout.width, layout.height, layout.channels, file_bytes, name);
  const bool whole = layout.format == SAMPLEFORMAT_UINT || layout.format == SAMPLEFORMAT_VOID;
  if (whole && layout.bits == 8)
    layout.type = SampleType::uint8;
  else if (whole && layout.bits == 16)
    layout.type = SampleType::uint16;
  else if (layout.format == SAMPLEFORMAT_IEEEFP && layout.bits == 32)
    layout.type = SampleType::float32;
  else
    throw DataError(str(name, ": holds ", layout.format == SAMPLEFORMAT_INT ? "signed " : layout.format == SAMPLEFORMAT_IEEEFP ? "real " : "", "samples of ",
                        layout.bits, " bits; convert them to uint8, uint16 or float32"));
  check<DataError>(layout.kind == PHOTOMETRIC_MINISBLACK || layout.kind == PHOTOMETRIC_RGB, name,
                   ": its samples are no plain values (photometric interpretation ", layout.kind, "); convert it to \"min is black\" or RGB");
  return layout;
}

/// The values of `count` samples that lie one after the other, each put `step` floats after the one before.
void take_samples(const uint8_t* from, size_t count, SampleType type, float* to, size_t step) {
  for (size_t i = 0; i < count; ++i, to += step) {
    uint16_t wide;
    if (type == SampleType::uint8) *to = static_cast<float>(from[i]) / 255;
    if (type == SampleType::uint16) *to = static_cast<float>((std::memcpy(&wide, from + 2 * i, 2), wide)) / 65535;
    if (type == SampleType::float32) std::memcpy(to, from + 4 * i, 4);
  }
}

/// Calls use(top, left, rows, columns, samples, bytes from row to row) for each tile, or row, of a plane.
template <class Use>
void for_parts(TIFF* tiff, TiffMemory& file, const TiffLayout& layout, uint16_t plane, std::string_view name, const Use& use) {
  const bool tiled = TIFFIsTiled(tiff);
  uint32_t rows = 1, columns = layout.width;
  if (tiled) {
    TIFFGetField(tiff, TIFFTAG_TILEWIDTH, &columns);
    TIFFGetField(tiff, TIFFTAG_TILELENGTH, &rows);
  }
  const tmsize_t bytes = tiled ? TIFFTileSize(tiff) : TIFFScanlineSize(tiff);
  const uint64_t in_pixel = layout.bits / 8u * (layout.planes == PLANARCONFIG_CONTIG ? layout.channels : 1u);
  constexpr tmsize_t kMostBytes = tmsize_t{1} << 30;
  if (rows == 0 || columns == 0 || bytes <= 0 || bytes > kMostBytes || static_cast<uint64_t>(bytes) < in_pixel * rows * columns)
    throw_undecodable(name, "TIFF", file.message[0] ? file.message : "its parts are of no possible size");
  std::vector<uint8_t> part(static_cast<size_t>(bytes));
  for (uint32_t top = 0; top < layout.height; top += rows)
    for (uint32_t left = 0; left < layout.width; left += columns) {
      const bool read = tiled ? TIFFReadTile(tiff, part.data(), left, top, 0, plane) == bytes : TIFFReadScanline(tiff, part.data(), top, plane) == 1;
      if (!read) throw_undecodable(name, "TIFF", file.message[0] ? file.message : "the file is truncated");
      use(top, left, std::min(rows, layout.height - top), std::min(columns, layout.width - left), part.data(), in_pixel * columns);
    }
}

}  // namespace

Image decode_webp(std::span<const uint8_t> bytes, std::string_view name) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(bytes.data(), bytes.size(), &features) != VP8_STATUS_OK) {
    throw_undecodable(name, "WebP", "the header is damaged");
  }
  if (features.has_animation) throw_undecodable(name, "WebP", "animations are not read");
  check_image_size(features.width, features.height, bytes.size(), kMaxPixels, name);
  Image image(features.height, features.width, features.has_alpha ? 4 : 3);
  const auto decode_into = features.has_alpha ? WebPDecodeRGBAInto : WebPDecodeRGBInto;
  const int stride = image.width * image.channels;
  if (decode_into(bytes.data(), bytes.size(), image.pixels.data(), image.pixels.size(), stride) == nullptr) {
    throw_undecodable(name, "WebP", "the picture is damaged or truncated");
  }
  return image;
}

Image decode_tiff(std::span<const uint8_t> bytes, std::string_view name) {
  TiffMemory file{.bytes = bytes};
  const TiffHandle tiff = open_tiff(file);
  if (tiff == nullptr) throw_undecodable(name, "TIFF", file.message);
  uint32_t width = 0, height = 0;
  TIFFGetField(tiff.get(), TIFFTAG_IMAGEWIDTH, &width);
  TIFFGetField(tiff.get(), TIFFTAG_IMAGELENGTH, &height);
  // Its strongest compressions (deflate on one-bit pixels, fax) still leave something of every 16 KiB.
  check_image_size(width, height, bytes.size(), 1 << 17, name);
  Image image(static_cast<int>(height), static_cast<int>(width), 4);
  std::vector<uint32_t> raster(size_t(width) * height);
  keep_colors_unmultiplied(tiff.get());
  constexpr int kStopOnError = 1;
  if (!TIFFReadRGBAImageOriented(tiff.get(), width, height, raster.data(), ORIENTATION_TOPLEFT,
                                 kStopOnError)) {
    throw_undecodable(name, "TIFF", file.message);
  }
  for (size_t i = 0; i < raster.size(); ++i) {
    const uint32_t pixel = raster[i];
    uint8_t* out = &image.pixels[4 * i];
    out[0] = static_cast<uint8_t>(TIFFGetR(pixel));
    out[1] = static_cast<uint8_t>(TIFFGetG(pixel));
    out[2] = static_cast<uint8_t>(TIFFGetB(pixel));
    out[3] = static_cast<uint8_t>(TIFFGetA(pixel));
  }
  return image;
}

StoredValues decode_tiff_values(std::span<const uint8_t> bytes, std::string_view name) {
  TiffMemory file{.bytes = bytes};
  const TiffHandle tiff = open_tiff(file);
  if (tiff == nullptr) throw_undecodable(name, "TIFF", file.message);
  const TiffLayout layout = read_layout(tiff.get(), bytes.size(), name);
  const size_t channels = layout.channels;
  const bool together = layout.planes == PLANARCONFIG_CONTIG;
  StoredValues stored{Image::of_values(static_cast<int>(layout.height), static_cast<int>(layout.width), layout.channels), layout.type, layout.alpha};
  float* const values = stored.image.values.data();
  for (uint16_t plane = 0; plane < (together ? 1 : layout.channels); ++plane)
    for_parts(tiff.get(), file, layout, plane, name,
              [&](uint32_t top, uint32_t left, uint32_t rows, uint32_t columns, const uint8_t* samples, size_t row_bytes) {
                for (uint32_t y = 0; y < rows; ++y) {
                  float* to = values + (size_t(top + y) * layout.width + left) * channels + plane;
                  take_samples(samples + y * row_bytes, together ? columns * channels : columns, layout.type, to, together ? 1 : channels);
                }
              });
  return stored;
}

}  // namespace dino
