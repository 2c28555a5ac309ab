#pragma once

/// What the generated stubs of exported functions that the stand-ins lack do: report the name, answer
/// CUBLAS_STATUS_NOT_SUPPORTED.
extern "C" int emulator_cublas_stub(const char* name);
