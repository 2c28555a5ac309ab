#include <cstdio>
#include <hwy/targets.h>
#include <memory>
#include <nlohmann/json.hpp>

#include <dnnl.h>

#include "kernels/cuda_memory.h"
#include "kernels/device.h"
#include "kernels/error.h"
#include "kernels/thread_pool.h"
#include "train/commands/commands.h"

namespace dino {
namespace {

std::vector<std::string> devices() {
  std::vector<std::string> all{"cpu"};
  for (const cuda::DeviceInfo& device : cuda::devices())
    all.push_back(str("cuda: ", device.name, ", compute capability ", device.major, ".", device.minor, ", ", device.bytes >> 30,
                      " GiB, ", device.multiprocessors, " multiprocessors"));
  if (const std::string problem = cuda::problem(); kWithCuda && !problem.empty()) all.push_back("cuda: " + problem);
  return all;
}

nlohmann::json information() {
  const dnnl_version_t* dnnl = dnnl_version();
  return {{"version", DINO_VERSION},
          {"compiler", __VERSION__},
          {"build_type", DINO_BUILD_TYPE},
          {"cuda", kWithCuda ? cuda::runtime() + (cuda::emulated() ? ", emulated: correct, but not fast" : "") : "not in this build"},
          {"devices", devices()},
          {"threads", ThreadPool().threads()},
          {"simd", hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets())},
          {"onednn", str(dnnl->major, ".", dnnl->minor, ".", dnnl->patch)}};
}

}  // namespace

void add_info_command(CLI::App& parent) {
  auto* command = parent.add_subcommand("info", "Version, build and devices");
  auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "one JSON object");
  command->callback([as_json] {
    const nlohmann::json all = information();
    if (*as_json) {
      std::printf("%s\n", all.dump().c_str());
      return;
    }
    for (const auto& [name, value] : all.items())
      std::printf("%-12s %s\n", name.c_str(), value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
  });
}

}  // namespace dino
