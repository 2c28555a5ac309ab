#include "augment/dataset.h"

#include <glob.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>

#include "augment/dataset_sources.h"
#include "augment/image_kind.h"

namespace dino {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> expand_glob(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0)
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  return paths;
}

// One path that exists, or a list of paths and globs between commas.
std::vector<std::string> expand(const std::string& path) {
  std::error_code ignored;
  if (fs::exists(path, ignored)) return {path};
  std::vector<std::string> paths;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find(',', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty()) continue;
    const bool is_glob = part.find_first_of("*?[") != std::string::npos && !fs::exists(part, ignored);
    if (!is_glob) {
      paths.push_back(part);
      continue;
    }
    const std::vector<std::string> found = expand_glob(part);
    check<DataError>(!found.empty(), part, ": no file matches; check the path");
    paths.insert(paths.end(), found.begin(), found.end());
  }
  check<DataError>(!paths.empty(),
                   "the data path is empty; give a folder, a list, a .tar, IDX or CIFAR files");
  for (const std::string& one : paths) {
    check<DataError>(fs::exists(one, ignored), one, ": no such file or folder; check the path");
  }
  return paths;
}

enum class Source { folder, list, tar, idx, cifar };

Source source_of(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return Source::folder;
  if (ends_with_ignoring_case(path, ".tar")) return Source::tar;
  if (ends_with_ignoring_case(path, ".bin")) return Source::cifar;
  if (is_idx_name(path)) return Source::idx;
  check<DataError>(!is_archive_name(path), path,
                   ": compressed archives are not read in place; unpack it to a .tar");
  check<DataError>(!has_image_extension(path), path,
                   ": this is one image; give the folder it is in, or a text file that lists images");
  return Source::list;
}

std::unique_ptr<Dataset> open_source(const std::string& path, ImageKind kind) {
  const std::vector<std::string> paths = expand(path);
  const Source source = source_of(paths.front());
  for (const std::string& one : paths) {
    check<DataError>(source_of(one) == source, path,
                     ": the paths are of different kinds; give files of one kind");
  }
  if (source == Source::tar) return open_tar(paths, kind);
  if (source == Source::cifar) return open_cifar(paths, kind);
  check<DataError>(paths.size() == 1, path, ": ", paths.size(),
                   " paths; several are read only if they are .tar or CIFAR .bin files");
  if (source == Source::folder) return open_folder(paths.front(), kind);
  if (source == Source::idx) return open_idx(paths.front(), kind);
  return open_list(paths.front(), kind);
}

}  // namespace

std::unique_ptr<Dataset> Dataset::open(const std::string& path, ImageKind kind) {
  std::unique_ptr<Dataset> dataset = open_source(path, kind);
  dataset->read_as(kind);
  return dataset;
}

void Dataset::read_as(ImageKind kind) {
  check<UsageError>(kind.channels >= 1 && kind.channels <= kMostChannels, "data: channels must be 1 to ", kMostChannels, "; got ", kind.channels);
  check<UsageError>(!only_bytes() || kind.in_bytes(), "data: IDX and CIFAR files hold 8-bit gray or colour, not ", text_of(kind),
                    "; use --channels 1 or 3 without --pixel-type");
  kind_ = kind;
}

StoredImage Dataset::stored(size_t index) const {
  Image image = load(index);
  const ImageHeader header{.format = ImageFormat::pixels, .width = image.width, .height = image.height, .channels = image.channels};
  return {std::move(image.pixels), header};
}

void Dataset::number_classes(const std::vector<std::string>& of_image) {
  std::map<std::string, int> numbers;
  for (const std::string& name : of_image) {
    if (!name.empty()) numbers[name] = 0;
  }
  class_names_.clear();
  for (auto& [name, number] : numbers) {
    number = static_cast<int>(class_names_.size());
    class_names_.push_back(name);
  }
  for (size_t i = 0; i < of_image.size(); ++i) labels_[i] = of_image[i].empty() ? -1 : numbers[of_image[i]];
  labelled_ =
      !labels_.empty() && std::all_of(labels_.begin(), labels_.end(), [](int label) { return label >= 0; });
}

bool ends_with_ignoring_case(std::string_view name, std::string_view ending) {
  if (name.size() < ending.size()) return false;
  name.remove_prefix(name.size() - ending.size());
  return std::equal(name.begin(), name.end(), ending.begin(),
                    [](unsigned char a, char b) { return std::tolower(a) == b; });
}

bool has_image_extension(std::string_view name) {
  constexpr std::string_view kExtensions[] = {".jpg", ".jpeg", ".png",  ".ppm", ".bmp",
                                              ".pgm", ".tif",  ".tiff", ".webp", ".npy"};
  return std::any_of(std::begin(kExtensions), std::end(kExtensions),
                     [&](std::string_view extension) { return ends_with_ignoring_case(name, extension); });
}

bool is_archive_name(std::string_view name) {
  constexpr std::string_view kEndings[] = {".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip"};
  return std::any_of(std::begin(kEndings), std::end(kEndings),
                     [&](std::string_view ending) { return ends_with_ignoring_case(name, ending); });
}

bool is_idx_name(std::string_view name) {
  const std::string_view base = name.substr(name.find_last_of('/') + 1);
  return base.find("idx3") != std::string_view::npos || base.find("idx1") != std::string_view::npos;
}

std::string first_component(std::string_view relative_path) {
  while (relative_path.starts_with("./")) relative_path.remove_prefix(2);
  const size_t slash = relative_path.find('/');
  return slash == std::string_view::npos ? "" : std::string(relative_path.substr(0, slash));
}

}  // namespace dino
