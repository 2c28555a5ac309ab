#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace dino {

/// `json` as text. Names of files may hold bytes that are not UTF-8, which JSON cannot: U+FFFD stands for
/// them.
inline std::string json_text(const nlohmann::json& json, int indent = -1) {
  return json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// The JSON in a file; discarded if there is none.
inline nlohmann::json json_in(const std::string& path) {
  std::error_code missing;
  if (!std::filesystem::is_regular_file(path, missing))
    return nlohmann::json(nlohmann::json::value_t::discarded);
  std::ifstream file(path);
  return nlohmann::json::parse(file, nullptr, false);
}

}  // namespace dino
