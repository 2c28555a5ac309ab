#include "abi/missing.h"

#include "abi/call.h"

int emulator::abi::missing(const char* name) { return leave(name, not_supported(name)); }
