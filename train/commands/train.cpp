#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "train/commands/commands.h"
#include "train/commands/train_request.h"
#include "train/session.h"

namespace dino {
namespace {

void dump(const std::vector<Option>& options) {
  for (const Option& option : options)
    std::printf("%-28s %-24s %s\n", option.name.c_str(), option.get().dump().c_str(), option.source.c_str());
}

}  // namespace

void add_train_command(CLI::App& parent, int& exit_code) {
  auto* command = parent.add_subcommand("train", "Train DINO on a folder of images; goes on from --out if it holds a checkpoint");
  auto request = std::make_shared<TrainRequest>();
  auto dump_config = std::make_shared<bool>(false);
  auto every_step = std::make_shared<bool>(false);
  command->add_flag("-v,--verbose", *every_step, "show every step, not only those that are logged")->group("Run");
  command->add_flag("--dump-config", *dump_config, "print each option's value and where it came from, and end")->group("Run");
  request->add_to(*command);
  command->callback([request, dump_config, every_step, &exit_code] {
    request->resolve();
    if (*dump_config) dump(request->options);
    else exit_code = run_session(request->config, *every_step);
  });
}

}  // namespace dino
