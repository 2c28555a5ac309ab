#include "engine/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/error.h"

namespace dino {

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  // Without O_NONBLOCK, opening a pipe would wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  check<UsageError>(fd >= 0, path, ": cannot open: ", std::strerror(errno));
  struct stat info {};
  const bool regular = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const auto size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  int failure = 0;
  if (regular && size > 0) {  // an empty range cannot be mapped
    data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) failure = errno;
  }
  ::close(fd);
  check<FormatError>(regular, path, ": expected a regular file, found something else");
  check(failure == 0, path, ": cannot map: ", std::strerror(failure));
  return std::shared_ptr<const MappedFile>(
      new MappedFile({static_cast<const std::byte*>(data), data ? size : 0}));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace dino
