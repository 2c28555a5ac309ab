#pragma once

#include <catch2/catch.hpp>

#include "tests/op_harness.h"

/// What tests of ops compare with.
namespace dino::test {

inline double epsilon(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return std::numeric_limits<double>::epsilon();
    case Dtype::bf16:
      return 0x1p-7;
    default:
      return static_cast<double>(std::numeric_limits<float>::epsilon());
  }
}

/// Calls body(case, inputs, place) for every small case of O.
template <class O, class Body>
void for_cases(Dtype dtype, const Body& body) {
  size_t index = 0;
  for (const Case<O>& c : O::cases(Tiny{})) {
    const std::string where = place<O>(index++, dtype);
    INFO(where);
    body(c, make_inputs(c, dtype), where);
  }
}

inline double largest(const Buffer& x) {
  double result = 0;
  for (int64_t i = 0; i < x.count(); ++i) result = std::max(result, std::abs(x.at(i)));
  return result;
}

/// max |a − b|; infinite if one is NaN where the other is not.
inline double distance(const Buffer& a, const Buffer& b) {
  double result = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    const double difference = std::abs(a.at(i) - b.at(i));
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    result = std::max(result, difference);
  }
  return result;
}

/// Copies with every element off by up to one rounding of `dtype`.
inline Buffers rounded_otherwise(const Buffers& buffers, uint32_t draw, Dtype dtype) {
  Buffers result = copies(buffers);
  Draws draws(300, draw);
  for (Buffer& buffer : result)
    for (int64_t i = 0; buffer.is_float() && i < buffer.count(); ++i)
      buffer.set(i, buffer.at(i) * (1 + (2 * draws.uniform() - 1) * epsilon(dtype)));
  return result;
}

/// Copies in which everything that is not kept is NaN.
inline Buffers overwritten(const Buffers& values, uint32_t kept) {
  Buffers result = copies(values);
  for (size_t i = 0; i < result.size(); ++i)
    if (result[i].defined() && !(kept >> i & 1)) result[i].fill_with_nan();
  return result;
}

/// Views in which what is not kept has a shape but no data.
inline std::vector<View> absent(const Buffers& values, uint32_t kept) {
  std::vector<View> result;
  for (size_t i = 0; i < values.size(); ++i)
    result.push_back(kept >> i & 1 ? values[i].view() : values[i].without_data());
  return result;
}

}  // namespace dino::test
