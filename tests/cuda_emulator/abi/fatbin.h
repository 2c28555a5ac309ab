#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace emulator::abi {

/// Why a fat binary cannot be used, and what to do.
class FatbinError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The PTX text for a device of compute capability `arch` (80 = 8.0) inside of what nvcc hands to
/// __cudaRegisterFatBinary: the exact match, else the highest below it. The text lies in the binary's own
/// data. Layout: docs of the wrapper in fatbin.cpp. Throws FatbinError.
std::string_view ptx_in_wrapper(const void* wrapper, int arch);
/// The same for a bare fat binary (cudaLibraryLoadData) of at most `bytes` bytes; 0: trust its header.
std::string_view ptx_in_fatbin(const void* fatbin, std::size_t bytes, int arch);

}  // namespace emulator::abi
