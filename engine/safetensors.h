#pragma once

#include <memory>
#include <string>

#include "engine/tensor_file.h"

namespace dino {

/// Reads a safetensors file (https://github.com/huggingface/safetensors, "Format"). The tensors point into
/// the mapped file. Strict: the header must be at most 100 MB of JSON with nothing but the fields of the
/// format, names must be unique, and the offsets must cover the data without holes and overlaps. Throws
/// FormatError with path and field; UsageError if the file cannot be opened.
TensorFile load_safetensors(const std::string& path);

/// The same for bytes in memory, which `owner` keeps alive; `path` is for messages only.
TensorFile read_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                            const std::string& path);

/// Writes the tensors in their order, atomically. Equal input gives equal bytes. Throws FormatError on a
/// repeated name or bytes that do not match the shape, Error if the file cannot be written.
void save_safetensors(const std::string& path, const TensorFile& file);

}  // namespace dino
