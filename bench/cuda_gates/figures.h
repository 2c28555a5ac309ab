#pragma once

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/error.h"

/// Tables of what can be counted about kernels: a line is the name of a kernel and figures name=value; '#' begins a comment.
namespace dino::bench {

/// The figures of one kernel as they are printed, in order.
using Figures = std::vector<std::pair<std::string, std::string>>;
using FigureTable = std::map<std::string, Figures>;

inline const std::string* find(const Figures& figures, const std::string& name) {
  for (const auto& [key, value] : figures)
    if (key == name) return &value;
  return nullptr;
}

inline std::ifstream open(const std::string& path) {
  std::ifstream file(path);
  check<UsageError>(file.is_open(), path, ": cannot be read");
  return file;
}

/// The table in a file, with `rename` of the names. A kernel that comes twice has the figures of its last line.
template <class Rename>
FigureTable read_figures(const std::string& path, const Rename& rename) {
  FigureTable table;
  std::ifstream file = open(path);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string name, word;
    words >> name;
    Figures& figures = table[rename(name)];
    figures.clear();
    while (words >> word) {
      const size_t equals = word.find('=');
      check<FormatError>(equals != std::string::npos, path, ": ", word, ": expected name=value");
      figures.emplace_back(word.substr(0, equals), word.substr(equals + 1));
    }
  }
  return table;
}

inline FigureTable read_figures(const std::string& path) {
  return read_figures(path, [](const std::string& name) { return name; });
}

/// Numbers of "a/b/c"; "-" has none.
inline std::vector<double> numbers(const std::string& text) {
  std::vector<double> result;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, '/');)
    if (part != "-" && part != "?") result.push_back(std::stod(part));
  return result;
}

}  // namespace dino::bench
