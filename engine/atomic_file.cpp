#include "engine/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "kernels/error.h"

namespace dino {
namespace {

void fail(const std::string& path, const char* what) {
  throw Error(str(path, ": cannot ", what, ": ", std::strerror(errno)));
}

void write_all(int fd, Bytes bytes, const std::string& path) {
  // Linux moves at most 2^31 - 4096 bytes a call, and any call may be short.
  constexpr size_t kAtOnce = size_t{1} << 30;
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), std::min(bytes.size(), kAtOnce));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(path, "write");
    }
    if (written == 0) {  // never seen on a regular file, but would loop for ever
      errno = EIO;
      fail(path, "write");
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void sync(int fd, const std::string& path) {
  while (::fsync(fd) != 0) {
    if (errno != EINTR) fail(path, "flush to disk");
  }
}

/// A file that exists under a temporary name until `publish`.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path) : path_(path), temporary_(path + ".tmp") {
    // A new inode, not O_TRUNC: a second process that writes the same path must not mix its bytes with ours.
    ::unlink(temporary_.c_str());
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) fail(path_, "create its temporary file");
  }

  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!published_) ::unlink(temporary_.c_str());
  }

  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(Bytes bytes) { write_all(fd_, bytes, path_); }

  void publish() {
    sync(fd_, path_);
    struct stat ours {
    }, named{};
    const bool same = ::fstat(fd_, &ours) == 0 && ::stat(temporary_.c_str(), &named) == 0 &&
                      ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
    if (!same) {
      published_ = true;  // the name is another writer's now: leave it alone
      throw Error(str(path_, ": cannot write: another process writes the same file"));
    }
    const int fd = std::exchange(fd_, -1);
    // Network file systems report late write errors here. The descriptor is gone also after EINTR.
    if (::close(fd) != 0 && errno != EINTR) fail(path_, "write");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(path_, "rename its temporary file");
    published_ = true;
  }

 private:
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  bool published_ = false;
};

void sync_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string folder = parent.empty() ? "." : parent.string();
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // a folder may be writable but not readable; the file itself is safe
  // Some file systems cannot flush a folder (EINVAL); the rename has succeeded, which is all they offer.
  (void)::fsync(fd);
  ::close(fd);
}

/// A rename onto a device such as /dev/null would replace the device.
void check_regular(const std::string& path) {
  struct stat existing {};
  const bool special = ::stat(path.c_str(), &existing) == 0 && !S_ISREG(existing.st_mode);
  check(!special, path, ": cannot write: it exists and is not a regular file");
}

}  // namespace

void check_writable(const std::string& path) {
  try {
    check_regular(path);
    const TemporaryFile unpublished(path);
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
}

void write_file(const std::string& path, std::span<const Bytes> pieces) {
  check_regular(path);
  TemporaryFile file(path);
  for (const Bytes piece : pieces) file.write(piece);
  file.publish();
  sync_folder(path);
}

}  // namespace dino
