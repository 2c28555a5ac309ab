#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Every reader of files that strangers may have written, as a function of bytes.
namespace dino::fuzz {

struct Target {
  std::string_view name;
  /// Reads the bytes as such a file, and looks at what came out as the program would. May throw.
  void (*read)(std::span<const uint8_t> bytes);
  /// Small whole files to start from; `read` takes each without an error.
  std::vector<std::string> (*seeds)();
};

std::span<const Target> targets();

/// The target of that name. Throws UsageError that lists those there are.
const Target& target_named(std::string_view name);

/// Lets `target` read `bytes`. Returns whether it could; an error is one line of a kind that ends the program with exit code 2 or 3.
/// Whatever else the reader throws goes through, and ends a fuzzer with a report.
bool read_or_refuse(const Target& target, std::span<const uint8_t> bytes);

// Seeds; tests/fuzz/seeds.cpp.
std::vector<std::string> jpeg_seeds();
std::vector<std::string> png_seeds();
std::vector<std::string> bmp_seeds();
std::vector<std::string> pnm_seeds();
std::vector<std::string> webp_seeds();
std::vector<std::string> tiff_seeds();
std::vector<std::string> wide_tiff_seeds();
std::vector<std::string> png16_seeds();
std::vector<std::string> npy_image_seeds();
std::vector<std::string> tar_seeds();
std::vector<std::string> idx_seeds();
std::vector<std::string> idx_gzip_seeds();
std::vector<std::string> idx_labels_seeds();
std::vector<std::string> cifar_seeds();
std::vector<std::string> list_seeds();
std::vector<std::string> safetensors_seeds();
std::vector<std::string> pth_seeds();
std::vector<std::string> pickle_seeds();
std::vector<std::string> npy_seeds();
std::vector<std::string> weights_seeds();
std::vector<std::string> checkpoint_seeds();
std::vector<std::string> config_seeds();
std::vector<std::string> log_seeds();
std::vector<std::string> bad_images_seeds();

}  // namespace dino::fuzz
