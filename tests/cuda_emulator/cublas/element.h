#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator::blas {

/// The element types that the stand-ins compute with; `none` is every other cudaDataType.
enum class Type : std::uint8_t { f16, bf16, f32, f64, none };

/// Size of one element in bytes.
constexpr std::size_t bytes_of(Type type) { return type == Type::f64 ? 8 : type == Type::f32 ? 4 : 2; }

/// "f16", "bf16", … for messages.
const char* name_of(Type type);

/// The type that a cudaDataType value stands for; `none` where it is not emulated.
Type type_of(int cuda_data_type);

/// to[i] = from[i * stride], converted; i < count. Real is float or double.
template <class Real>
void load(Type type, const void* from, std::int64_t stride, std::int64_t count, Real* to);

/// to[i * stride] = from[i], rounded to nearest even; i < count.
template <class Real>
void store(Type type, void* to, std::int64_t stride, std::int64_t count, const Real* from);

/// One element, as a double.
double load_one(Type type, const void* from);

/// How f32 inputs lose precision on their way to a tensor core.
enum class InputRounding : std::uint8_t { none, tf32, bf16, f16 };

/// Rounds values[0 .. count) in place: tf32 keeps 10 bits of the mantissa (ties away from zero, as
/// cvt.rna.tf32.f32), the others round to nearest even.
void round_inputs(InputRounding rounding, float* values, std::int64_t count);

}  // namespace emulator::blas
