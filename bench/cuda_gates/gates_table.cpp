#include <cxxabi.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>

#include "bench/cuda_gates/goals.h"

// Makes one table of what can be counted about kernels without a GPU, and compares it with another or with goals:
//   gates_table make counters.json resources.txt useful.txt > new.lock
//   gates_table compare gates.lock new.lock
//   gates_table goals gates.goals new.lock
// A line is the name of a kernel and figures name=value, sorted.
namespace dino::bench {
namespace {

using nlohmann::json;

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

/// A mangled name as "file:kernel<arguments>", without parameters and spaces. The file is known by its namespace
/// (docs/style.md).
std::string short_name(const std::string& mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status),
                                                     std::free);
  std::string name = status == 0 ? plain.get() : mangled;
  for (const auto& [from, to] :
       std::initializer_list<std::pair<const char*, const char*>>{{"dino::cuda::", ""},
                                                                  {"dino::", ""},
                                                                  {"__nv_bfloat16", "bf16"},
                                                                  {", ", ","}})
    replace_all(name, from, to);
  if (name.ends_with(')')) {  // the parameters
    size_t at = name.size() - 1;
    for (int depth = 1; depth > 0 && at > 0;) {
      --at;
      depth += name[at] == ')' ? 1 : name[at] == '(' ? -1 : 0;
    }
    name.erase(at);
  }
  if (name.starts_with("void ")) name.erase(0, 5);
  replace_all(name, " ", "");
  static const std::regex space("(\\w+)_cu::");
  std::smatch match;
  if (!std::regex_search(name, match, space)) return name;
  return match[1].str() + ":" + std::regex_replace(name, space, "");
}

/// Sums over all launches of one kernel.
struct Counts {
  double launches = 0, instructions = 0, tensor_flops = 0, shared_bytes = 0;
  double bytes = 0, compulsory = 0, wavefronts = 0, ideal_wavefronts = 0;

  void add(const json& record) {
    launches += record["launches"].get<double>();
    instructions += record["warp_instructions"].get<double>();
    tensor_flops += record["tensor_flops"].get<double>();
    shared_bytes = std::max(shared_bytes, record["dynamic_shared"].get<double>());
    for (const char* kind : {"global_loads", "global_stores", "global_atomics"})
      bytes += 32 * record[kind]["sectors"].get<double>();
    for (const char* kind : {"read_bytes", "written_bytes"}) compulsory += record["compulsory"][kind].get<double>();
    for (const char* kind : {"shared_loads", "shared_stores", "matrix_loads", "matrix_stores"}) {
      wavefronts += record[kind]["wavefronts"].get<double>();
      ideal_wavefronts += record[kind]["ideal_wavefronts"].get<double>();
    }
  }
};

template <class... Arguments>
std::string format(const char* pattern, Arguments... arguments) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, arguments...);
  return text;
}

std::map<std::string, Counts> read_counters(const std::string& path) {
  std::map<std::string, Counts> result;
  std::ifstream file = open(path);
  const json counters = json::parse(file);
  for (const json& record : counters.at("kernels"))
    result[short_name(record["mangled"].get<std::string>())].add(record);
  return result;
}

void make(const std::string& counters, const std::string& resources, const std::string& useful) {
  FigureTable table = read_figures(resources, short_name);
  std::map<std::string, Counts> counted = read_counters(counters);
  for (const auto& [name, counts] : counted) {
    Figures& figures = table[name];
    figures.emplace_back("launches", format("%.0f", counts.launches));
    figures.emplace_back("instructions", format("%.0f", counts.instructions));
    figures.emplace_back("traffic", counts.compulsory > 0 ? format("%.3f", counts.bytes / counts.compulsory) : "-");
    figures.emplace_back(
        "conflicts", counts.ideal_wavefronts > 0 ? format("%.3f", counts.wavefronts / counts.ideal_wavefronts) : "-");
    if (counts.shared_bytes > 0) figures.emplace_back("dynamic_shared", format("%.0f", counts.shared_bytes));
    if (counts.tensor_flops > 0) figures.emplace_back("tensor_mflop", format("%.3f", counts.tensor_flops * 1e-6));
  }
  std::ifstream file = open(useful);
  for (std::string prefix, flops; file >> prefix >> flops;) {
    double done = 0;
    for (const auto& [name, counts] : counted)
      if (name.starts_with(prefix)) done += counts.tensor_flops;
    table[prefix + "*"].emplace_back("tensor_useful", format("%.3f", done > 0 ? std::stod(flops) / done : 0.0));
  }
  for (const auto& [name, figures] : table) {
    std::printf("%s", name.c_str());
    for (const auto& [key, value] : figures) std::printf(" %s=%s", key.c_str(), value.c_str());
    std::printf("\n");
  }
}

/// Which change of a figure is a loss, and how much of it is not: slack is for rounding.
struct Rule {
  enum { less, more, any } worse;
  double slack = 0;  ///< of the figure itself
  double share = 0;  ///< of the old one
};
const std::map<std::string, Rule> kRules = {
    {"stack", {Rule::more}},
    {"spill", {Rule::more}},
    {"warps", {Rule::less}},
    {"float_atomics", {Rule::more}},
    {"launches", {Rule::more}},
    {"instructions", {Rule::more, 0, 0.01}},
    {"traffic", {Rule::more, 0.005}},
    {"conflicts", {Rule::more, 0.005}},
    {"tensor_mflop", {Rule::more, 0, 0.001}},
    {"tensor_useful", {Rule::less, 0.005}},
};

bool is_worse(const std::string& name, const std::string& before, const std::string& now) {
  const auto rule = kRules.find(name);
  if (rule == kRules.end()) return false;
  const std::vector<double> a = numbers(before), b = numbers(now);
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double slack = rule->second.slack + rule->second.share * a[i];
    if (rule->second.worse == Rule::less ? b[i] < a[i] - slack : b[i] > a[i] + slack) return true;
  }
  return false;
}

/// Prints what differs. Returns 1 if something got worse, or if a kernel is in one table only.
int compare(const std::string& lock, const std::string& now) {
  const FigureTable before = read_figures(lock), after = read_figures(now);
  int worse = 0, changed = 0, unknown = 0;
  const auto say = [](const char* what, const std::string& name, const std::string& text) {
    std::printf("%-8s %s%s%s\n", what, name.c_str(), text.empty() ? "" : ": ", text.c_str());
  };
  for (const auto& [name, figures] : after) {
    const auto old = before.find(name);
    if (old == before.end()) {
      say("new", name, "");
      ++unknown;
      continue;
    }
    for (const auto& [key, value] : figures) {
      const std::string* past = find(old->second, key);
      if (past && *past == value) continue;
      const bool is_loss = past && is_worse(key, *past, value);
      ++(is_loss ? worse : changed);
      say(is_loss ? "WORSE" : "changed", name, str(key, " ", past ? *past : "none", " -> ", value));
    }
  }
  for (const auto& [name, figures] : before)
    if (!after.contains(name)) {
      say("gone", name, "");
      ++unknown;
    }
  std::printf("%zu kernels: %d figures worse, %d otherwise changed, %d kernels new or gone\n", after.size(), worse,
              changed, unknown);
  return worse + unknown > 0 ? 1 : 0;
}

int run(int argc, char** argv) {
  CLI::App app("What can be counted about kernels without a GPU.", "gates_table");
  app.require_subcommand(1);
  std::string counters, resources, useful, lock, goals, now;
  CLI::App* making = app.add_subcommand("make", "Prints a table");
  making->add_option("counters", counters, "The emulator's counters")->required();
  making->add_option("resources", resources, "What kernel_resources.sh --mangled prints")->required();
  making->add_option("useful", useful, "What count_kernels --useful-flops writes")->required();
  CLI::App* comparing = app.add_subcommand("compare", "Prints what differs; 1 if something got worse");
  comparing->add_option("lock", lock, "The table that was")->required();
  comparing->add_option("now", now, "The table that is")->required();
  CLI::App* holding = app.add_subcommand("goals", "Prints what misses its goal; 1 if something does");
  holding->add_option("goals", goals, "The goals")->required();
  holding->add_option("table", now, "The table that is")->required();
  CLI11_PARSE(app, argc, argv);
  if (holding->parsed()) return compare_with_goals(read_figures(now), goals);
  if (comparing->parsed()) return compare(lock, now);
  make(counters, resources, useful);
  return 0;
}

}  // namespace
}  // namespace dino::bench

int main(int argc, char** argv) {
  try {
    return dino::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gates_table: %s\n", error.what());
    return 2;
  }
}
