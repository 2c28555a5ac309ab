#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "train/commands/commands.h"
#include "train/information.h"

namespace dino {

void add_info_command(CLI::App& parent) {
  auto* command = parent.add_subcommand("info", "Version, build and devices");
  auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "one JSON object");
  command->callback([as_json] {
    const nlohmann::json all = build_and_machine();
    if (*as_json) {
      std::printf("%s\n", all.dump().c_str());
      return;
    }
    for (const auto& [name, value] : all.items())
      std::printf("%-12s %s\n", name.c_str(), value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
  });
}

}  // namespace dino
