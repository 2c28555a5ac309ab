#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>
#include <tuple>

#include <sys/stat.h>

#include "augment/dataset_sources.h"
#include "augment/decode.h"
#include "augment/input_file.h"

namespace dino {
namespace {

namespace fs = std::filesystem;

// Images that are files of their own: the names are the paths.
class FileDataset : public Dataset {
 public:
  explicit FileDataset(ImageKind kind) : Dataset(kind) {}
  using Dataset::add;
  using Dataset::number_classes;

  void name_classes_by_number(int classes) {
    for (int i = 0; i < classes; ++i) class_names_.push_back(std::to_string(i));
  }

  Image load(size_t index) const override { return load_reduced(index, {}); }
  Image load_reduced(size_t index, const ReductionChoice& choose) const override {
    return decode_reduced(read_file(name(index)), kind_, name(index), choose);
  }
  StoredImage stored(size_t index) const override {
    std::vector<uint8_t> bytes = read_file(name(index));
    const ImageHeader header = read_image_header(bytes);
    return {std::move(bytes), header};
  }
  std::string file(size_t index) const override { return name(index); }
};

struct FoundFile {
  std::string folder, name;  // the folder relative to the root, "" or ending in '/'
  auto key() const { return std::tie(folder, name); }
};

// Walks a folder tree. Links are followed, but every folder is entered only once: circles end.
class FolderWalk {
 public:
  explicit FolderWalk(fs::path root) : root_(std::move(root)) {
    visit("", 0);
    if (images.empty()) images.swap(arrays_);
  }

  std::vector<FoundFile> images;
  std::vector<std::string> other_sources;  // names of archives, IDX and CIFAR files

 private:
  static constexpr int kMaxDepth = 64;

  void visit(const std::string& folder, int depth) {
    struct stat status {};
    if (depth > kMaxDepth || ::stat((root_ / folder).c_str(), &status) != 0) return;
    if (!visited_.insert({status.st_dev, status.st_ino}).second) return;
    std::error_code error;
    fs::directory_iterator entries(root_ / folder, error);
    check<DataError>(!error, (root_ / folder).string(), ": cannot list the folder: ", error.message(),
                     "; check its permissions");
    std::vector<std::string> subfolders;
    for (; entries != fs::directory_iterator(); entries.increment(error)) {
      const std::string name = entries->path().filename().string();
      if (name.starts_with('.')) continue;
      std::error_code unreadable;
      if (entries->is_directory(unreadable)) {
        subfolders.push_back(name);
      } else if (ends_with_ignoring_case(name, ".npy")) {
        arrays_.push_back({folder, name});
      } else if (has_image_extension(name)) {
        images.push_back({folder, name});
      } else if (is_archive_name(name) || is_idx_name(name) || ends_with_ignoring_case(name, ".bin")) {
        other_sources.push_back(folder + name);
      }
      if (error) break;
    }
    // The order of a directory is the file system's; which of two links to a folder counts must not depend on
    // it.
    std::sort(subfolders.begin(), subfolders.end());
    for (const std::string& name : subfolders) visit(folder + name + "/", depth + 1);
  }

  fs::path root_;
  std::vector<FoundFile> arrays_;  // which beside images are labels or features more often than images
  std::set<std::pair<dev_t, ino_t>> visited_;
};

[[noreturn]] void throw_no_images(const std::string& path, std::vector<std::string> other_sources) {
  if (other_sources.empty()) {
    throw DataError(str(path, ": no images in this folder or below; looked for ", kImageExtensionsText));
  }
  std::sort(other_sources.begin(), other_sources.end());
  constexpr size_t kShown = 6;
  std::string names;
  for (size_t i = 0; i < std::min(kShown, other_sources.size()); ++i)
    names += (i ? ", " : "") + other_sources[i];
  if (other_sources.size() > kShown) names += ", ...";
  throw DataError(
      str(path, ": no images in this folder or below; give one of the files in it as the path: ", names));
}

constexpr int kMaxNumericLabel = 10'000'000;

struct ListLine {
  std::string path, label;
};

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

// Paths may hold blanks: the last word is a label only if what stands before it ends like an image.
ListLine split_line(std::string_view line) {
  const size_t blank = line.find_last_of(" \t");
  if (blank != std::string_view::npos) {
    const std::string_view before = trimmed(line.substr(0, blank));
    if (has_image_extension(before)) return {std::string(before), std::string(line.substr(blank + 1))};
  }
  return {std::string(line), ""};
}

std::vector<ListLine> read_lines(const std::string& path) {
  const std::vector<uint8_t> bytes = read_file(path);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  check<DataError>(
      text.find('\0') == std::string_view::npos, path,
      ": neither a text file that lists images nor a known archive; give a folder, a list, a .tar, "
      "IDX (*-images-idx3-ubyte) or CIFAR .bin files");
  std::vector<ListLine> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = trimmed(text.substr(begin, end - begin));
    begin = end + 1;
    if (!line.empty() && line.front() != '#') lines.push_back(split_line(line));
  }
  check<DataError>(!lines.empty(), path, ": lists no images; write one path per line");
  return lines;
}

// -1 if `text` is not a plain number.
int number_of(const std::string& text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 ? value : -1;
}

}  // namespace

std::unique_ptr<Dataset> open_folder(const std::string& path, ImageKind kind) {
  FolderWalk walk(path);
  if (walk.images.empty()) throw_no_images(path, walk.other_sources);
  std::sort(walk.images.begin(), walk.images.end(),
            [](const FoundFile& a, const FoundFile& b) { return a.key() < b.key(); });
  auto dataset = std::make_unique<FileDataset>(kind);
  std::vector<std::string> classes;
  for (const FoundFile& file : walk.images) {
    dataset->add((fs::path(path) / (file.folder + file.name)).string(), -1);
    classes.push_back(first_component(file.folder));
  }
  dataset->number_classes(classes);
  return dataset;
}

std::unique_ptr<Dataset> open_list(const std::string& path, ImageKind kind) {
  const std::vector<ListLine> lines = read_lines(path);
  const fs::path folder = fs::path(path).parent_path();
  std::error_code ignored;
  const bool beside_list = fs::exists(folder / lines.front().path, ignored);
  constexpr size_t kTried = 16;
  const bool any =
      std::any_of(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(std::min(lines.size(), kTried)),
                  [&](const ListLine& line) {
                    return fs::exists(folder / line.path, ignored) || fs::exists(line.path, ignored);
                  });
  check<DataError>(any, path, ": lists no files that exist: there is no ", lines.front().path.substr(0, 100),
                   ", neither from here nor from the list's folder; write the path of one image per line");
  auto dataset = std::make_unique<FileDataset>(kind);
  std::vector<std::string> labels;
  bool numeric = true;
  int classes = 0;
  for (const ListLine& line : lines) {
    const int number = number_of(line.label);
    dataset->add(beside_list ? (folder / line.path).string() : line.path, number);
    labels.push_back(line.label);
    numeric = numeric && (line.label.empty() || number >= 0);
    classes = std::max(classes, number + 1);
    check<DataError>(number < kMaxNumericLabel, path, ": label ", line.label, " of ", line.path,
                     " is too large; number the classes from 0");
  }
  if (numeric) {
    dataset->name_classes_by_number(classes);
  } else {
    dataset->number_classes(labels);
  }
  return dataset;
}

}  // namespace dino
