#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

namespace dino {

/// The images of a run that could not be read, with the reasons: bad_images.txt in its folder, one line each, in the order in which
/// they were met. It only ever grows, also when a run goes on.
class BadImages {
 public:
  /// Reads the list of earlier sessions, if there is one. `images`: in the whole dataset.
  BadImages(std::string path, size_t images);

  /// Takes in a line that names an image and what is wrong with it. Returns whether it is new. Throws Error if it cannot be written.
  bool add(const std::string& line);

  size_t count() const { return lines_.size(); }
  /// Of all images, those that are known to be bad.
  double share() const { return static_cast<double>(lines_.size()) / static_cast<double>(images_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  size_t images_;
  std::set<std::string> lines_;
};

}  // namespace dino
