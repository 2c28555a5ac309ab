#pragma once

#include <memory>
#include <string>
#include <vector>

#include "abi/call.h"
#include "exec/launch.h"

/// What programs and their static initialisers tell the run-time about their device code.
namespace emulator::abi {

/// One fat binary of the program, or a library loaded with cudaLibraryLoadData. Loaded at the first use of
/// anything in it.
struct Module {
  const void* wrapper = nullptr;  // of nvcc; null: `text`
  std::string text;               // PTX of a loaded library
  std::unique_ptr<LoadedModule> loaded;
  std::string failure;  // why loading failed, told once and kept
};

/// A kernel of a module. Its address serves as cudaKernel_t and cudaFunction_t.
struct Function {
  Module* module = nullptr;
  std::string name;                   // in the PTX
  const Kernel* kernel = nullptr;     // set by load()
  int max_dynamic_shared = 48 << 10;  // bytes; cudaFuncAttributeMaxDynamicSharedMemorySize
  int carveout = -1;
  bool non_portable_cluster = false;
};

/// A __device__, __constant__ or __managed__ variable, by the address of its shadow in the host program.
struct Symbol {
  Module* module = nullptr;
  std::string name;
  std::size_t bytes = 0;
  void** managed = nullptr;  // the host's pointer to a managed variable
};

/// Loads the module; cudaSuccess or cudaErrorInvalidKernelImage.
cudaError_t load(Module& module);
/// The function that `pointer` means: the address of a host stub, a cudaKernel_t or a cudaFunction_t. Null if
/// it is none.
Function* find_function(const void* pointer);
/// As find_function, loaded. Errors: cudaErrorInvalidDeviceFunction, cudaErrorInvalidKernelImage.
cudaError_t loaded_function(const void* pointer, Function*& function);
/// The kernel's address and size of a symbol; cudaErrorInvalidSymbol if there is none.
cudaError_t find_symbol(const void* pointer, std::uint64_t& address, std::size_t& bytes);

/// A module from PTX text or a fat binary; owned by the registry until unload_library.
Module* add_library(std::string ptx);
bool remove_library(Module* module);
bool is_library(const Module* module);
/// The function `name` of a library, created at the first call; null: no such kernel.
Function* library_function(Module& module, const std::string& name);

/// Forgets what was loaded (cudaDeviceReset); the next use loads again.
void unload_all();

}  // namespace emulator::abi
