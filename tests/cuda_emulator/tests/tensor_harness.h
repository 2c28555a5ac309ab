#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check/finding.h"
#include "exec/launch.h"
#include "memory/device_memory.h"

/// What the tests of tensor instructions share: a kernel of a few lines of PTX, and matrices of random
/// numbers with a naive product.
namespace tensor_test {

using namespace emulator;

// ---- running a piece of PTX ----

struct Buffer {
  explicit Buffer(std::size_t size)
      : address(DeviceMemory::instance().allocate(size, MemoryKind::device)), bytes(size) {
    std::memset(host<std::uint8_t>(), 0xee, bytes);
    DeviceMemory::instance().mark_initialized(address, bytes);
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { DeviceMemory::instance().release(address); }
  template <class T>
  T* host() {
    return reinterpret_cast<T*>(DeviceMemory::instance().host(address, bytes));
  }
  std::uint64_t address, bytes;
};

inline std::string module_text(const std::string& body) {
  return ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry test(.param .u64 p_in, .param .u64 "
         "p_out) {\n"
         ".reg .b32 %r<64>; .reg .b64 %rd<64>; .reg .f32 %f<64>; .reg .f64 %d<64>; .reg .pred "
         "%p<4>;\n.shared .align 128 .b8 tile[4096];\n"
         "ld.param.u64 %rd0, [p_in];\nld.param.u64 %rd1, [p_out];\nmov.u32 %r0, %laneid;\n" +
         body + "ret;\n}\n";
}

inline int run(const std::string& body, Buffer& in, Buffer& out, std::uint32_t threads = 32) {
  const LoadedModule module(module_text(body));
  const Kernel* kernel = module.kernel("test");
  REQUIRE(kernel != nullptr);
  REQUIRE(info(*kernel).unsupported == "");
  LaunchConfig config;
  config.block[0] = threads;
  std::uint64_t arguments[] = {in.address, out.address};
  return run_kernel(*kernel, config, {reinterpret_cast<const std::uint8_t*>(arguments), sizeof arguments})
      .error;
}

/// Why a kernel with this instruction is refused; "": it is not.
inline std::string refusal(const std::string& body) {
  const LoadedModule module(module_text(body));
  return info(*module.kernel("test")).unsupported;
}

// ---- numbers ----

inline std::mt19937& random_bits() {
  static std::mt19937 generator(7);
  return generator;
}

inline double decode_float(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1,
            exponent = static_cast<int>(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const double fraction =
      static_cast<double>(bits & ((1u << fraction_bits) - 1)) / static_cast<double>(1u << fraction_bits);
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  return (bits >> (exponent_bits + fraction_bits) & 1u) != 0 ? -magnitude : magnitude;
}

enum class Type { f16, bf16, tf32, f32, f64, s8, u8, s4, u4, b1, s32 };
inline int bits_of(Type type) {
  switch (type) {
    case Type::f16:
    case Type::bf16:
      return 16;
    case Type::s8:
    case Type::u8:
      return 8;
    case Type::s4:
    case Type::u4:
      return 4;
    case Type::b1:
      return 1;
    case Type::f64:
      return 64;
    default:
      return 32;
  }
}
inline std::string name(Type type) {
  static const char* names[] = {"f16", "bf16", "tf32", "f32", "f64", "s8", "u8", "s4", "u4", "b1", "s32"};
  return names[static_cast<int>(type)];
}

inline double decode(Type type, std::uint64_t bits) {
  const auto low = static_cast<std::uint32_t>(bits);
  switch (type) {
    case Type::f16:
      return decode_float(low, 5, 10);
    case Type::bf16:
      return decode_float(low, 8, 7);
    case Type::tf32:
    case Type::f32: {
      float value;
      std::memcpy(&value, &low, 4);
      return static_cast<double>(value);
    }
    case Type::f64: {
      double value;
      std::memcpy(&value, &bits, 8);
      return value;
    }
    case Type::s8:
      return static_cast<int>(low) - (low < 128 ? 0 : 256);
    case Type::s4:
      return static_cast<int>(low) - (low < 8 ? 0 : 16);
    case Type::s32:
      return static_cast<std::int32_t>(low);
    default:
      return low;
  }
}

/// Bits of a random value: any integer, or a floating-point number around 1 (f16: sometimes subnormal) with a
/// full fraction.
inline std::uint64_t random_value(Type type) {
  auto& g = random_bits();
  const auto sign = static_cast<std::uint32_t>(g() & 1u), exponent = static_cast<std::uint32_t>(g() % 5u),
             fraction = static_cast<std::uint32_t>(g());
  switch (type) {
    case Type::f16:
      return sign << 15 | (fraction % 64 == 0 ? 0 : exponent + 12) << 10 | (fraction >> 20 & 1023u);
    case Type::bf16:
      return sign << 15 | (exponent + 124) << 7 | (fraction & 127u);
    case Type::tf32:
      return sign << 31 | (exponent + 124) << 23 | (fraction & 0x7fe000u);
    case Type::f32:
      return sign << 31 | (exponent + 126) << 23 | (fraction & 0x7fffffu);
    case Type::f64: {
      const double value =
          static_cast<double>(static_cast<std::int32_t>(g())) * 0x1p-31 + static_cast<double>(g()) * 0x1p-62;
      std::uint64_t bits;
      std::memcpy(&bits, &value, 8);
      return bits;
    }
    default:
      return fraction & static_cast<std::uint32_t>((std::uint64_t{1} << bits_of(type)) - 1);
  }
}

struct Values {
  Values(Type t, int r, int c) : type(t), rows(r), columns(c), bits(static_cast<std::size_t>(r * c)) {
    for (auto& b : bits) b = random_value(t);
  }
  std::uint64_t& at(int row, int column) { return bits[static_cast<std::size_t>(row * columns + column)]; }
  double value(int row, int column) { return decode(type, at(row, column)); }
  Type type;
  int rows, columns;
  std::vector<std::uint64_t> bits;
};

enum class Op { multiply, multiply_saturating, bit_xor, bit_and };

/// d must be a · b + c: exactly for integers, within the rounding of `k` additions (each at most to the 24th
/// bit, truncated) otherwise.
inline void check_product(Values& a, Values& b, Values& c, Values& d, Op op = Op::multiply) {
  int wrong = 0;
  for (int m = 0; m < d.rows; ++m) {
    for (int n = 0; n < d.columns; ++n) {
      double exact = c.value(m, n), size = std::fabs(exact);
      float chain = static_cast<float>(exact);
      for (int k = 0; k < a.columns; ++k) {
        const double x = a.value(m, k), y = b.value(k, n);
        const double product = op == Op::bit_xor ? x != y : op == Op::bit_and ? x * y : x * y;
        exact += product;
        size += std::fabs(product);
        chain = static_cast<float>(static_cast<double>(chain) + product);
      }
      const double got = d.value(m, n);
      bool right = false;
      if (d.type == Type::s32) {
        const double clamped = std::min(std::max(exact, -2147483648.0), 2147483647.0);
        right =
            got == (op == Op::multiply_saturating
                        ? clamped
                        : static_cast<double>(static_cast<std::int32_t>(static_cast<std::int64_t>(exact))));
      } else if (d.type == Type::f64) {
        right = std::fabs(got - exact) <= (a.columns + 1) * 0x1p-52 * size;
      } else {
        right = std::fabs(got - exact) <=
                (a.columns + 2) * 0x1p-23 * size +
                    (d.type == Type::f16 ? std::fabs(exact) * 0x1.1p-11 + 0x1p-25 : 0.0);
        if (d.type == Type::f32 && !options().noise) right = right && got == static_cast<double>(chain);
      }
      if (!right && wrong++ == 0)
        UNSCOPED_INFO("first wrong: d[" << m << "][" << n << "] = " << got << ", expected " << exact);
    }
  }
  CHECK(wrong == 0);
}

}  // namespace tensor_test
