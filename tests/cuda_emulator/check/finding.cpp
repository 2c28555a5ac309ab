#include "check/finding.h"

#include <array>
#include <cctype>
#include <cstdio>
#include <map>
#include <mutex>
#include <tuple>

namespace emulator {
namespace {

constexpr std::array kNames = {"out of bounds", "misaligned",        "uninitialized", "race",
                               "barrier",       "invalid operation", "api",           "assertion"};

struct Counted {
  Finding first;
  std::uint64_t count = 0;
};

struct Record {
  std::mutex mutex;
  using Place = std::tuple<FindingKind, std::string, std::string, int, int, std::string>;
  std::map<Place, std::size_t> index;
  std::vector<Counted> findings;  // in order of first occurrence
  std::array<std::uint64_t, kNames.size()> per_kind{};
};

Record& record() {
  static Record* record = new Record;  // never destroyed: static destructors of programs report too
  return *record;
}

/// The message without its numbers: what is the same mistake at another address. Numbers are runs of digits,
/// and hexadecimal words.
std::string shape(const std::string& message) {
  std::string result;
  for (std::size_t i = 0; i < message.size();) {
    const bool digit = message[i] >= '0' && message[i] <= '9';
    if (!digit) {
      result += message[i++];
      continue;
    }
    const bool hex = message.compare(i, 2, "0x") == 0;
    i += hex ? 2 : 1;
    while (i < message.size() && (hex ? std::isxdigit(static_cast<unsigned char>(message[i]))
                                      : std::isdigit(static_cast<unsigned char>(message[i]))))
      ++i;
    result += '#';
  }
  return result;
}

std::string triple(const std::uint32_t (&index)[3]) {
  return "(" + std::to_string(index[0]) + "," + std::to_string(index[1]) + "," + std::to_string(index[2]) +
         ")";
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      result += code;
    } else {
      result += c;
    }
  }
  return result + "\"";
}

void print(const Finding& finding) {
  std::string line = std::string("cuda_emulator: ") + name_of(finding.kind) + ": " + finding.message;
  if (!finding.kernel.empty()) {
    line += "; kernel " + finding.kernel;
    if (finding.line > 0) line += ", " + finding.file + ":" + std::to_string(finding.line);
    if (finding.line == 0 && finding.ptx_line > 0) line += ", PTX line " + std::to_string(finding.ptx_line);
    line += ", block " + triple(finding.block) + ", thread " + triple(finding.thread);
  }
  line += "\n";
  std::fputs(line.c_str(), stderr);  // one call: lines of several threads do not mix
}

}  // namespace

const char* name_of(FindingKind kind) { return kNames[static_cast<std::size_t>(kind)]; }

void report(const Finding& finding) {
  Record& all = record();
  const std::lock_guard lock(all.mutex);
  ++all.per_kind[static_cast<std::size_t>(finding.kind)];
  // Unrolled loops repeat a source line at many places of the PTX.
  const int ptx_line = finding.line != 0 ? 0 : finding.ptx_line;
  const Record::Place place{finding.kind, finding.kernel, finding.file,
                            finding.line, ptx_line,       shape(finding.message)};
  const auto [known, is_new] = all.index.try_emplace(place, all.findings.size());
  if (is_new) {
    all.findings.push_back({finding, 0});
    print(finding);
  }
  ++all.findings[known->second].count;
}

std::uint64_t findings_reported(FindingKind kind) {
  Record& all = record();
  const std::lock_guard lock(all.mutex);
  return all.per_kind[static_cast<std::size_t>(kind)];
}

std::uint64_t findings_reported() {
  Record& all = record();
  const std::lock_guard lock(all.mutex);
  std::uint64_t sum = 0;
  for (const std::uint64_t count : all.per_kind) sum += count;
  return sum;
}

std::string findings_json() {
  Record& all = record();
  const std::lock_guard lock(all.mutex);
  std::string json = "[";
  for (const Counted& counted : all.findings) {
    const Finding& finding = counted.first;
    const auto list = [](const std::uint32_t(&index)[3]) {
      return "[" + std::to_string(index[0]) + ", " + std::to_string(index[1]) + ", " +
             std::to_string(index[2]) + "]";
    };
    json += json.size() > 1 ? ",\n " : "\n ";
    json += "{\"kind\": " + quoted(name_of(finding.kind)) + ", \"count\": " + std::to_string(counted.count);
    json += std::string(", \"fatal\": ") + (finding.fatal ? "true" : "false") +
            ", \"message\": " + quoted(finding.message);
    if (!finding.kernel.empty()) {
      json += ", \"kernel\": " + quoted(finding.kernel) + ", \"file\": " + quoted(finding.file) +
              ", \"line\": " + std::to_string(finding.line);
      json += ", \"ptx_line\": " + std::to_string(finding.ptx_line) + ", \"block\": " + list(finding.block) +
              ", \"thread\": " + list(finding.thread);
      json += ", \"address\": " + std::to_string(finding.address);
    }
    json += "}";
  }
  return json + (all.findings.empty() ? "]" : "\n]");
}

}  // namespace emulator
