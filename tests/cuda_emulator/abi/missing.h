#pragma once

namespace emulator::abi {

/// What a function of the run-time that the emulator does not define does: reports it, returns
/// cudaErrorNotSupported.
int missing(const char* name);

}  // namespace emulator::abi
