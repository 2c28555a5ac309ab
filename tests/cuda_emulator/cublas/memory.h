#pragma once

#include <cstdint>
#include <string>

#include "cublas/element.h"

namespace emulator::blas {

/// Matrices of a batch in device memory. Element (i, j) of matrix b: address + (b * batch_stride + i + j *
/// ld) elements (i and j change roles if row_major). Vectors are matrices of one column; vectors with
/// increments are row-major matrices of one column.
struct Matrix {
  const char* name = "";
  void* address = nullptr;
  Type type = Type::f32;
  std::int64_t rows = 0, columns = 0, ld = 0;
  bool row_major = false;
  std::int64_t batch_stride = 0;
  std::int64_t batch = 1;

  std::int64_t row_stride() const { return row_major ? ld : 1; }
  std::int64_t column_stride() const { return row_major ? 1 : ld; }
  /// Contiguous stretches and their length: columns, or rows if row_major.
  std::int64_t lines() const { return row_major ? rows : columns; }
  std::int64_t line_length() const { return row_major ? columns : rows; }
  /// Bytes from the first element to the end of the last one, over the whole batch.
  std::int64_t extent_bytes() const;
};

/// Throws Rejected (INVALID_VALUE) unless the matrix is aligned to its element size and lies in one live
/// object.
void require_memory(const Matrix& matrix);
/// Throws Rejected (INVALID_VALUE) if the two share bytes.
void require_disjoint(const Matrix& one, const Matrix& other);

/// The host address behind the matrix; null, and a report, if the memory is gone.
void* backing(const char* call, const Matrix& matrix);
/// Reports if somebody is about to read elements that nobody wrote.
void check_initialized(const char* call, const Matrix& matrix);
/// Marks all elements as written.
void mark_written(const Matrix& matrix);

/// A scalar argument: in host memory its value is taken at the call, in device memory when the work runs.
struct Scalar {
  const char* name = "";
  double value = 0;
  const void* device = nullptr;  // null: `value` counts
  Type type = Type::f32;

  bool is_zero_at_call() const { return device == nullptr && value == 0; }
  /// The value; reads device memory.
  double read(const char* call) const;
};

/// Throws Rejected if the pointer is null, or on the wrong side.
Scalar scalar_argument(const char* name, const void* pointer, Type type, bool on_device);

}  // namespace emulator::blas
