#include "augment/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/error.h"

namespace dino {

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  // Without O_NONBLOCK, opening a named pipe waits for a writer.
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  check<DataError>(descriptor_ >= 0, path_, ": cannot open: ", std::strerror(errno),
                   "; check path and permissions");
  struct stat status {};
  const bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    ::close(descriptor_);
    throw DataError(str(path_, ": not a regular file; give a file"));
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

void InputFile::read(uint64_t offset, std::span<uint8_t> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        ::pread(descriptor_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    check<DataError>(n >= 0, path_, ": cannot read at offset ", offset + done, ": ", std::strerror(errno),
                     "; check the disk");
    check<DataError>(n > 0, path_, ": the file ends at offset ", offset + done, ", expected ",
                     out.size() - done, " bytes more; it is truncated, copy it again");
    done += static_cast<size_t>(n);
  }
}

std::vector<uint8_t> InputFile::read(uint64_t offset, uint64_t bytes) const {
  check<DataError>(offset <= size_ && bytes <= size_ - offset, path_, ": ", bytes, " bytes at offset ",
                   offset, " are outside the file of ", size_, " bytes; it is truncated, copy it again");
  std::vector<uint8_t> data(bytes);
  read(offset, data);
  return data;
}

std::vector<uint8_t> read_file(const std::string& path, uint64_t max_bytes) {
  const InputFile file(path);
  check<DataError>(file.size() <= max_bytes, path, ": ", file.size(), " bytes; at most ", max_bytes,
                   " are read, is this an image?");
  return file.read(0, file.size());
}

}  // namespace dino
