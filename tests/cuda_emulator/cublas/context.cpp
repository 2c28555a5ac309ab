#include "cublas/context.h"

#include "cublas/report.h"

namespace emulator::blas {
namespace {

struct StatusText {
  cublasStatus_t status;
  const char *name, *words;
};

constexpr StatusText kStatusTexts[] = {
    {CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
    {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
    {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE",
     "an unsupported value or parameter was passed to the function"},
    {CUBLAS_STATUS_ARCH_MISMATCH, "CUBLAS_STATUS_ARCH_MISMATCH", "the device lacks a required feature"},
    {CUBLAS_STATUS_MAPPING_ERROR, "CUBLAS_STATUS_MAPPING_ERROR", "an access to GPU memory space failed"},
    {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED", "the GPU program failed to execute"},
    {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
    {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED", "the functionality is not supported"},
    {CUBLAS_STATUS_LICENSE_ERROR, "CUBLAS_STATUS_LICENSE_ERROR", "the license check failed"},
};

}  // namespace

void require_handle(const cublasLtContext* handle) {
  require(handle != nullptr, CUBLAS_STATUS_NOT_INITIALIZED, "the handle is null");
  require(handle->tag == kHandleTag, CUBLAS_STATUS_NOT_INITIALIZED, "the handle ",
          static_cast<const void*>(handle), " was not created, or was destroyed");
}

const char* status_name(cublasStatus_t status) {
  for (const StatusText& text : kStatusTexts) {
    if (text.status == status) return text.name;
  }
  return "unknown status";
}

const char* status_words(cublasStatus_t status) {
  for (const StatusText& text : kStatusTexts) {
    if (text.status == status) return text.words;
  }
  return "unknown status";
}

int version_part(libraryPropertyType type) {
  switch (type) {
    case MAJOR_VERSION:
      return CUBLAS_VER_MAJOR;
    case MINOR_VERSION:
      return CUBLAS_VER_MINOR;
    case PATCH_LEVEL:
      return CUBLAS_VER_PATCH;
  }
  throw Rejected{CUBLAS_STATUS_INVALID_VALUE, text("there is no property ", static_cast<int>(type))};
}

}  // namespace emulator::blas
