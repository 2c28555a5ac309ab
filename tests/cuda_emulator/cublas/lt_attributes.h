#pragma once

#include <cstddef>
#include <span>

/// Attributes of descriptors: where in the object each lies.
namespace emulator::blas {

struct Attribute {
  int id;
  std::size_t offset, bytes;
  bool read_only = false;
};

/// Both throw Rejected (INVALID_VALUE) for unknown attributes, null buffers and sizes that are not the
/// attribute's.
void set_attribute(std::span<const Attribute> attributes, void* object, int id, const void* value,
                   std::size_t bytes);
/// With `bytes` 0 only tells the size.
void get_attribute(std::span<const Attribute> attributes, const void* object, int id, void* value,
                   std::size_t bytes, std::size_t* written);

/// Hands out `available` bytes of `from` by the rules of the library's getters. `array`: the caller may have
/// room for more, or take fewer whole elements.
void give_value(const void* from, std::size_t available, void* value, std::size_t bytes, std::size_t* written,
                bool array = false);

}  // namespace emulator::blas
