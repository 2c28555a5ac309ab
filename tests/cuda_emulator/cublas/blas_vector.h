#pragma once

#include <vector>

#include "cublas/blas_context.h"

namespace emulator::blas {

/// A vector argument: a matrix of one column whose rows are |increment| apart; a negative increment starts at
/// the far end.
struct Vector {
  Matrix place;
  bool reversed = false;
};

/// Throws Rejected unless the vector lies in live memory and the increment is not 0.
Vector vector_argument(const char* name, const void* address, Type type, std::int64_t n,
                       std::int64_t increment);

/// The elements, with a report if nobody wrote some; empty, and a report, if the memory has gone.
std::vector<double> read(const char* call, const Vector& vector);
/// Rounds to the vector's type, and marks as written.
void write(const char* call, const Vector& vector, const std::vector<double>& values);

/// A result of one number: on the host or the device, by the handle's pointer mode. Throws Rejected.
struct Result {
  void* address;
  bool on_device;
  bool is_index;  // int (or int64 if `wide`), else of `type`
  bool wide;
  Type type;

  void set(const char* call, double value) const;
};
Result result_argument(const cublasContext* handle, void* address, Type type, bool is_index, bool wide);

}  // namespace emulator::blas
