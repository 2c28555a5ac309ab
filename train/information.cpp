#include "train/information.h"

#include <fstream>
#include <hwy/targets.h>
#include <nlohmann/json.hpp>
#include <string>

#include <dnnl.h>

#include "kernels/cuda_memory.h"
#include "kernels/device.h"
#include "kernels/error.h"
#include "kernels/thread_pool.h"

namespace dino {
namespace {

/// The processor's name as Linux knows it.
std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos) return line.substr(line.find(": ") + 2);
  return "unknown";
}

std::vector<std::string> devices() {
  std::vector<std::string> all{"cpu"};
  for (const cuda::DeviceInfo& device : cuda::devices())
    all.push_back(str("cuda: ", device.name, ", compute capability ", device.major, ".", device.minor, ", ", device.bytes >> 30,
                      " GiB, ", device.multiprocessors, " multiprocessors"));
  if (const std::string problem = cuda::problem(); kWithCuda && !problem.empty()) all.push_back("cuda: " + problem);
  return all;
}

}  // namespace

nlohmann::json build_and_machine() {
  const dnnl_version_t* dnnl = dnnl_version();
  return {{"version", DINO_VERSION},
          {"compiler", __VERSION__},
          {"build_type", DINO_BUILD_TYPE},
          {"cuda", kWithCuda ? cuda::runtime() + (cuda::emulated() ? ", emulated: correct, but not fast" : "") : "not in this build"},
          {"processor", processor()},
          {"devices", devices()},
          {"threads", ThreadPool().threads()},
          {"simd", hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets())},
          {"onednn", str(dnnl->major, ".", dnnl->minor, ".", dnnl->patch)}};
}

}  // namespace dino
