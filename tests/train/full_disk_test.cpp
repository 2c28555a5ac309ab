#include <sys/mount.h>

#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "tests/train/process.h"
#include "train/tensorboard.h"

using namespace dino;
using testing::Folder;
using testing::Outcome;
using testing::start;
using testing::steps_logged;
using testing::still_running;
using testing::wait_for;

namespace {

/// Files that a program makes while it writes another one, and should remove.
std::vector<std::string> temporary_files(const std::string& folder) {
  std::vector<std::string> found;
  for (const auto& [name, contents] : testing::contents_of(folder))
    if (name.ends_with(".tmp")) found.push_back(name);
  return found;
}

/// What a full disk must lead to: exit code 1, and a line that names a file in `folder` and the reason.
void check_full(const Outcome& outcome, const std::string& folder, const std::string& reason) {
  CHECK(outcome.code == 1);
  const std::string line = testing::error_line(outcome);
  CHECK_THAT(line, Catch::Contains(folder) && Catch::Contains(reason));
  CHECK(temporary_files(folder).empty());
}

/// A file system of so many bytes that is gone at the end of the test, if this process may mount one.
struct SmallDisk {
  std::string path;
  bool mounted;

  SmallDisk(const Folder& folder, size_t bytes) : path(folder / "disk") {
    testing::fs::create_directories(path);
    mounted = mount("tmpfs", path.c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0;
    if (!mounted) WARN("no file system can be mounted here (" << std::strerror(errno) << "): limits on file sizes alone stand for a full disk");
  }
  ~SmallDisk() {
    if (mounted) umount2(path.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  void fill() const {
    std::ofstream file(path + "/filler", std::ios::binary);
    const std::string block(4096, 'x');
    while (file.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) continue;
  }
  void empty() const { testing::fs::remove(path + "/filler"); }
  bool read_only(bool wanted) const { return mount("tmpfs", path.c_str(), "tmpfs", MS_REMOUNT | (wanted ? MS_RDONLY : 0), nullptr) == 0; }
};

/// Starts a run and waits until it has made some steps.
pid_t start_and_wait(const std::string& arguments, const std::string& run, int err) {
  const pid_t child = start(arguments, {.err = err});
  for (int i = 0; i < 1000 && steps_logged(run) < 5 && still_running(child); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  REQUIRE(still_running(child));
  return child;
}

}  // namespace

TEST_CASE("a run that cannot write any more, wherever that is, names the file and the reason, and goes on later as if nothing had been") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  std::ofstream(images + "/class0/broken.ppm") << "P6 nonsense";
  const std::string options = " --precision f32 --epochs 4 --saveckp-freq 0 --checkpoint-every-steps 1000 --max-bad-fraction 0.5";
  const auto arguments = [&](const std::string& run) { return testing::small_arguments(images, run) + options; };
  REQUIRE(testing::run_program(arguments(folder / "straight")).code == 0);
  const std::string expected = testing::read_file(folder / "straight/checkpoint.safetensors"), log = testing::read_file(folder / "straight/log.jsonl");
  REQUIRE(testing::run_program(arguments(folder / "begun") + " --steps 1").code == 0);
  std::ofstream(folder / "begun/bad_images.txt") << std::string(9000, 'x') << '\n';  // too long for some of the limits

  std::set<std::string> named;  // files that the line of an error named
  std::vector<rlim_t> limits = {0, 1, 40, 200, 700, 1500, 2500, 3500};
  for (rlim_t bytes = 4000; bytes < expected.size() + 8000; bytes += bytes / 6) limits.push_back(bytes);
  int stopped = 0;
  for (const char* begin : {"nothing", "begun"})
    for (const rlim_t limit : limits) {
      INFO("from " << begin << ", files of at most " << limit << " bytes");
      const std::string run = folder / "run";
      testing::fs::remove_all(run);
      if (std::string(begin) == "begun") testing::fs::copy(folder / "begun", run, testing::fs::copy_options::recursive);
      const Outcome outcome = testing::run_with(arguments(run), {.largest_file = limit});
      INFO(outcome.err);
      if (outcome.code != 0) {
        ++stopped;
        check_full(outcome, run, "File too large");
        const std::string line = testing::error_line(outcome);
        for (const char* file : {"config.json", "bad_images.txt", "log.jsonl", "checkpoint.safetensors"})
          if (line.find(file) != std::string::npos) named.insert(file);
      }
      REQUIRE(testing::run_program(arguments(run)).code == 0);
      CHECK(testing::read_file(run + "/checkpoint.safetensors") == expected);
      CHECK(testing::read_file(run + "/log.jsonl") == log);
    }
  CHECK(stopped > static_cast<int>(limits.size()));
  for (const char* file : {"config.json", "log.jsonl", "checkpoint.safetensors", "bad_images.txt"}) {
    INFO(file);
    CHECK(named.contains(file));
  }
}

TEST_CASE("events for TensorBoard that cannot be written are an error that names the file and the reason") {
  const Folder folder;
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  TensorBoardLog log(folder.path.string(), 0);
  std::string message;
  const rlimit few{300, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &few) == 0);
  try {
    for (int step = 0; step < 100; ++step) log.write({{"step", step}, {"loss", 1.5}});
  } catch (const Error& error) {
    message = error.what();
  }
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(message, Catch::Contains(folder / "events.out.tfevents") && Catch::Contains("File too large"));
}

TEST_CASE("commands that cannot write their results name the file and the reason, and leave nothing half done") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12), run = folder / "run", out = folder / "out";
  REQUIRE(testing::run_program(testing::small_arguments(images, run) + " --steps 2").code == 0);
  testing::fs::create_directories(out);
  const std::string weights = " --device cpu --weights " + run + "/checkpoint.safetensors";
  const std::string commands[] = {"features" + weights + " --data " + images + " --out " + out + "/f.npy",
                                  "attention" + weights + " --image-size 16 --image " + images + "/class0/image1000.ppm --out " + out,
                                  "convert " + run + "/checkpoint.safetensors " + out + "/w.safetensors",
                                  "report --images 1 --run " + run + " --out " + out + "/r.html",
                                  "eval linear" + weights + " --train " + images + " --val " + images + " --epochs 1 --lr 0.1 --out " + out};
  for (const std::string& command : commands) {
    INFO(command);
    const Outcome outcome = testing::run_with(command, {.largest_file = 60});
    INFO(outcome.err);
    check_full(outcome, out, "File too large");
    // Whole, or not there at all; a log may end within a line.
    for (const auto& [name, contents] : testing::contents_of(out)) CHECK(name == "log.jsonl");
    REQUIRE(testing::run_program(command).code == 0);
    const auto whole = testing::contents_of(out);
    check_full(testing::run_with(command, {.largest_file = 60}), out, "File too large");
    for (const auto& [name, contents] : testing::contents_of(out))
      if (name != "log.jsonl") CHECK(contents == whole.at(name));
    testing::fs::remove_all(out);
    testing::fs::create_directories(out);
  }
}

TEST_CASE("a file system that fills up during a run ends it with the reason, and the run goes on when there is room") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  const std::string options = " --precision f32 --epochs 500 --warmup-epochs 1 --saveckp-freq 0 --checkpoint-every-steps 3";
  const SmallDisk disk(folder, size_t{6} << 20);
  if (!disk.mounted) return;  // what can be shown without is shown above
  const std::string run = disk.path + "/run";
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const pid_t child = start_and_wait(testing::small_arguments(images, run) + options, run, ends[1]);
  close(ends[1]);
  disk.fill();
  std::string said(1 << 20, '\0');
  size_t bytes = 0;
  for (ssize_t n; (n = read(ends[0], said.data() + bytes, said.size() - bytes)) > 0;) bytes += static_cast<size_t>(n);
  said.resize(bytes);
  close(ends[0]);
  INFO(said.substr(said.size() - std::min<size_t>(said.size(), 1000)));
  check_full({wait_for(child), "", said}, run, "No space left on device");
  REQUIRE(testing::fs::exists(run + "/checkpoint.safetensors"));
  disk.empty();
  const std::string steps = " --steps " + std::to_string(steps_logged(run) + 3);
  const Outcome more = testing::run_program(testing::small_arguments(images, run) + options + steps);
  INFO(more.err);
  CHECK(more.code == 0);
  REQUIRE(testing::run_program(testing::small_arguments(images, folder / "straight") + options + steps).code == 0);
  CHECK(testing::read_file(run + "/checkpoint.safetensors") == testing::read_file(folder / "straight/checkpoint.safetensors"));
}

TEST_CASE("a run in a read-only folder is refused, and nothing of it is touched") {
  const Folder folder;
  const std::string images = testing::make_images(folder, 12);
  const SmallDisk disk(folder, size_t{6} << 20);
  const std::string run = disk.path + "/run";
  REQUIRE(testing::run_program(testing::small_arguments(images, run) + " --steps 2").code == 0);
  // Root may write where nobody may; a file system that is read-only binds all.
  if (disk.mounted) REQUIRE(disk.read_only(true));
  else testing::fs::permissions(run, testing::fs::perms::owner_read | testing::fs::perms::owner_exec);
  if (!disk.mounted && geteuid() == 0) return;
  const auto before = testing::contents_of(run);
  const std::pair<std::string, int> commands[] = {{testing::small_arguments(images, run), 2},
                                                  {testing::small_arguments(images, disk.path + "/other"), 2},
                                                  {"report --images 0 --run " + run, 2},
                                                  {"convert " + run + "/checkpoint.safetensors " + disk.path + "/run/w.safetensors", 2},
                                                  {"features --device cpu --weights " + run + "/checkpoint.safetensors --data " + images + " --out " + run + "/f.npy", 2}};
  for (const auto& [command, code] : commands) {
    INFO(command);
    const Outcome outcome = testing::run_program(command);
    INFO(outcome.err);
    CHECK(outcome.code == code);
    CHECK_THAT(testing::error_line(outcome), Catch::Contains(disk.path) && (Catch::Contains("Read-only file system") || Catch::Contains("Permission denied")));
    CHECK(testing::contents_of(run) == before);
  }
  // Its images can be read as ever, and its weights too.
  CHECK(testing::run_program("eval knn --device cpu --weights " + run + "/checkpoint.safetensors --train " + images + " --val " + images).code == 0);
  if (!disk.mounted) testing::fs::permissions(run, testing::fs::perms::owner_all);
}
