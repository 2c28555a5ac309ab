#pragma once

/// What the generated stubs of exported functions that the stand-in lacks do: report the name, answer
/// CUDNN_STATUS_NOT_SUPPORTED.
extern "C" int emulator_cudnn_stub(const char* name);
