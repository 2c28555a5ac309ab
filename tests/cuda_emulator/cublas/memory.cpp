#include "cublas/memory.h"

#include <algorithm>

#include "cublas/report.h"

namespace emulator::blas {
namespace {

std::int64_t elements_in_one(const Matrix& matrix) {
  return matrix.rows == 0 || matrix.columns == 0 ? 0
                                                 : (matrix.lines() - 1) * matrix.ld + matrix.line_length();
}

/// Calls visit(address, bytes) for every contiguous stretch until it answers false.
template <class Visit>
void each_line(const Matrix& matrix, Visit visit) {
  const auto size = static_cast<std::int64_t>(bytes_of(matrix.type));
  const bool dense = matrix.ld == matrix.line_length() || matrix.lines() == 1;
  const std::int64_t lines = dense ? 1 : matrix.lines();
  const std::int64_t length = dense ? elements_in_one(matrix) : matrix.line_length();
  for (std::int64_t b = 0; b < matrix.batch; ++b) {
    for (std::int64_t line = 0; line < lines && length > 0; ++line) {
      auto* begin = static_cast<char*>(matrix.address) + (b * matrix.batch_stride + line * matrix.ld) * size;
      if (!visit(begin, static_cast<std::size_t>(length * size))) return;
    }
  }
}

}  // namespace

std::int64_t Matrix::extent_bytes() const {
  const std::int64_t one = elements_in_one(*this);
  return one == 0 ? 0 : ((batch - 1) * batch_stride + one) * static_cast<std::int64_t>(bytes_of(type));
}

void require_memory(const Matrix& matrix) {
  const auto size = bytes_of(matrix.type);
  const std::int64_t bytes = matrix.extent_bytes();
  if (bytes == 0) return;
  require_valid(matrix.address != nullptr, matrix.name, ": the pointer is null");
  require_valid(reinterpret_cast<std::uintptr_t>(matrix.address) % size == 0, matrix.name, ": the address ",
                matrix.address, " is not a multiple of the ", size, "-byte element");
  require_valid(host::device_range(matrix.address, static_cast<std::size_t>(bytes)) != nullptr, matrix.name,
                ": ", bytes, " bytes at ", matrix.address,
                " do not lie in one live allocation of the device");
}

void require_disjoint(const Matrix& one, const Matrix& other) {
  const auto begin = reinterpret_cast<std::uintptr_t>(one.address);
  const auto other_begin = reinterpret_cast<std::uintptr_t>(other.address);
  const auto bytes = static_cast<std::uintptr_t>(one.extent_bytes());
  const auto other_bytes = static_cast<std::uintptr_t>(other.extent_bytes());
  const bool disjoint =
      bytes == 0 || other_bytes == 0 || begin + bytes <= other_begin || other_begin + other_bytes <= begin;
  require_valid(disjoint, one.name, " [", one.address, " + ", bytes, " bytes] overlaps ", other.name, " [",
                other.address, " + ", other_bytes, " bytes]");
}

void* backing(const char* call, const Matrix& matrix) {
  const std::int64_t bytes = matrix.extent_bytes();
  void* host_address = host::device_range(matrix.address, static_cast<std::size_t>(bytes));
  if (host_address == nullptr) {
    report(call, text(matrix.name, ": ", bytes, " bytes at ", matrix.address,
                      " were live at the call but not when the work ran"));
  }
  return host_address;
}

void check_initialized(const char* call, const Matrix& matrix) {
  std::int64_t line = 0;
  bool reported = false;
  each_line(matrix, [&](const void* begin, std::size_t bytes) {
    const bool written = host::is_initialized(begin, bytes);
    if (!written) host::poison_unwritten(begin, bytes);
    if (!written && !reported) {
      reported = true;
      report(call, text(matrix.name, ": reads bytes that nobody wrote, in the ", bytes, " bytes at ", begin,
                        " (stretch ", line, " of a matrix of ", matrix.rows, " rows and ", matrix.columns,
                        " columns, ", name_of(matrix.type), ")"));
    }
    ++line;
    return true;
  });
}

void mark_written(const Matrix& matrix) {
  each_line(matrix, [](const void* begin, std::size_t bytes) {
    host::mark_initialized(begin, bytes);
    return true;
  });
}

double Scalar::read(const char* call) const {
  if (device == nullptr) return value;
  const Matrix place{
      .name = name, .address = const_cast<void*>(device), .type = type, .rows = 1, .columns = 1, .ld = 1};
  const void* host_address = backing(call, place);
  if (host_address == nullptr) return 0;
  check_initialized(call, place);
  return load_one(type, host_address);
}

Scalar scalar_argument(const char* name, const void* pointer, Type type, bool on_device) {
  require_valid(pointer != nullptr, name, ": the pointer is null");
  if (on_device) {
    require_memory({.name = name,
                    .address = const_cast<void*>(pointer),
                    .type = type,
                    .rows = 1,
                    .columns = 1,
                    .ld = 1});
    return {.name = name, .device = pointer, .type = type};
  }
  require_valid(!host::is_device_pointer(pointer), name, ": ", pointer,
                " is an address of the device, but the pointer mode is HOST");
  return {.name = name, .value = load_one(type, pointer), .type = type};
}

}  // namespace emulator::blas
