#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "augment/dataset.h"

/// The kinds of sources that `Dataset::open` tells apart; one `augment/dataset_*.cpp` each. All throw
/// DataError if there is nothing to read or the contents are damaged.
namespace dino {

std::unique_ptr<Dataset> open_folder(const std::string& path, ImageKind kind);
std::unique_ptr<Dataset> open_list(const std::string& path, ImageKind kind);
std::unique_ptr<Dataset> open_tar(const std::vector<std::string>& paths, ImageKind kind);
std::unique_ptr<Dataset> open_idx(const std::string& path, ImageKind kind);
std::unique_ptr<Dataset> open_cifar(const std::vector<std::string>& paths, ImageKind kind);

/// Whether the name ends like an image file (.jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp .npy, any case).
bool has_image_extension(std::string_view name);
/// Whether the name ends like one of the other sources (an archive, IDX or CIFAR file).
bool is_archive_name(std::string_view name);
bool is_idx_name(std::string_view name);
bool ends_with_ignoring_case(std::string_view name, std::string_view lower_case_ending);

/// The class of `class/.../name`: its first component, or empty if there is only one.
std::string first_component(std::string_view relative_path);

inline constexpr std::string_view kImageExtensionsText = ".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp .npy";

}  // namespace dino
