#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "exec/launch.h"
#include "memory/device_memory.h"

/// Runs one instruction form on tables of operands and compares with a reference: PTX text in, differences
/// out.
///
/// A form's `signature` names its operands, "results=inputs": h, r, d: 16, 32 and 64 bits; p: a predicate (0
/// or 1 in tables). The text is an opcode, whose operands are then written in this order ("add.rz.f32",
/// "r=rr"; two predicate results become p|q), or whole statements ending in `;` that use the registers %d0,
/// %d1, … for the results and %a0, %a1, … for the inputs ("selp.b32 %d0, %a0, %a1, %a2;"), and may declare
/// more in a scope of their own.
namespace emulator::conformance {

inline constexpr std::size_t kMostOperands = 8;
using Row = std::array<std::uint64_t, kMostOperands>;  // of inputs or of results

/// Results for one row of inputs; results that are not set are 0.
using Reference = std::function<void(const Row& in, Row& out)>;
/// Whether a result will do; for forms whose bits the ISA leaves open.
using Accept = std::function<bool(const Row& in, const Row& expected, const Row& got)>;

struct Form {
  std::string text, signature;
  Reference reference;
  Accept accept = {};  // none: bits must agree
};

/// For forms with one result.
template <class F>
Reference one(F f) {
  return [f](const Row& in, Row& out) { out[0] = static_cast<std::uint64_t>(f(in)); };
}

// ---- inputs ----

/// Rows of random bits. Values of all rows are cut to the widths of the signature.
inline std::vector<Row> random_rows(std::size_t count, std::uint64_t seed = 1) {
  std::mt19937_64 generator(seed);
  std::vector<Row> rows(count);
  for (Row& row : rows)
    for (std::uint64_t& value : row) value = generator();
  return rows;
}

/// Every combination of the special values of each input, then `random` rows of random bits.
inline std::vector<Row> crossed(const std::vector<std::vector<std::uint64_t>>& specials, std::size_t random,
                                std::uint64_t seed = 1) {
  std::vector<Row> rows(1, Row{});
  for (std::size_t input = 0; input < specials.size(); ++input) {
    std::vector<Row> longer;
    for (const Row& row : rows) {
      for (const std::uint64_t value : specials[input]) {
        longer.push_back(row);
        longer.back()[input] = value;
      }
    }
    rows = std::move(longer);
  }
  const std::vector<Row> more = random_rows(random, seed);
  rows.insert(rows.end(), more.begin(), more.end());
  return rows;
}
inline std::vector<Row> crossed(const std::vector<std::uint64_t>& specials, std::size_t inputs,
                                std::size_t random, std::uint64_t seed = 1) {
  return crossed(std::vector<std::vector<std::uint64_t>>(inputs, specials), random, seed);
}

// ---- the kernel ----

struct Signature {
  std::string results, inputs;
  explicit Signature(const std::string& text) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || text.size() > kMostOperands)
      throw std::invalid_argument("signature " + text);
    results = text.substr(0, equals);
    inputs = text.substr(equals + 1);
  }
  static int bits(char kind) { return kind == 'h' ? 16 : kind == 'r' ? 32 : kind == 'd' ? 64 : 1; }
  static std::uint64_t cut(char kind, std::uint64_t value) {
    return bits(kind) == 64 ? value : value & ((std::uint64_t(1) << bits(kind)) - 1);
  }
};

/// Registers of results hold what memory held before, so that lanes which are switched off can be seen to
/// keep it.
inline std::string load(char kind, const std::string& name, const std::string& base, std::size_t cell) {
  const std::string at = "[" + base + "+" + std::to_string(8 * cell) + "];\n";
  if (kind == 'p') return "  ld.global.b32 %scratch, " + at + "  setp.ne.b32 " + name + ", %scratch, 0;\n";
  return "  ld.global.b" + std::to_string(Signature::bits(kind)) + " " + name + ", " + at;
}
inline std::string store(char kind, const std::string& name, const std::string& base, std::size_t cell) {
  const std::string at = "[" + base + "+" + std::to_string(8 * cell) + "], ";
  if (kind == 'p') return "  selp.b32 %scratch, 1, 0, " + name + ";\n  st.global.b32 " + at + "%scratch;\n";
  return "  st.global.b" + std::to_string(Signature::bits(kind)) + " " + at + name + ";\n";
}

inline std::string name_of(const char* prefix, std::size_t i) {
  return "%" + std::string(prefix) + std::to_string(i);
}

inline std::string statement(const Form& form, const Signature& signature) {
  if (form.text.find(';') != std::string::npos) return "{ " + form.text + " }";
  std::string text = form.text;
  for (std::size_t i = 0; i < signature.results.size(); ++i)
    text += (i == 0 ? " " : signature.results == "pp" ? "|" : ", ") + name_of("d", i);
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) text += ", " + name_of("a", i);
  return text + ";";
}

enum class Lanes { all, even_by_guard, even_by_branch };

inline std::string kernel_text(const Form& form, const std::string& name, Lanes lanes) {
  const Signature signature(form.signature);
  std::string text = ".visible .entry " + name +
                     "(.param .u64 inputs, .param .u64 outputs)\n{\n  .reg .pred %even;\n  .reg .b32 "
                     "%scratch, %thread, %block;\n";
  text += "  .reg .b64 %in, %out, %cell;\n";
  const auto declare = [&](const std::string& kinds, const char* prefix) {
    for (std::size_t i = 0; i < kinds.size(); ++i)
      text += "  .reg ." +
              std::string(kinds[i] == 'p' ? "pred" : "b" + std::to_string(Signature::bits(kinds[i]))) + " " +
              name_of(prefix, i) + ";\n";
  };
  declare(signature.results, "d");
  declare(signature.inputs, "a");
  text +=
      "  ld.param.u64 %in, [inputs];\n  ld.param.u64 %out, [outputs];\n  mov.u32 %thread, %tid.x;\n  mov.u32 "
      "%block, %ctaid.x;\n  mov.u32 %scratch, %ntid.x;\n";
  text += "  mad.lo.u32 %thread, %block, %scratch, %thread;\n";
  text += "  mul.wide.u32 %cell, %thread, " + std::to_string(8 * signature.inputs.size()) +
          ";\n  add.u64 %in, %in, %cell;\n";
  text += "  mul.wide.u32 %cell, %thread, " + std::to_string(8 * signature.results.size()) +
          ";\n  add.u64 %out, %out, %cell;\n";
  text += "  and.b32 %scratch, %thread, 1;\n  setp.eq.u32 %even, %scratch, 0;\n";
  for (std::size_t i = 0; i < signature.results.size(); ++i)
    text += load(signature.results[i], name_of("d", i), "%out", i);
  for (std::size_t i = 0; i < signature.inputs.size(); ++i)
    text += load(signature.inputs[i], name_of("a", i), "%in", i);
  if (lanes == Lanes::even_by_branch) text += "  @!%even bra DONE;\n";
  text += (lanes == Lanes::even_by_guard ? "  @%even " : "  ") + statement(form, signature) + "\n";
  if (lanes == Lanes::even_by_branch) text += "DONE:\n";
  for (std::size_t i = 0; i < signature.results.size(); ++i)
    text += store(signature.results[i], name_of("d", i), "%out", i);
  return text + "  ret;\n}\n";
}

inline std::string module_text(const Form& form) {
  const bool statements = form.text.find(';') != std::string::npos;
  return ".version 9.0\n.target sm_90\n.address_size 64\n" + kernel_text(form, "all_lanes", Lanes::all) +
         kernel_text(form, "some_lanes", statements ? Lanes::even_by_branch : Lanes::even_by_guard);
}

/// Device memory for the life of the object, written from the host.
class Buffer {
 public:
  explicit Buffer(std::uint64_t bytes)
      : address(DeviceMemory::instance().allocate(bytes, MemoryKind::device)) {
    host = reinterpret_cast<std::uint64_t*>(DeviceMemory::instance().host(address, bytes));
    DeviceMemory::instance().mark_initialized(address, bytes);
  }
  ~Buffer() { DeviceMemory::instance().release(address); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::uint64_t address;
  std::uint64_t* host;
};

// ---- the comparison ----

inline std::string row_text(const Row& row, std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    char hex[24];
    std::snprintf(hex, sizeof hex, "%s0x%llx", i == 0 ? "" : " ", static_cast<unsigned long long>(row[i]));
    text += hex;
  }
  return text;
}

/// What the results held before the instruction.
inline std::uint64_t before(char kind) { return Signature::cut(kind, 0xa5a5a5a5a5a5a5a5u); }

inline std::string differences(const Form& form, const std::vector<Row>& rows, const std::uint64_t* results,
                               bool only_even) {
  const Signature signature(form.signature);
  std::size_t wrong = 0;
  std::string first;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Row in{}, expected{}, got{};
    for (std::size_t k = 0; k < signature.inputs.size(); ++k)
      in[k] = Signature::cut(signature.inputs[k], rows[i][k]);
    for (std::size_t k = 0; k < signature.results.size(); ++k)
      got[k] = Signature::cut(signature.results[k], results[i * signature.results.size() + k]);
    const bool runs = !only_even || i % 2 == 0;
    if (runs) form.reference(in, expected);
    for (std::size_t k = 0; k < signature.results.size(); ++k)
      expected[k] = runs ? Signature::cut(signature.results[k], expected[k]) : before(signature.results[k]);
    if (runs && form.accept ? form.accept(in, expected, got) : expected == got) continue;
    if (++wrong <= 3)
      first += "\n    inputs " + row_text(in, signature.inputs.size()) + ": expected " +
               row_text(expected, signature.results.size()) + ", found " +
               row_text(got, signature.results.size()) + (runs ? "" : " (lane switched off)");
  }
  if (wrong == 0) return "";
  return form.text + ": " + std::to_string(wrong) + " of " + std::to_string(rows.size()) + " rows differ" +
         (only_even ? " with odd lanes switched off" : "") + first + "\n";
}

inline std::string run(const Form& form, const LoadedModule& module, const char* name,
                       const std::vector<Row>& rows, bool only_even) {
  const Signature signature(form.signature);
  const Kernel* kernel = module.kernel(name);
  if (kernel == nullptr) return form.text + ": no kernel\n";
  if (!info(*kernel).unsupported.empty()) return form.text + ": " + info(*kernel).unsupported + "\n";
  const std::size_t ins = signature.inputs.size(), outs = signature.results.size();
  const Buffer inputs(8 * std::max<std::size_t>(1, rows.size() * ins)), outputs(8 * rows.size() * outs);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t k = 0; k < ins; ++k)
      inputs.host[i * ins + k] = Signature::cut(signature.inputs[k], rows[i][k]);
    for (std::size_t k = 0; k < outs; ++k) outputs.host[i * outs + k] = before(signature.results[k]);
  }
  std::uint8_t params[16];
  std::memcpy(params, &inputs.address, 8);
  std::memcpy(params + 8, &outputs.address, 8);
  constexpr std::size_t kThreads = 128;
  LaunchConfig config;
  config.block[0] = kThreads;
  config.grid[0] = static_cast<std::uint32_t>(rows.size() / kThreads);
  if (const int error = run_kernel(*kernel, config, params).error; error != 0)
    return form.text + ": the kernel failed with error " + std::to_string(error) + "\n";
  return differences(form, rows, outputs.host, only_even);
}

/// Runs the form on all rows, with all lanes and with odd lanes switched off. "" if all results are as they
/// should be; otherwise what differs. CONFORMANCE_DUMP=FOLDER also writes each module there, for a look at
/// whether ptxas takes it.
inline std::string mismatches(const Form& form, std::vector<Row> rows) {
  while (rows.empty() || rows.size() % 128 != 0) rows.push_back(rows.empty() ? Row{} : rows[rows.size() / 2]);
  const std::string text = module_text(form);
  if (const char* folder = std::getenv("CONFORMANCE_DUMP"); folder != nullptr) {
    std::string file =
        form.text.substr(0, 60) + "-" + std::to_string(std::hash<std::string>()(text) % 100000);
    std::replace_if(
        file.begin(), file.end(), [](char c) { return c == ' ' || c == '/' || c == ';' || c == '\n'; }, '_');
    if (std::FILE* out = std::fopen((std::string(folder) + "/" + file + ".ptx").c_str(), "w");
        out != nullptr) {
      std::fputs(text.c_str(), out);
      std::fclose(out);
    }
  }
  try {
    const LoadedModule module(text);
    return run(form, module, "all_lanes", rows, false) + run(form, module, "some_lanes", rows, true);
  } catch (const std::exception& error) {
    return form.text + ": " + error.what() + "\n";
  }
}

/// Why the module of a form is refused; "" if it is taken. For forms that must be errors.
inline std::string refusal(const std::string& text, const std::string& signature) {
  try {
    const LoadedModule module(module_text({text, signature, {}}));
    return info(*module.kernel("all_lanes")).unsupported;
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace emulator::conformance
