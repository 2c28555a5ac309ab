#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

/// The kinds of mistakes that the emulator reports.
enum class FindingKind : std::uint8_t {
  out_of_bounds,      // global, shared, local or constant memory outside of every object, or a freed one
  misaligned,         // an address that is no multiple of the access width
  uninitialized,      // memory nobody wrote, or an asynchronous copy that need not have arrived
  race,               // unordered accesses to one address, at least one of them a write
  barrier,            // divergent barrier, deadlock, wrong member mask
  invalid_operation,  // an instruction whose operands break a documented rule
  api,                // a call whose arguments break a documented rule, or that is not implemented
  assertion,          // device assert, trap
};
const char* name_of(FindingKind kind);

/// One mistake: what, and where.
struct Finding {
  FindingKind kind{};
  bool fatal = false;  // stops the kernel, as the hardware would
  std::string kernel;  // demangled name; "" outside of kernels
  std::string file;    // source file, when compiled with -lineinfo
  int line = 0;        // source line; 0: unknown
  int ptx_line = 0;
  std::uint32_t block[3] = {0, 0, 0}, thread[3] = {0, 0, 0};
  std::uint64_t address = 0;
  std::string message;  // one sentence
};

/// Prints the finding on stderr (each place once; repetitions are counted) and keeps it for the report.
/// Thread-safe.
void report(const Finding& finding);
/// Counts of what was reported, per kind, including repetitions.
std::uint64_t findings_reported(FindingKind kind);
std::uint64_t findings_reported();
/// Every distinct finding with its number of occurrences, as a JSON array.
std::string findings_json();

}  // namespace emulator
