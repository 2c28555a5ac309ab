#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "augment/decode.h"
#include "augment/image.h"
#include "augment/image_header.h"

namespace dino {

/// An image as its source holds it: an encoded file, or bare pixels.
struct StoredImage {
  std::vector<uint8_t> bytes;
  ImageHeader header;
};

/// A numbered set of images, some with class labels. Reading is thread safe.
class Dataset {
 public:
  /// Opens what `path` names:
  /// - a folder: image files at any depth, hidden ones left out; the first-level subfolders that hold images
  /// are the
  ///   classes, in sorted order;
  /// - a text file: one image per line, optionally `path label`; paths are relative to the text file's folder
  /// or to the
  ///   working directory; labels are numbers, or names that are numbered in sorted order; `#` starts a
  ///   comment;
  /// - `.tar` archives with members `class/name.ext`; several with commas or a glob;
  /// - MNIST-style IDX images (`*-images-idx3-ubyte`, also `.gz`), with the labels file beside;
  /// - CIFAR-10 or CIFAR-100 `.bin` files; several with commas or a glob.
  ///
  /// Arrays (.npy) in a folder are images if it holds no others. `kind` is what `load` returns. Throws DataError if there is nothing
  /// to read, naming what was looked for, and UsageError for a kind that cannot be.
  static std::unique_ptr<Dataset> open(const std::string& path, ImageKind kind = {});

  /// Changes what `load` returns, before anybody reads. Throws UsageError for a kind that cannot be.
  void read_as(ImageKind kind);
  ImageKind kind() const { return kind_; }

  virtual ~Dataset() = default;
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  size_t size() const { return names_.size(); }
  /// The file's path, or `archive:member`, or `file:number`.
  const std::string& name(size_t index) const { return names_.at(index); }
  /// The class in [0, class_names().size()), or -1 if unknown.
  int label(size_t index) const { return labels_.at(index); }
  const std::vector<std::string>& class_names() const { return class_names_; }
  /// Whether every image has a label.
  bool labelled() const { return labelled_; }

  /// Reads and decodes one image, [height, width, channels]. Throws DataError naming the file and the cause.
  virtual Image load(size_t index) const = 0;

  /// The same for a reader that can do with a smaller image, as `decode_reduced`. Sources without JPEGs do not ask
  /// `choose` and give the whole image.
  virtual Image load_reduced(size_t index, const ReductionChoice& choose) const {
    static_cast<void>(choose);
    return load(index);
  }

  /// What the source holds, with nothing decoded. Throws DataError if it cannot be read.
  virtual StoredImage stored(size_t index) const;
  /// Whether it can hold nothing but 8-bit gray and colour.
  virtual bool only_bytes() const { return false; }
  /// Path of the file that holds the image, perhaps with others; empty if it lies in none.
  virtual std::string file(size_t index) const {
    static_cast<void>(index);
    return {};
  }

 protected:
  explicit Dataset(ImageKind kind) : kind_(kind) {}

  void add(std::string name, int label) {
    names_.push_back(std::move(name));
    labels_.push_back(label);
    labelled_ = (labelled_ || names_.size() == 1) && label >= 0;
  }

  /// Numbers the classes of images added so far: `of_image[i]` is the class of image i, empty where unknown.
  void number_classes(const std::vector<std::string>& of_image);

  ImageKind kind_;
  std::vector<std::string> class_names_;

 private:
  std::vector<std::string> names_;
  std::vector<int> labels_;
  bool labelled_ = false;
};

}  // namespace dino
