// check_counters COUNTERS.json < OUTPUT_OF_COUNTERS_CU: compares the numbers that counters.cu expects with
// those that the emulator counted.
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

namespace {

/// The record whose demangled name contains "::NAME(" or "::NAME(" after its template brackets: "void
/// (anonymous namespace)::shared_stride<2>(float*)".
const nlohmann::json* find(const nlohmann::json& counters, const std::string& name) {
  for (const nlohmann::json& kernel : counters.at("kernels")) {
    const std::string full = kernel.at("name");
    const std::size_t at = full.find("::" + name + "(");
    if (at != std::string::npos || full.rfind(name + "(", 0) == 0) return &kernel;
  }
  return nullptr;
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) return 2;
  std::ifstream file(words[1]);
  const nlohmann::json counters = nlohmann::json::parse(file, nullptr, false);
  if (counters.is_discarded()) {
    std::cerr << words[1] << ": is no JSON\n";
    return 1;
  }
  int wrong = 0, total = 0;
  std::string name, path;
  for (double expected = 0; std::cin >> name >> path >> expected; ++total) {
    const nlohmann::json* kernel = find(counters, name);
    const nlohmann::json::json_pointer at("/" + path);
    const bool known = kernel && kernel->contains(at);
    const double found = known ? kernel->at(at).get<double>() : 0;
    if (known && std::abs(found - expected) <= 1e-5 * std::abs(expected)) continue;
    ++wrong;
    std::cerr << name << ": " << path << ": expected " << expected << ", found "
              << (known    ? std::to_string(found)
                  : kernel ? "no such number"
                           : "no such kernel")
              << "\n";
  }
  std::cout << total - wrong << " of " << total << " as expected\n";
  return total > 0 && wrong == 0 ? 0 : 1;
}
