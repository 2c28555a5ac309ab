#include <algorithm>
#include <climits>

#include "abi/fatbin.h"
#include "abi/launch.h"

using namespace emulator::abi;
using emulator::info;
using emulator::KernelInfo;
using emulator::VariableInfo;

namespace {

/// Runs body(function) for a known kernel, loaded.
template <class Body>
cudaError_t with_function(const char* name, const void* pointer, Body body) {
  return api(name, [&](Lock&) -> cudaError_t {
    Function* function = nullptr;
    if (const cudaError_t error = loaded_function(pointer, function)) return error;
    return body(*function);
  });
}

cudaError_t set_attribute(Function& function, cudaFuncAttribute attribute, int value) {
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize: {
      const auto most = static_cast<long long>(device_model().shared_per_block_optin) -
                        static_cast<long long>(info(*function.kernel).static_shared);
      if (value < 0 || value > most) {
        return broken_rule(cudaErrorInvalidValue, "cudaFuncSetAttribute: " + std::to_string(value) +
                                                      " bytes of dynamic shared memory; at most " +
                                                      std::to_string(most));
      }
      function.max_dynamic_shared = value;
      return cudaSuccess;
    }
    case cudaFuncAttributePreferredSharedMemoryCarveout:
      EMULATOR_REQUIRE(value >= -1 && value <= 100);
      function.carveout = value;
      return cudaSuccess;
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
      function.non_portable_cluster = value != 0;
      return cudaSuccess;
    case cudaFuncAttributeClusterSchedulingPolicyPreference:
      return cudaSuccess;
    case cudaFuncAttributeRequiredClusterWidth:
    case cudaFuncAttributeRequiredClusterHeight:
    case cudaFuncAttributeRequiredClusterDepth:
      return value <= 1 ? cudaSuccess : not_supported("a cluster of more than one block");
    default:
      return cudaErrorInvalidValue;
  }
}

emulator::abi::Module* library_of(cudaLibrary_t handle) {
  auto* module = reinterpret_cast<emulator::abi::Module*>(handle);
  return is_library(module) ? module : nullptr;
}

}  // namespace

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* pointer) {
  return with_function("cudaFuncGetAttributes", pointer, [&](Function& function) -> cudaError_t {
    EMULATOR_REQUIRE(attributes);
    const KernelInfo& kernel = info(*function.kernel);
    *attributes = {};
    attributes->sharedSizeBytes = kernel.static_shared;
    attributes->constSizeBytes = kernel.constant_bytes;
    attributes->localSizeBytes = kernel.local_bytes;
    const std::uint64_t bound = static_cast<std::uint64_t>(kernel.max_threads[0]) *
                                std::max(1u, kernel.max_threads[1]) * std::max(1u, kernel.max_threads[2]);
    attributes->maxThreadsPerBlock =
        bound > 0 ? static_cast<int>(std::min<std::uint64_t>(bound, kMaxThreadsPerBlock))
                  : kMaxThreadsPerBlock;
    attributes->numRegs = kernel.registers;
    attributes->ptxVersion = kernel.target;
    attributes->binaryVersion = device_model().major * 10 + device_model().minor;
    attributes->maxDynamicSharedSizeBytes = function.max_dynamic_shared;
    attributes->preferredShmemCarveout = function.carveout;
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* pointer, cudaFuncAttribute attribute, int value) {
  return with_function("cudaFuncSetAttribute", pointer,
                       [&](Function& function) { return set_attribute(function, attribute, value); });
}

cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel, cudaFuncAttribute attribute, int value,
                                            int device) {
  if (device != 0) return leave("cudaKernelSetAttributeForDevice", cudaErrorInvalidDevice);
  return cudaFuncSetAttribute(kernel, attribute, value);
}

cudaError_t cudaFuncSetCacheConfig(const void* pointer, cudaFuncCache) {
  return with_function("cudaFuncSetCacheConfig", pointer, [](Function&) { return cudaSuccess; });
}

cudaError_t cudaFuncGetName(const char** name, const void* pointer) {
  return with_function("cudaFuncGetName", pointer, [&](Function& function) -> cudaError_t {
    EMULATOR_REQUIRE(name);
    *name = function.name.c_str();
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetParamInfo(const void* pointer, size_t index, size_t* offset, size_t* bytes) {
  return with_function("cudaFuncGetParamInfo", pointer, [&](Function& function) -> cudaError_t {
    const KernelInfo& kernel = info(*function.kernel);
    EMULATOR_REQUIRE(offset && index < kernel.params.size());
    *offset = kernel.params[index].offset;
    if (bytes) *bytes = kernel.params[index].bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaGetFuncBySymbol(cudaFunction_t* handle, const void* pointer) {
  return with_function("cudaGetFuncBySymbol", pointer, [&](Function& function) -> cudaError_t {
    EMULATOR_REQUIRE(handle);
    *handle = reinterpret_cast<cudaFunction_t>(&function);
    return cudaSuccess;
  });
}

cudaError_t cudaGetKernel(cudaKernel_t* handle, const void* pointer) {
  return with_function("cudaGetKernel", pointer, [&](Function& function) -> cudaError_t {
    EMULATOR_REQUIRE(handle);
    *handle = reinterpret_cast<cudaKernel_t>(&function);
    return cudaSuccess;
  });
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void* code, cudaJitOption*, void**, unsigned,
                                cudaLibraryOption*, void**, unsigned) {
  return api("cudaLibraryLoadData", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(library && code);
    const auto* bytes = static_cast<const unsigned char*>(code);
    const bool is_fatbin = bytes[0] == 0x50 && bytes[1] == 0xED && bytes[2] == 0x55 && bytes[3] == 0xBA;
    std::string ptx;
    try {
      ptx = is_fatbin ? std::string(ptx_in_fatbin(code, 0, emulator::options().arch))
                      : std::string(static_cast<const char*>(code));
    } catch (const FatbinError& error) {
      return broken_rule(cudaErrorInvalidKernelImage, std::string("cudaLibraryLoadData: ") + error.what());
    }
    emulator::abi::Module* module = add_library(std::move(ptx));
    if (load(*module) != cudaSuccess) {
      remove_library(module);
      return cudaErrorInvalidPtx;
    }
    *library = reinterpret_cast<cudaLibrary_t>(module);
    return cudaSuccess;
  });
}

cudaError_t cudaLibraryUnload(cudaLibrary_t library) {
  return api("cudaLibraryUnload", [&](Lock& lock) -> cudaError_t {
    if (!library_of(library)) return cudaErrorInvalidResourceHandle;
    wait_for_all(lock);
    remove_library(library_of(library));
    return cudaSuccess;
  });
}

cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t library, const char* name) {
  return api("cudaLibraryGetKernel", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(kernel && name);
    emulator::abi::Module* module = library_of(library);
    if (!module) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = load(*module)) return error;
    *kernel = reinterpret_cast<cudaKernel_t>(library_function(*module, name));
    return *kernel ? cudaSuccess : cudaErrorSymbolNotFound;
  });
}

cudaError_t cudaLibraryGetGlobal(void** pointer, size_t* bytes, cudaLibrary_t library, const char* name) {
  return api("cudaLibraryGetGlobal", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(name);
    emulator::abi::Module* module = library_of(library);
    if (!module) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = load(*module)) return error;
    const VariableInfo* variable = module->loaded->variable(name);
    if (!variable) return cudaErrorSymbolNotFound;
    if (pointer) *pointer = pointer_to(variable->address);
    if (bytes) *bytes = variable->bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaLibraryGetKernelCount(unsigned* count, cudaLibrary_t library) {
  return api("cudaLibraryGetKernelCount", [&](Lock&) -> cudaError_t {
    emulator::abi::Module* module = library_of(library);
    if (!module) return cudaErrorInvalidResourceHandle;
    EMULATOR_REQUIRE(count);
    if (const cudaError_t error = load(*module)) return error;
    *count = static_cast<unsigned>(module->loaded->kernels().size());
    return cudaSuccess;
  });
}
