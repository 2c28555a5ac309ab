#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "kernels/bfloat16.h"
#include "kernels/error.h"

namespace dino {

/// Element types of tensors and of tensor files. `none` marks an absent optional input.
enum class Dtype : uint8_t { none, f64, f32, bf16, f16, i64, i32, u8 };

/// Bytes of one element.
constexpr size_t bytes_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64: case Dtype::i64: return 8;
    case Dtype::f32: case Dtype::i32: return 4;
    case Dtype::bf16: case Dtype::f16: return 2;
    case Dtype::u8: return 1;
    case Dtype::none: break;
  }
  return 0;
}

constexpr std::string_view name_of(Dtype dtype) {
  constexpr std::string_view names[] = {"none", "f64", "f32", "bf16", "f16", "i64", "i32", "u8"};
  return names[static_cast<int>(dtype)];
}

template <class T> inline constexpr Dtype kDtypeOf = Dtype::none;
template <> inline constexpr Dtype kDtypeOf<double> = Dtype::f64;
template <> inline constexpr Dtype kDtypeOf<float> = Dtype::f32;
template <> inline constexpr Dtype kDtypeOf<BFloat16> = Dtype::bf16;
template <> inline constexpr Dtype kDtypeOf<int64_t> = Dtype::i64;
template <> inline constexpr Dtype kDtypeOf<int32_t> = Dtype::i32;
template <> inline constexpr Dtype kDtypeOf<uint8_t> = Dtype::u8;

/// What stands for `dtype` where bf16 is too coarse: the dtype of parameters, statistics and sums.
constexpr Dtype wide(Dtype dtype) { return dtype == Dtype::bf16 ? Dtype::f32 : dtype; }

/// Calls `f` with a value of the floating-point C++ type of `dtype`, which must be f64 or f32:
/// `with_float(dtype, [&](auto zero) { using T = decltype(zero); … })`.
template <class F>
decltype(auto) with_float(Dtype dtype, F&& f) {
  if (dtype == Dtype::f64) return std::forward<F>(f)(double{});
  check(dtype == Dtype::f32, "the CPU computes in f32 or f64; got ", name_of(dtype));
  return std::forward<F>(f)(float{});
}

/// The same, and BFloat16 for bf16: for ops that have code of their own for it on the CPU.
template <class F>
decltype(auto) with_real(Dtype dtype, F&& f) {
  if (dtype == Dtype::bf16) return std::forward<F>(f)(BFloat16{});
  return with_float(dtype, std::forward<F>(f));
}

}  // namespace dino
