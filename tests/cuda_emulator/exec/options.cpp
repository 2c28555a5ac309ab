#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "exec/launch.h"

namespace emulator {
namespace {

[[noreturn]] void reject(const char* name, const std::string& value, const char* expected) {
  std::fprintf(stderr, "cuda_emulator: %s: expected %s, found %s\n", name, expected, value.c_str());
  std::_Exit(2);  // not exit(): this may run inside of a static constructor
}

std::string text(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::uint64_t number(const char* name, std::uint64_t fallback, std::uint64_t most) {
  const std::string value = text(name);
  if (value.empty()) return fallback;
  char* end = nullptr;
  errno = 0;
  const unsigned long long parsed = std::strtoull(value.c_str(), &end, 0);
  if (errno != 0 || *end != '\0' || value[0] == '-' || parsed > most) reject(name, value, "a whole number");
  return parsed;
}

bool flag(const char* name) {
  const std::string value = text(name);
  if (value.empty() || value == "0") return false;
  if (value != "1") reject(name, value, "0 or 1");
  return true;
}

void read_checks(Options& options) {
  const std::string value = text("CUDA_EMULATOR_CHECK");
  if (value.empty()) return;
  options.memory_check = options.init_check = options.barrier_check = options.race_check =
      options.async_check = false;
  for (std::size_t at = 0; at <= value.size();) {
    const std::size_t comma = std::min(value.find(',', at), value.size());
    const std::string word = value.substr(at, comma - at);
    at = comma + 1;
    const bool all = word == "all";
    if (!all && word != "none" && word != "memory" && word != "init" && word != "barrier" && word != "race" &&
        word != "async") {
      reject("CUDA_EMULATOR_CHECK", value, "a list of memory, init, barrier, race, async; or all; or none");
    }
    options.memory_check |= all || word == "memory";
    options.init_check |= all || word == "init";
    options.barrier_check |= all || word == "barrier";
    options.race_check |= all || word == "race";
    options.async_check |= all || word == "async";
  }
}

Options read_options() {
  Options options;
  options.threads = static_cast<int>(number("CUDA_EMULATOR_THREADS", 0, 1024));
  options.arch = static_cast<int>(number("CUDA_EMULATOR_ARCH", 90, 1000));
  if (options.arch != 80 && options.arch != 90)
    reject("CUDA_EMULATOR_ARCH", text("CUDA_EMULATOR_ARCH"), "80 or 90");
  options.seed = number("CUDA_EMULATOR_SEED", 1, ~0ull);

  const std::string order = text("CUDA_EMULATOR_ORDER");
  if (order == "reverse")
    options.order = Options::Order::reverse;
  else if (order == "random")
    options.order = Options::Order::random;
  else if (!order.empty() && order != "forward")
    reject("CUDA_EMULATOR_ORDER", order, "forward, reverse or random");

  const std::string streams = text("CUDA_EMULATOR_STREAMS");
  if (streams == "late")
    options.streams = Options::Streams::late;
  else if (streams == "random")
    options.streams = Options::Streams::random;
  else if (!streams.empty() && streams != "eager")
    reject("CUDA_EMULATOR_STREAMS", streams, "eager, late or random");

  options.noise = flag("CUDA_EMULATOR_NOISE");
  read_checks(options);
  options.counters = text("CUDA_EMULATOR_COUNTERS");
  options.report = text("CUDA_EMULATOR_REPORT");
  options.fail_on_findings = flag("CUDA_EMULATOR_FAIL");
  options.trace = flag("CUDA_EMULATOR_TRACE");
  return options;
}

}  // namespace

const Options& options() {
  static const Options* read =
      new Options(read_options());  // never destroyed: needed until the last destructor
  return *read;
}

}  // namespace emulator
