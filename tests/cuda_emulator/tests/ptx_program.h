#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "check/finding.h"
#include "exec/launch.h"
#include "memory/device_memory.h"

/// A kernel whose threads depend on each other, from a few lines of PTX: rows of words in, rows of words out,
/// one row per thread.
namespace emulator::ptx_program {

using U64 = std::uint64_t;
using U32 = std::uint32_t;

/// The body may use the registers %r0…, %rd0…, %h0…, %p0…; %lane and %thread hold numbers, %in and %out the
/// addresses of all rows, %mine_in and %mine the thread's own.
struct Source {
  std::string body;
  std::string module = {};        // variables and functions in front of the kernel
  std::string shared = {};        // bytes of the array `tile` in shared memory; "": none
  std::size_t ins = 1, outs = 1;  // words of 64 bits per thread
};

inline std::string text_of(const Source& source) {
  std::string text = ".version 9.0\n.target sm_90\n.address_size 64\n" + source.module +
                     "\n.visible .entry test(.param .u64 p_in, .param .u64 p_out)\n{\n";
  text +=
      "  .reg .b16 %h<32>; .reg .b32 %r<64>; .reg .b64 %rd<64>; .reg .pred %p<16>; .reg .b32 %lane, %thread, "
      "%unused; .reg .b64 %in, %out, %mine_in, %mine;\n";
  if (!source.shared.empty()) text += "  .shared .align 16 .b8 tile[" + source.shared + "];\n";
  text +=
      "  ld.param.u64 %in, [p_in]; ld.param.u64 %out, [p_out]; mov.u32 %lane, %laneid; mov.u32 %thread, "
      "%ntid.x; mov.u32 %unused, %ctaid.x;\n";
  text +=
      "  mul.lo.u32 %thread, %thread, %unused; mov.u32 %unused, %tid.x; add.u32 %thread, %thread, %unused;\n";
  text += "  mad.wide.u32 %mine_in, %thread, " + std::to_string(8 * source.ins) +
          ", %in; mad.wide.u32 %mine, %thread, " + std::to_string(8 * source.outs) + ", %out;\n";
  return text + source.body + "\n  ret;\n}\n";
}

/// CONFORMANCE_DUMP=FOLDER writes every module there, for a look at whether ptxas takes it; those that must
/// be refused have names that begin with "refused".
inline void dump(const std::string& text, const char* kind) {
  const char* folder = std::getenv("CONFORMANCE_DUMP");
  if (folder == nullptr) return;
  const std::string file =
      std::string(folder) + "/" + kind + "-" + std::to_string(std::hash<std::string>()(text)) + ".ptx";
  if (std::FILE* out = std::fopen(file.c_str(), "w"); out != nullptr) {
    std::fputs(text.c_str(), out);
    std::fclose(out);
  }
}

/// Memory of the device, all of it initialised unless it is told otherwise.
class Memory {
 public:
  explicit Memory(std::size_t bytes, bool initialized = true)
      : address(DeviceMemory::instance().allocate(bytes, MemoryKind::device)), bytes(bytes) {
    std::memset(host<std::uint8_t>(), 0, bytes);
    if (initialized) DeviceMemory::instance().mark_initialized(address, bytes);
  }
  ~Memory() { DeviceMemory::instance().release(address); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T>
  T* host() {
    return reinterpret_cast<T*>(DeviceMemory::instance().host(address, bytes));
  }

  std::uint64_t address;
  std::size_t bytes;
};

struct Result {
  int error = 0;
  std::vector<U64> out;        // [thread][word]
  std::array<U64, 8> found{};  // new findings of each kind
  U64 of(FindingKind kind) const { return found[static_cast<std::size_t>(kind)]; }
  bool clean() const { return error == 0 && found == std::array<U64, 8>{}; }
};

inline std::array<U64, 8> findings() {
  std::array<U64, 8> counts{};
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = findings_reported(static_cast<FindingKind>(i));
  return counts;
}

/// Results are 0 where nothing is written.
inline Result run(const Source& source, const std::vector<U64>& rows, LaunchConfig config) {
  const std::string text = text_of(source);
  dump(text, "run");
  const LoadedModule module(text);
  const Kernel* kernel = module.kernel("test");
  if (!info(*kernel).unsupported.empty()) throw std::runtime_error(info(*kernel).unsupported);
  const std::size_t threads = std::size_t{config.grid[0]} * config.grid[1] * config.grid[2] *
                              config.block[0] * config.block[1] * config.block[2];
  Memory in(std::max<std::size_t>(8, rows.size() * 8)),
      out(std::max<std::size_t>(8, threads * source.outs * 8));
  if (!rows.empty()) std::memcpy(in.host<U64>(), rows.data(), rows.size() * 8);
  const U64 arguments[] = {in.address, out.address};
  const auto before = findings();
  Result result;
  result.error =
      run_kernel(*kernel, config, {reinterpret_cast<const std::uint8_t*>(arguments), sizeof arguments}).error;
  result.found = findings();
  for (std::size_t i = 0; i < before.size(); ++i) result.found[i] -= before[i];
  result.out.assign(out.host<U64>(), out.host<U64>() + threads * source.outs);
  return result;
}

inline Result run(const Source& source, const std::vector<U64>& rows, U32 threads = 32, U32 blocks = 1) {
  LaunchConfig config;
  config.block[0] = threads;
  config.grid[0] = blocks;
  return run(source, rows, config);
}

/// Why the kernel is refused; "" if it is taken.
inline std::string refusal(const Source& source) {
  const std::string text = text_of(source);
  try {
    const LoadedModule module(text);
    const std::string reason = info(*module.kernel("test")).unsupported;
    dump(text, reason.empty() ? "run" : "refused");
    return reason;
  } catch (const std::exception& error) {
    dump(text, "refused");
    return error.what();
  }
}

}  // namespace emulator::ptx_program
