#include <catch2/catch.hpp>

#include <linux/limits.h>
#include <unistd.h>

#include <cmath>

#include "tests/conformance.h"
#include "tests/exact.h"

// The approximate instructions. Without noise they must be as good as correctly rounded, within 0.1 ulp; with
// noise (CUDA_EMULATOR_NOISE=1, for which this program runs itself again) within the bounds of the PTX ISA.
// References: long double functions of the C library.
namespace {

using namespace emulator::conformance;
namespace exact = emulator::exact;
using exact::Format;

/// What an instruction may deviate from the exact value y at operand x.
using Bound = std::function<long double(long double x, long double y)>;
using Function = long double (*)(long double);

long double ulp(Format f, long double y) {
  if (y == 0 || !std::isfinite(y)) return std::ldexp(1.0L, f.smallest_exponent());
  const int exponent = std::max(std::ilogb(y) - f.fraction_bits, f.smallest_exponent());
  return std::ldexp(1.0L, exponent);
}

Bound one_ulp() {
  return [](long double, long double y) { return ulp(exact::kF32, y); };
}
Bound relative(double bound) {
  return [bound](long double, long double y) { return bound * std::fabs(y); };
}
Bound absolute(double bound) {
  return [bound](long double, long double) { return bound; };
}

/// Values of the ISA's tables and random ones; `low` to `high` are exponents of two between which most of the
/// random magnitudes lie.
std::vector<Row> operands(Format f, int low, int high, std::size_t count) {
  const std::uint64_t normal = std::uint64_t(1) << f.fraction_bits, one = static_cast<std::uint64_t>(f.bias())
                                                                          << f.fraction_bits;
  std::vector<std::uint64_t> values;
  for (const std::uint64_t positive : {std::uint64_t(0), std::uint64_t(1), normal - 1, normal, one - 1, one,
                                       one + 1, f.infinity() - 1, f.infinity(), f.infinity() + 1, f.nan()}) {
    values.push_back(positive);
    values.push_back(positive | f.sign());
  }
  for (int i = -160; i <= 160; ++i) values.push_back(exact::encode(f, i, exact::Mode::nearest));
  std::vector<Row> rows = crossed(values, 1, count);
  for (std::size_t i = values.size(); i < rows.size(); ++i) {
    if (i % 8 == 0) continue;
    const auto exponent = static_cast<std::uint64_t>(low + f.bias()) +
                          (rows[i][0] >> 40) % static_cast<std::uint64_t>(high - low);
    rows[i][0] = (rows[i][0] & (f.sign() | (normal - 1))) | exponent << f.fraction_bits;
  }
  return rows;
}

/// How far a result is from the exact value and whether that is all right. Special values must be exact.
struct Judge {
  Format f;
  bool ftz;
  Function function;
  Bound documented;
  bool noise;
  std::size_t* moved;  // counts results that are not the nearest number

  bool operator()(const Row& in, const Row&, const Row& got) const {
    const std::uint64_t operand = in[0] & (2 * f.sign() - 1), result = got[0] & (2 * f.sign() - 1);
    const long double x = exact::decode(f, ftz ? f.flushed(operand) : operand), y = function(x);
    if (std::isnan(y)) return result == f.nan();
    const auto nearest = exact::encode(f, static_cast<double>(y), exact::Mode::nearest);
    const std::uint64_t expected = ftz ? f.flushed(nearest) : nearest;
    if (std::isinf(y) || y == 0 || x == 0) return result == expected;
    if (result == expected) return true;
    ++*moved;
    const long double value = exact::decode(f, result),
                      least = std::ldexp(1.0L, f.smallest_exponent() + f.fraction_bits);
    const bool overflow = std::isinf(value) && std::fabs(y) > exact::decode(f, f.largest()) * (1 - 1e-6L);
    const bool flushed = ftz && value == 0 && std::fabs(y) < least * (1 + 0x1p-20L);
    const long double rounding = std::fabs(y) < least
                                     ? 0.5L * ulp(f, y)
                                     : 0;  // relative bounds do not count it where numbers are subnormal
    const long double allowed = noise ? documented(x, y) + rounding : 0.6L * ulp(f, y);
    return overflow || flushed || (std::fabs(value - y) <= allowed && !(ftz && f.is_subnormal(result)));
  }
};

bool noisy() { return emulator::options().noise; }

std::string check(const std::string& opcode, Format f, Function function, const Bound& documented, int low,
                  int high, std::size_t count = 200000) {
  const bool ftz = opcode.find(".ftz") != std::string::npos;
  std::size_t moved = 0;
  Form form{opcode, f.fraction_bits == 23 ? "r=r" : "h=h", [](const Row&, Row&) {},
            Judge{f, ftz, function, documented, noisy(), &moved}};
  std::string wrong = mismatches(form, operands(f, low, high, count));
  if (noisy() && f.fraction_bits == 23 && moved < count / 8)
    wrong += opcode + ": noise moves only " + std::to_string(moved) + " results\n";
  if (!noisy() && moved > count / 50)
    wrong += opcode + ": " + std::to_string(moved) + " results are not the nearest number\n";
  return wrong;
}

long double reciprocal(long double x) { return 1 / x; }
long double reciprocal_root(long double x) { return 1 / std::sqrt(x); }
long double logarithm(long double x) { return x < 0 ? NAN : std::log2(x); }

long double sine_bound(long double x, long double) {
  return std::fabs(x) <= 6.2831853071L ? 0x1.6a09e6p-21L : 0x1p-14L;
}

constexpr int kWhole = 127;

}  // namespace

TEST_CASE("special: approximate reciprocals and roots are as exact as promised", "[approximate]") {
  CHECK(check("rcp.approx.f32", exact::kF32, reciprocal, one_ulp(), -126, kWhole) == "");
  CHECK(check("rcp.approx.ftz.f32", exact::kF32, reciprocal, one_ulp(), -126, kWhole) == "");
  CHECK(check("sqrt.approx.f32", exact::kF32, std::sqrt, relative(0x1p-23), -126, kWhole) == "");
  CHECK(check("sqrt.approx.ftz.f32", exact::kF32, std::sqrt, relative(0x1p-23), -126, kWhole) == "");
  CHECK(check("rsqrt.approx.f32", exact::kF32, reciprocal_root, relative(0x1.126p-23), -126, kWhole) == "");
  CHECK(check("rsqrt.approx.ftz.f32", exact::kF32, reciprocal_root, relative(0x1.126p-23), -126, kWhole) ==
        "");
}

TEST_CASE("special: ex2 and lg2 are as exact as promised", "[approximate]") {
  CHECK(check("ex2.approx.f32", exact::kF32, std::exp2, relative(0x1p-22), -10, 7) == "");
  CHECK(check("ex2.approx.ftz.f32", exact::kF32, std::exp2, relative(0x1p-22), -10, 7) == "");
  const Bound bound = [](long double x, long double y) {
    return x > 0.5L && x < 2 ? 0x1p-22L : 0x1p-22L * std::fabs(y);
  };
  CHECK(check("lg2.approx.f32", exact::kF32, logarithm, bound, -126, kWhole) == "");
  CHECK(check("lg2.approx.ftz.f32", exact::kF32, logarithm, bound, -2, 2) == "");
}

TEST_CASE("special: sin and cos are as exact as promised", "[approximate]") {
  CHECK(check("sin.approx.f32", exact::kF32, std::sin, sine_bound, -12, 5) == "");
  CHECK(check("sin.approx.ftz.f32", exact::kF32, std::sin, sine_bound, 10, kWhole) == "");
  CHECK(check("cos.approx.f32", exact::kF32, std::cos, sine_bound, -12, 5) == "");
  CHECK(check("cos.approx.ftz.f32", exact::kF32, std::cos, sine_bound, 10, kWhole) == "");
}

TEST_CASE("special: tanh is as exact as promised", "[approximate]") {
  CHECK(check("tanh.approx.f32", exact::kF32, std::tanh, relative(0x1p-11), -14, 4) == "");
}

TEST_CASE("special: ex2 and tanh of half precision are as exact as promised", "[approximate]") {
  CHECK(check("ex2.approx.f16", exact::kF16, std::exp2, relative(0x1.126p-10), -10, 4) == "");
  CHECK(check("ex2.approx.ftz.bf16", exact::kBf16, std::exp2, relative(0x1p-7), -10, 7) == "");
  CHECK(check("tanh.approx.f16", exact::kF16, std::tanh, absolute(0x1.0252p-11), -14, 3) == "");
  CHECK(check("tanh.approx.bf16", exact::kBf16, std::tanh, relative(0x1p-8), -14, 3) == "");
}

TEST_CASE("special: approximate quotients are as exact as promised", "[approximate]") {
  const std::vector<Row> rows = [] {
    std::vector<std::uint64_t> values;
    for (const Row& row : operands(exact::kF32, -1, 1, 0)) values.push_back(row[0]);
    for (const std::uint64_t large : {0x7e800000u, 0x7e800001u, 0xff000000u, 0x7f000000u})
      values.push_back(large);  // 2^126 and beyond
    return crossed(values, 2, 50000);
  }();
  for (const std::string opcode :
       {"div.approx.f32", "div.approx.ftz.f32", "div.full.f32", "div.full.ftz.f32"}) {
    const bool ftz = opcode.find("ftz") != std::string::npos, full = opcode.find("full") != std::string::npos;
    const Accept accept = [=](const Row& in, const Row&, const Row& got) {
      const Format f = exact::kF32;
      const double a = exact::decode(f, ftz ? f.flushed(in[0]) : in[0]),
                   b = exact::decode(f, ftz ? f.flushed(in[1]) : in[1]);
      std::uint64_t expected = exact::divide(f, a, b, exact::Mode::nearest);
      if (!full && std::fabs(b) > 0x1p126 && std::isfinite(b))
        expected = std::isfinite(a) ? expected & f.sign() : f.nan();
      if (std::isnan(a) || std::isnan(b)) expected = f.nan();
      if (ftz) expected = f.flushed(expected);
      const auto magnitude = [](std::uint64_t bits) { return static_cast<std::int64_t>(bits & 0x7fffffffu); };
      const std::int64_t apart = std::llabs(magnitude(expected) - magnitude(got[0]));
      const bool at_the_edge = ftz && magnitude(expected) <= 0x800002 && magnitude(got[0]) <= 0x800002;
      const bool same_kind =
          f.is_nan(expected) ? got[0] == f.nan() : (expected & f.sign()) == (got[0] & f.sign());
      return same_kind && (apart <= (noisy() ? 2 : 0) || (noisy() && at_the_edge));
    };
    CHECK(mismatches({opcode, "r=rr", [](const Row&, Row&) {}, accept}, rows) == "");
  }
}

TEST_CASE("special: approximate functions of f64 start an iteration well", "[approximate]") {
  const auto judge = [](long double (*function)(long double), bool upper_half) -> Accept {
    return [=](const Row& in, const Row&, const Row& got) {
      const Format f = exact::kF64;
      const std::uint64_t kept = upper_half ? in[0] >> 32 << 32 : in[0];
      const double x = exact::decode(f, upper_half ? f.flushed(kept) : kept),
                   y = static_cast<double>(function(x));
      const double result = exact::decode(f, got[0]);
      if (upper_half && (got[0] & 0xffffffffu) != 0) return false;
      if (std::isnan(y)) return std::isnan(result);
      if (std::isinf(y) || y == 0) return result == y && std::signbit(result) == std::signbit(y);
      if (upper_half && std::fabs(y) < 0x1.00001p-1022)
        return std::fabs(result) < 0x1.00002p-1022 && std::signbit(result) == std::signbit(y);
      return std::fabs(result - y) <= 0x1p-19 * std::fabs(y);
    };
  };
  const std::vector<Row> rows = operands(exact::kF64, -1022, 1023, 20000);
  const auto nothing = [](const Row&, Row&) {};
  CHECK(mismatches({"rcp.approx.ftz.f64", "d=d", nothing, judge(reciprocal, true)}, rows) == "");
  CHECK(mismatches({"rsqrt.approx.ftz.f64", "d=d", nothing, judge(reciprocal_root, true)}, rows) == "");
  CHECK(mismatches({"rsqrt.approx.f64", "d=d", nothing, judge(reciprocal_root, false)}, rows) == "");
}

TEST_CASE("special: noise stays within the documented bounds") {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self);
  REQUIRE(length > 0);
  const std::string command = "CUDA_EMULATOR_NOISE=1 '" +
                              std::string(self, static_cast<std::size_t>(length)) +
                              "' '[approximate]' >/dev/null";
  CHECK(std::system(command.c_str()) == 0);
}
