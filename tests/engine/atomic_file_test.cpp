#include "engine/atomic_file.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <csignal>

#include "tests/engine/files.h"

using namespace dino;
using namespace dino::test;

namespace {

size_t files_in(const std::string& folder) {
  const auto files = std::filesystem::directory_iterator(folder);
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

/// Writes beyond the limit fail with EFBIG while this is alive, as they do with ENOSPC on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

}  // namespace

TEST_CASE("write_file joins its pieces and leaves nothing else behind") {
  const TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  write_file(path, {bytes_of_text("one "), bytes_of_text(""), bytes_of_text("two")});
  CHECK(read_text(path) == "one two");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("write_file replaces an existing file and a stale temporary one") {
  const TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  write_text(path, "a longer old content");
  write_text(path + ".tmp", "left by a killed process, longer than the new content");
  write_file(path, {bytes_of_text("new")});
  CHECK(read_text(path) == "new");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("write_file writes an empty file when it gets no pieces") {
  const TemporaryFolder folder;
  write_file(folder / "empty", std::initializer_list<Bytes>{});
  CHECK(read_text(folder / "empty").empty());
}

TEST_CASE("a file name without a folder is written to the current folder") {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file("plain", {bytes_of_text("here")});
  std::filesystem::current_path(before);
  CHECK(read_text(folder / "plain") == "here");
}

TEST_CASE("a write that fails half-way keeps the old file, removes the temporary one and says why") {
  const TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  write_text(path, "old");
  const std::string large(100'000, 'x');
  std::string message;
  {
    const FileSizeLimit limit(65'536);
    message = message_of<Error>([&] { write_file(path, {bytes_of_text(large)}); });
  }
  CHECK(message == path + ": cannot write: File too large");
  CHECK(read_text(path) == "old");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("write_file names the path when the folder does not exist") {
  const TemporaryFolder folder;
  const std::string path = folder / "absent/a.bin";
  CHECK(message_of<Error>([&] { write_file(path, {bytes_of_text("x")}); }) ==
        path + ": cannot create its temporary file: No such file or directory");
}

TEST_CASE("write_file refuses to replace folders and devices") {
  const TemporaryFolder folder;
  CHECK_THROWS_AS(write_file(folder.path(), {bytes_of_text("x")}), Error);
  CHECK_THROWS_AS(write_file("/dev/null", {bytes_of_text("x")}), Error);
  CHECK(std::filesystem::is_character_file("/dev/null"));
  CHECK(files_in(folder.path()) == 0);
}
