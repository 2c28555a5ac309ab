#include "abi/registry.h"

#include <algorithm>
#include <unordered_map>

#include "abi/fatbin.h"
#include "memory/device_memory.h"

namespace emulator::abi {
namespace {

/// Everything registered. Never destroyed: programs unregister from atexit handlers. Guarded by
/// device_mutex().
struct Registry {
  std::vector<std::unique_ptr<Module>> modules;
  std::vector<std::unique_ptr<Module>> libraries;
  std::unordered_map<const void*, std::unique_ptr<Function>>
      functions;                                       // by host stub; of libraries: by their own address
  std::unordered_map<const void*, Function*> handles;  // the functions' own addresses
  std::unordered_map<const void*, Symbol> symbols;     // by host variable
  std::vector<std::unique_ptr<Function>> ended;        // queued work and graphs may still name them
};

Registry& registry() {
  static Registry* all = new Registry;
  return *all;
}

/// Managed variables: the program reads the address through a pointer that the run-time sets.
void bind_managed(Module& module) {
  for (auto& [host, symbol] : registry().symbols) {
    if (symbol.module != &module || !symbol.managed) continue;
    const VariableInfo* variable = module.loaded->variable(symbol.name);
    if (!variable) continue;
    *symbol.managed = pointer_to(variable->address);
    const Extent* extent = DeviceMemory::instance().find(variable->address);
    if (extent && extent->kind != MemoryKind::managed)
      not_supported("__managed__ variable " + symbol.name + ": access from the host");
  }
}

void erase_functions(const Module* module) {
  Registry& all = registry();
  for (auto it = all.functions.begin(); it != all.functions.end();) {
    if (it->second->module != module) {
      ++it;
      continue;
    }
    all.handles.erase(it->second.get());
    all.ended.push_back(std::move(it->second));
    it = all.functions.erase(it);
  }
}

}  // namespace

cudaError_t load(Module& module) {
  if (module.loaded) return cudaSuccess;
  if (module.failure.empty()) {
    try {
      module.loaded = std::make_unique<LoadedModule>(
          module.wrapper ? ptx_in_wrapper(module.wrapper, options().arch) : std::string_view(module.text));
      bind_managed(module);
      return cudaSuccess;
    } catch (const std::exception& error) {
      module.failure = error.what();
    }
  }
  return broken_rule(cudaErrorInvalidKernelImage, module.failure);
}

Function* find_function(const void* pointer) {
  if (const auto handle = registry().handles.find(pointer); handle != registry().handles.end())
    return handle->second;
  const auto stub = registry().functions.find(pointer);
  return stub == registry().functions.end() ? nullptr : stub->second.get();
}

cudaError_t loaded_function(const void* pointer, Function*& function) {
  function = pointer ? find_function(pointer) : nullptr;
  if (!function) return cudaErrorInvalidDeviceFunction;
  if (function->kernel) return cudaSuccess;
  if (const cudaError_t error = load(*function->module)) return error;
  function->kernel = function->module->loaded->kernel(function->name);
  if (!function->kernel)
    return broken_rule(cudaErrorInvalidDeviceFunction,
                       "kernel " + function->name + " is not in the PTX of the program");
  return cudaSuccess;
}

cudaError_t find_symbol(const void* pointer, std::uint64_t& address, std::size_t& bytes) {
  // A managed variable is named by its address on the device, which the host program reads through its
  // pointer.
  const auto is_managed = [pointer](const auto& item) {
    return item.second.managed && *item.second.managed == pointer;
  };
  auto found = registry().symbols.find(pointer);
  if (found == registry().symbols.end())
    found = std::find_if(registry().symbols.begin(), registry().symbols.end(), is_managed);
  if (found == registry().symbols.end()) return cudaErrorInvalidSymbol;
  Symbol& symbol = found->second;
  if (const cudaError_t error = load(*symbol.module)) return error;
  const VariableInfo* variable = symbol.module->loaded->variable(symbol.name);
  // nvcc drops variables that no kernel uses from the PTX: the real run-time says the same then.
  if (!variable) return cudaErrorInvalidSymbol;
  address = variable->address;
  bytes = variable->bytes;
  return cudaSuccess;
}

Module* add_library(std::string ptx) {
  auto module = std::make_unique<Module>();
  module->text = std::move(ptx);
  return registry().libraries.emplace_back(std::move(module)).get();
}

bool is_library(const Module* module) {
  for (const auto& library : registry().libraries) {
    if (library.get() == module) return true;
  }
  return false;
}

bool remove_library(Module* module) {
  for (const auto& [key, function] : registry().functions) {
    if (function->module == module) function->kernel = nullptr;
  }
  erase_functions(module);
  return std::erase_if(registry().libraries,
                       [module](const auto& library) { return library.get() == module; }) > 0;
}

Function* library_function(Module& module, const std::string& name) {
  for (const auto& [key, function] : registry().functions) {
    if (function->module == &module && function->name == name) return function.get();
  }
  if (!module.loaded->kernel(name)) return nullptr;
  auto function = std::make_unique<Function>();
  function->module = &module;
  function->name = name;
  Function* handle = function.get();
  registry().handles[handle] = handle;
  registry().functions[handle] = std::move(function);
  return handle;
}

void unload_all() {
  for (const auto& [key, function] : registry().functions) function->kernel = nullptr;
  for (const auto& module : registry().modules) module->loaded.reset();
  for (const auto& module : registry().libraries) module->loaded.reset();
}

}  // namespace emulator::abi

using namespace emulator::abi;

// Called by code that nvcc generates (crt/host_runtime.h); no public header declares them.
#pragma GCC visibility push(default)
extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  const Lock lock(device_mutex());
  auto module = std::make_unique<Module>();
  module->wrapper = wrapper;
  return reinterpret_cast<void**>(registry().modules.emplace_back(std::move(module)).get());
}

void __cudaRegisterFatBinaryEnd(void**) {}

void __cudaUnregisterFatBinary(void** handle) {
  const Lock lock(device_mutex());
  auto* module = reinterpret_cast<Module*>(handle);
  erase_functions(module);
  std::erase_if(registry().symbols, [module](const auto& item) { return item.second.module == module; });
  // The module itself stays: work that is still queued may refer to its kernels.
}

void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  const Lock lock(device_mutex());
  auto function = std::make_unique<Function>();
  function->module = reinterpret_cast<Module*>(handle);
  function->name = name;
  registry().handles[function.get()] = function.get();
  registry().functions[host] = std::move(function);
}

void __cudaRegisterVar(void** handle, char* host, char*, const char* name, int, size_t bytes, int, int) {
  const Lock lock(device_mutex());
  registry().symbols[host] = {reinterpret_cast<Module*>(handle), name, bytes, nullptr};
}

void __cudaRegisterManagedVar(void** handle, void** host, char*, const char* name, int, size_t bytes, int,
                              int) {
  const Lock lock(device_mutex());
  registry().symbols[host] = {reinterpret_cast<Module*>(handle), name, bytes, host};
}

void __cudaRegisterHostVar(void**, const char* name, char*, size_t) {
  not_supported(std::string("host variable ") + (name ? name : "") + " in device code");
}

/// Programs with managed variables call this before their first use; nvcc also calls it for others.
char __cudaInitModule(void** handle) {
  const Lock lock(device_mutex());
  auto* module = reinterpret_cast<Module*>(handle);
  for (const auto& [host, symbol] : registry().symbols) {
    if (symbol.module == module && symbol.managed) return load(*module) == cudaSuccess;
  }
  return 1;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  return api("__cudaGetKernel", [&](Lock&) {
    EMULATOR_REQUIRE(kernel);
    *kernel = reinterpret_cast<cudaKernel_t>(find_function(host));
    return *kernel ? cudaSuccess : cudaErrorInvalidDeviceFunction;
  });
}
}
#pragma GCC visibility pop
