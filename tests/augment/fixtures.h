#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "augment/image.h"

/// Images, encoders and files that the tests of `augment/` make for themselves.
namespace dino::fixtures {

using Bytes = std::vector<uint8_t>;

/// The test image of the reference's golden values, [rows, columns, 3].
Image pattern(int rows, int columns);
/// The same with one channel: the red of `pattern`.
Image gray_pattern(int rows, int columns);

uint32_t crc_of(const Image& image);

Bytes jpeg(const Image& image, int quality = 90);
/// A four-channel JPEG in Adobe's convention; `image` has four channels.
Bytes cmyk_jpeg(const Image& image);
Bytes png(const Image& image);
/// 16 bits per sample, high byte from the image, low byte arbitrary.
Bytes png16(const Image& image);
Bytes bmp(const Image& image);
Bytes pnm(const Image& image);
Bytes webp(const Image& image);
Bytes tiff(const Image& image);

/// An image of values and how a file holds them.
struct WideImage {
  int height, width, channels;
  SampleType type;
  std::vector<double> samples;  ///< [height, width, channels], as the file says them
  bool planes = false, tiles = false, alpha = false;
};
/// Different in every sample: whole numbers over the whole range of the type, or floats between -50 and 50.
WideImage wide_pattern(int height, int width, int channels, SampleType type, int number = 0);
/// What `decode` should make of it.
std::vector<float> values_of(const WideImage& image);
Bytes wide_tiff(const WideImage& image);
/// [height, width, channels], or with `channels_first` [channels, height, width]; of one channel [height, width].
Bytes npy(const WideImage& image, bool channels_first = false, bool big_endian = false);
/// Any header with any data.
Bytes npy_with(const std::string& header, std::span<const uint8_t> data);

Bytes gzip(std::span<const uint8_t> plain);

/// One member of an archive with its ustar header.
void append_member(Bytes& archive, const std::string& name, std::span<const uint8_t> contents,
                   char type = '0');
/// The two empty blocks at the end of an archive.
void finish_archive(Bytes& archive);

Bytes idx_images(int count, int rows, int columns);
Bytes idx_labels(int count, int classes);
/// Records of CIFAR-10 (`label_bytes` 1) or CIFAR-100 (2); the label of record i is i modulo 10.
Bytes cifar(int count, int label_bytes);

/// A folder that vanishes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;

  std::string path(const std::string& name = "") const { return (root_ / name).string(); }
  /// Writes a file, with the folders that lead to it, and gives its path.
  std::string write(const std::string& name, std::span<const uint8_t> contents) const;
  std::string write(const std::string& name, const std::string& text) const;

 private:
  std::filesystem::path root_;
};

}  // namespace dino::fixtures
