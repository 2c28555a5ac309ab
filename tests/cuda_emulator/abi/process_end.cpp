#include <unistd.h>

#include <array>
#include <cstdio>

#include "abi/call.h"
#include "check/finding.h"
#include "count/record.h"
#include "exec/launch.h"
#include "memory/device_memory.h"

namespace emulator::abi {
namespace {

constexpr int kStatusOfFindings = 86;
constexpr FindingKind kLastKind = FindingKind::assertion;

void print_summary() {
  const std::uint64_t all = findings_reported();
  if (all == 0) return;
  std::string line = "cuda_emulator: " + std::to_string(all) + (all == 1 ? " finding:" : " findings:");
  const char* separator = " ";
  for (int kind = 0; kind <= static_cast<int>(kLastKind); ++kind) {
    const std::uint64_t count = findings_reported(static_cast<FindingKind>(kind));
    if (count == 0) continue;
    line += separator + std::to_string(count) + " " + name_of(static_cast<FindingKind>(kind));
    separator = ", ";
  }
  std::fputs((line + "\n").c_str(), stderr);
}

void print_leaks() {
  for (const Extent& object : DeviceMemory::instance().live()) {
    if (object.kind == MemoryKind::variable || object.kind == MemoryKind::constant) continue;
    trace("not freed: " + std::to_string(object.end - object.begin) + " bytes at " + hex(object.begin) +
          ", allocation " + std::to_string(object.id));
  }
}

void write_report(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  const std::string json = findings_json() + "\n";
  const bool written = file && std::fwrite(json.data(), 1, json.size(), file) == json.size();
  if (!file || std::fclose(file) != 0 || !written)
    std::fprintf(stderr, "cuda_emulator: %s: cannot be written\n", path.c_str());
}

/// A destructor of the library: runs after the program's atexit handlers and static destructors, which may
/// still call CUDA. The lowest priority that a program may ask for runs last, behind the counters.
[[gnu::destructor(101)]] void end_of_process() {
  if (options().trace) print_leaks();
  if (!options().counters.empty()) write_counters_file();
  print_summary();
  if (!options().report.empty()) write_report(options().report);
  if (!options().fail_on_findings || findings_reported() == 0) return;
  std::fflush(nullptr);
  _exit(kStatusOfFindings);
}

}  // namespace
}  // namespace emulator::abi
