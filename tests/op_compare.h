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

/// Calls body(variant, inputs) for every small case of O and all its variants.
template <class O, class Body>
void for_variants(std::initializer_list<Dtype> dtypes, const Body& body) {
  size_t index = 0;
  for (const Case<O>& c : O::cases(Tiny{})) {
    for (const Variant<O>& variant : variants(c.op, dtypes)) {
      INFO(O::kName << " case " << index << ", " << variant.name);
      body(variant, make_inputs(c, variant.dtype));
    }
    ++index;
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

/// Outputs and gradients of one run.
struct Results {
  Buffers out, din;
};

/// What results are compared with: the exact ones of the CPU in f64, and those of inputs that were rounded
/// otherwise, which say how well the problem is conditioned.
template <class O>
struct Expected {
  Results exact;
  std::array<Results, 3> others;

  Expected(const Variant<O>& variant, CpuStream& stream, const Buffers& in, const Buffers& dout) {
    O op = variant.op;
    if constexpr (requires { op.output; }) op.output = Dtype::none;
    const auto run = [&](const Buffers& given, const Buffers& gradients) {
      Results results{forward(op, stream, given), {}};
      if constexpr (DifferentiableOp<O>) results.din = backward(op, stream, given, results.out, gradients);
      return results;
    };
    Buffers exact_in, exact_dout;
    for (const Buffer& buffer : in) exact_in.push_back(buffer.as(Dtype::f64));
    for (const Buffer& buffer : dout) exact_dout.push_back(buffer.as(Dtype::f64));
    exact = run(exact_in, exact_dout);
    for (uint32_t draw = 0; draw < others.size(); ++draw)
      others[draw] = run(rounded_otherwise(exact_in, draw, variant.dtype),
                         rounded_otherwise(exact_dout, draw + 100, variant.dtype));
  }
};

/// A plain kernel errs about as much as an exact one whose inputs were rounded otherwise, plus a rounding of
/// the result. `got` may err twice as much. `plain`, if there is one, is the result of such a kernel.
template <class O>
void check_close(const Buffers& got, const Expected<O>& expected, Buffers Results::*which,
                 const Results* plain, Dtype dtype, const auto& names) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (!got[i].defined()) continue;
    INFO(names[i]);
    const Buffer& exact = (expected.exact.*which)[i];
    if (!got[i].is_float()) {
      CHECK(got[i].equal_bits(exact));
      continue;
    }
    double error = plain ? distance((plain->*which)[i], exact) : 0;
    for (const Results& other : expected.others) error = std::max(error, distance((other.*which)[i], exact));
    const double bound = 2 * (error + epsilon(dtype) * largest(exact));
    INFO("error " << distance(got[i], exact) << ", bound " << bound << ", largest " << largest(exact));
    CHECK(distance(got[i], exact) <= bound);
  }
}

/// Roundings by which a sum into what was there may differ from the sum of both: the terms are the same, but
/// may be added up in another order, in at least f32.
inline double sum_roundings(Dtype dtype) { return dtype == Dtype::bf16 ? 2 : 16; }

}  // namespace dino::test
