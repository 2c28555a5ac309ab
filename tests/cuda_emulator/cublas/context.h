#pragma once

#include <cublasLt.h>

#include <cstdint>

/// What a cublasLtHandle_t points to. A cublasHandle_t starts with one, so that either can be passed for it,
/// as in the real libraries.
struct cublasLtContext {
  std::uint64_t tag = 0;
};

namespace emulator::blas {

constexpr std::uint64_t kHandleTag = 0x656c646e61487443;  // in live handles only

/// Throws Rejected (NOT_INITIALIZED) unless the handle is live.
void require_handle(const cublasLtContext* handle);

/// "CUBLAS_STATUS_INVALID_VALUE", …; and the same in words.
const char* status_name(cublasStatus_t status);
const char* status_words(cublasStatus_t status);

/// The library's own version parts. Throws Rejected for unknown parts.
int version_part(libraryPropertyType type);

}  // namespace emulator::blas
