#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "exec/context.h"

namespace emulator {

/// A decoded kernel with the device functions that it can reach; those are decoded once per kernel, because
/// shared memory is laid out per kernel.
struct Kernel {
  KernelInfo info;
  Program program;
  std::map<int, std::unique_ptr<Program>> functions;  // by index in the module; only those that are reachable
  std::uint64_t static_shared_end =
      0;  // offset in the block's shared memory where dynamic shared memory begins
  const ptx::Module* module = nullptr;
};

struct LoadedModule::Content {
  ptx::Module module;
  std::vector<std::unique_ptr<Kernel>> kernels;
  std::map<std::string, Kernel*> kernel_by_name;
  std::map<std::string, VariableInfo> variables;
  ModulePlaces places;
};

/// Decodes `function` and whatever it can call into `kernel`. On failure kernel.info.unsupported says why.
void decode_kernel(LoadedModule::Content& content, const ptx::Function& function, Kernel& kernel);

}  // namespace emulator
