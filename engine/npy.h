#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor_file.h"

namespace dino {

/// Writes an array as NumPy's .npy version 1.0 (numpy/lib/format.py), row-major, atomically. `shape` has at
/// most 4 axes, for example [images, dim]; `bytes` holds f64, f32, f16, i64, i32 or u8. Throws FormatError if
/// the bytes do not match the shape or NumPy has no such dtype (bf16), Error if the file cannot be written.
/// The name is not stored.
void save_npy(const std::string& path, const NamedTensor& array);
void save_npy(const std::string& path, std::span<const float> values, std::vector<int64_t> shape);
void save_npy(const std::string& path, std::span<const int64_t> values, std::vector<int64_t> shape);

/// What the file says before its values.
struct NpyHeader {
  std::string descr;  ///< NumPy's name of the type, such as "<f4"
  std::vector<int64_t> shape;
  size_t data_offset = 0;
};

/// Reads the header of an array of any type, row-major. Throws FormatError with path and field.
NpyHeader read_npy_header(std::span<const std::byte> bytes, const std::string& path);

/// Reads what `save_npy` writes, and the same from NumPy. The values point into the mapped file. Throws
/// FormatError with path and field, also for column-major and big-endian arrays; UsageError if the file
/// cannot be opened.
NamedTensor load_npy(const std::string& path);

/// The same for bytes in memory, which `owner` keeps alive; `path` is for messages only.
NamedTensor read_npy(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                     const std::string& path);

}  // namespace dino
