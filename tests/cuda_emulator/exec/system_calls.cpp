#include "exec/system_calls.h"

#include <cstdio>
#include <mutex>
#include <string>

namespace emulator {
namespace {

// A string of device memory, up to a bound.
std::string text_at(Warp& warp, int lane, std::uint64_t address) {
  std::string text;
  for (std::uint64_t i = 0; i < 65536; ++i) {
    const char c = static_cast<char>(*generic_at(warp, lane, address + i, 1, false));
    if (c == 0) break;
    text += c;
  }
  return text;
}

template <class T>
T argument_at(Warp& warp, int lane, std::uint64_t& cursor) {
  cursor = (cursor + sizeof(T) - 1) / sizeof(T) * sizeof(T);
  T value;
  std::memcpy(&value, generic_at(warp, lane, cursor, sizeof(T), false), sizeof(T));
  cursor += sizeof(T);
  return value;
}

template <class T>
void append(std::string& out, const std::string& spec, T value) {
  char buffer[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  const int length = std::snprintf(buffer, sizeof buffer, spec.c_str(), value);
#pragma GCC diagnostic pop
  if (length > 0)
    out.append(buffer, std::min<std::size_t>(static_cast<std::size_t>(length), sizeof buffer - 1));
}

// One conversion of a format string: the flags are passed on to the host's printf, the arguments come from
// the buffer.
void convert(Warp& warp, int lane, std::string spec, std::uint64_t& cursor, std::string& out) {
  const char kind = spec.back();
  const bool is_long = spec.find('l') != std::string::npos || spec.find('z') != std::string::npos ||
                       spec.find('j') != std::string::npos || spec.find('t') != std::string::npos;
  switch (kind) {
    case 'd':
    case 'i':
      if (is_long)
        append(out, spec, argument_at<long>(warp, lane, cursor));
      else
        append(out, spec, argument_at<int>(warp, lane, cursor));
      return;
    case 'u':
    case 'x':
    case 'X':
    case 'o':
      if (is_long)
        append(out, spec, argument_at<unsigned long>(warp, lane, cursor));
      else
        append(out, spec, argument_at<unsigned>(warp, lane, cursor));
      return;
    case 'c':
      append(out, spec, argument_at<int>(warp, lane, cursor));
      return;
    case 'p':
      append(out, spec, reinterpret_cast<void*>(argument_at<std::uint64_t>(warp, lane, cursor)));
      return;
    case 's':
      append(out, spec, text_at(warp, lane, argument_at<std::uint64_t>(warp, lane, cursor)).c_str());
      return;
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
    case 'a':
    case 'A':
      append(out, spec, argument_at<double>(warp, lane, cursor));
      return;
    default:
      out += spec;
      return;
  }
}

std::uint64_t print(Warp& warp, int lane, std::uint64_t format_address, std::uint64_t arguments) {
  const std::string format = text_at(warp, lane, format_address);
  std::string out;
  std::uint64_t cursor = arguments;
  std::uint64_t conversions = 0;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    if (i + 1 < format.size() && format[i + 1] == '%') {
      out += '%';
      ++i;
      continue;
    }
    std::string spec;
    for (; i < format.size(); ++i) {
      if (format[i] == '*')
        spec += std::to_string(argument_at<int>(warp, lane, cursor));
      else
        spec += format[i];
      if (spec.size() > 1 && std::string_view("diuxXocpsfFeEgGaA").find(format[i]) != std::string_view::npos)
        break;
    }
    convert(warp, lane, spec, cursor, out);
    ++conversions;
  }
  std::fwrite(out.data(), 1, out.size(), stdout);  // one call: lines of different blocks do not mix
  return conversions;
}

}  // namespace

int system_call_named(std::string_view name) {
  if (name == "vprintf") return static_cast<int>(SystemCall::vprintf);
  if (name == "__assertfail") return static_cast<int>(SystemCall::assertfail);
  if (name == "malloc") return static_cast<int>(SystemCall::malloc);
  if (name == "free") return static_cast<int>(SystemCall::free);
  return -1;
}

std::uint64_t run_system_call(Warp& warp, int lane, SystemCall call, const std::uint64_t* arguments) {
  switch (call) {
    case SystemCall::vprintf:
      return print(warp, lane, arguments[0], arguments[1]);
    case SystemCall::assertfail: {
      const std::string message = text_at(warp, lane, arguments[0]), file = text_at(warp, lane, arguments[1]),
                        function = text_at(warp, lane, arguments[3]);
      const std::uint32_t thread = warp.index * kLanes + static_cast<std::uint32_t>(lane),
                          *block = warp.launch->config.block;
      // The driver's own words, which programs and people look for.
      std::fprintf(stderr, "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n",
                   file.c_str(), static_cast<unsigned>(arguments[2]), function.c_str(), warp.block->index[0],
                   warp.block->index[1], warp.block->index[2], thread % block[0],
                   thread / block[0] % block[1], thread / (block[0] * block[1]), message.c_str());
      report(warp, FindingKind::assertion, lane, 0, "assertion `" + message + "` failed", 710);
      return 0;
    }
    case SystemCall::malloc: {
      if (arguments[0] == 0) return 0;
      return DeviceMemory::instance().allocate(arguments[0], MemoryKind::heap);
    }
    case SystemCall::free:
      if (arguments[0] != 0 && !DeviceMemory::instance().release(arguments[0]))
        report(warp, FindingKind::out_of_bounds, lane, arguments[0],
               "free of an address that malloc did not give", 700);
      return 0;
  }
  return 0;
}

}  // namespace emulator
