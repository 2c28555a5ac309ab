#include "train/bad_images.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "kernels/error.h"

namespace dino {

BadImages::BadImages(std::string path, size_t images) : path_(std::move(path)), images_(images) {
  std::ifstream file(path_);
  for (std::string line; std::getline(file, line) && !file.eof();) lines_.insert(line);
}

bool BadImages::add(const std::string& line) {
  if (!lines_.insert(line).second) return false;
  std::ofstream file(path_, std::ios::app);
  file << line << '\n';
  file.flush();
  check(file.good(), path_, ": cannot be written: ", std::strerror(errno));
  return true;
}

}  // namespace dino
