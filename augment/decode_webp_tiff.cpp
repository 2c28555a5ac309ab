#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>

#include <tiffio.h>
#include <webp/decode.h>

#include "augment/decode.h"
#include "augment/decode_formats.h"

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

}  // namespace dino
