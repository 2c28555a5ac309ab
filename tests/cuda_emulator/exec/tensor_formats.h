#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "exec/half_math.h"
#include "exec/tensor_mma.h"

#if defined(__F16C__) || defined(__FMA__)
#include <immintrin.h>
#endif

/// How the operands of tensor-core instructions become blocks of 8 rows of values.
namespace emulator::tensor {

// Row r of an 8x8 block of accumulators lies in lanes 4r … 4r + 3 of two registers, the even columns in the
// first. Rows are therefore computed with the columns in the order 0 2 4 6 1 3 5 7: two halves of a vector
// are two pieces of registers. B is permuted accordingly while it is unpacked.
constexpr int column_at(int position) { return position < 4 ? 2 * position : 2 * position - 7; }

template <class T>
struct Vectors;
template <>
struct Vectors<float> {
  typedef float Eight __attribute__((vector_size(32)));
  typedef float Four __attribute__((vector_size(16)));
};
template <>
struct Vectors<double> {
  typedef double Eight __attribute__((vector_size(64)));
  typedef double Four __attribute__((vector_size(32)));
};
template <>
struct Vectors<std::int32_t> {
  typedef std::int32_t Eight __attribute__((vector_size(32)));
  typedef std::int32_t Four __attribute__((vector_size(16)));
};
template <class T>
using Eight = typename Vectors<T>::Eight;
template <class T>
using Four = typename Vectors<T>::Four;

template <class V, class T>
[[gnu::always_inline]] inline void load(V& to, const T* from) {
  std::memcpy(&to, from, sizeof(V));
}

inline constexpr int kMostBlocks = 8;   // of A or B in an instruction
inline constexpr int kMostResults = 4;  // blocks of C

inline void from_f16(const std::uint16_t* in, float* out) {
#ifdef __F16C__
  for (int i = 0; i < 64; i += 8)
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
#else
  for (int i = 0; i < 64; ++i) out[i] = emulator::F16::widen(in[i]);
#endif
}

/// [8][depth] → [depth][8], columns in the order of column_at().
template <class T>
void transpose(const T* in, T* out, int depth) {
  for (int k = 0; k < depth; ++k) {
    for (int p = 0; p < 8; ++p) out[8 * k + p] = in[column_at(p) * depth + k];
  }
}

typedef std::uint16_t Half32 __attribute__((vector_size(64)));

/// Where out[i] of a transposed 8x8 block of 16-bit elements comes from; `permuted`: with columns in the
/// order of column_at().
template <bool permuted>
constexpr std::uint16_t transposed_from(std::size_t i) {
  const int p = static_cast<int>(i % 8), k = static_cast<int>(i / 8);
  return static_cast<std::uint16_t>((permuted ? column_at(p) : p) * 8 + k);
}

template <bool permuted, std::size_t... I>
[[gnu::always_inline]] inline void transpose_halves(const std::uint16_t* in, std::uint16_t* out,
                                                    std::index_sequence<I...>) {
  constexpr Half32 kFirst = {transposed_from<permuted>(I)...},
                   kSecond = {transposed_from<permuted>(I + 32)...};
  Half32 low, high;
  load(low, in);
  load(high, in + 32);
  const Half32 first = __builtin_shuffle(low, high, kFirst), second = __builtin_shuffle(low, high, kSecond);
  std::memcpy(out, &first, sizeof first);
  std::memcpy(out + 32, &second, sizeof second);
}

constexpr auto kHalves = std::make_index_sequence<32>();

struct Bf16Block {
  using Value = float;
  static constexpr int kDepth = 8;
  static void unpack_a(const void* block, float* out, std::uint32_t) {
    widen(static_cast<const std::uint16_t*>(block), out);
  }
  static void unpack_b(const void* block, float* out, std::uint32_t) {
    std::uint16_t turned[64];
    transpose_halves<true>(static_cast<const std::uint16_t*>(block), turned, kHalves);
    widen(turned, out);
  }

 private:
  static void widen(const std::uint16_t* in, float* out) {
    for (int i = 0; i < 64; ++i) out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(in[i]) << 16);
  }
};

struct F16Block {
  using Value = float;
  static constexpr int kDepth = 8;
  static void unpack_a(const void* block, float* out, std::uint32_t) {
    from_f16(static_cast<const std::uint16_t*>(block), out);
  }
  static void unpack_b(const void* block, float* out, std::uint32_t) {
    std::uint16_t turned[64];
    transpose_halves<true>(static_cast<const std::uint16_t*>(block), turned, kHalves);
    from_f16(turned, out);
  }
};

/// The 13 low bits are ignored: operands that the program has not rounded (cvt.rna.tf32) are truncated, which
/// PTX leaves undefined and the hardware does.
struct Tf32Block {
  using Value = float;
  static constexpr int kDepth = 4;
  static void unpack_a(const void* block, float* out, std::uint32_t) {
    const auto* in = static_cast<const std::uint32_t*>(block);
    for (int i = 0; i < 32; ++i) out[i] = std::bit_cast<float>(in[i] & 0xffffe000u);
  }
  static void unpack_b(const void* block, float* out, std::uint32_t) {
    float rows[32];
    unpack_a(block, rows, 0);
    transpose(rows, out, kDepth);
  }
};

struct F64Block {
  using Value = double;
  static constexpr int kDepth = 4;
  static void unpack_a(const void* block, double* out, std::uint32_t) {
    std::memcpy(out, block, 32 * sizeof(double));
  }
  static void unpack_b(const void* block, double* out, std::uint32_t) {
    transpose(static_cast<const double*>(block), out, kDepth);
  }
};

struct Int8Block {
  using Value = std::int32_t;
  static constexpr int kDepth = 16;
  static void unpack(const void* block, std::int32_t* out, bool has_sign) {
    const auto* in = static_cast<const std::uint8_t*>(block);
    const std::int32_t sign = has_sign ? 0x80 : 0;
    for (int i = 0; i < 128; ++i) out[i] = (in[i] ^ sign) - sign;
  }
  static void unpack_a(const void* block, std::int32_t* out, std::uint32_t flags) {
    unpack(block, out, (flags & kSignedA) != 0);
  }
  static void unpack_b(const void* block, std::int32_t* out, std::uint32_t flags) {
    std::int32_t rows[128];
    unpack(block, rows, (flags & kSignedB) != 0);
    transpose(rows, out, kDepth);
  }
};

struct Int4Block {
  using Value = std::int32_t;
  static constexpr int kDepth = 32;
  static void unpack(const void* block, std::int32_t* out, bool has_sign) {
    const auto* in = static_cast<const std::uint8_t*>(block);
    const std::int32_t sign = has_sign ? 8 : 0;
    for (int i = 0; i < 256; ++i) out[i] = ((in[i / 2] >> (4 * (i % 2)) & 15) ^ sign) - sign;
  }
  static void unpack_a(const void* block, std::int32_t* out, std::uint32_t flags) {
    unpack(block, out, (flags & kSignedA) != 0);
  }
  static void unpack_b(const void* block, std::int32_t* out, std::uint32_t flags) {
    std::int32_t rows[256];
    unpack(block, rows, (flags & kSignedB) != 0);
    transpose(rows, out, kDepth);
  }
};

/// Words of 32 one-bit elements; the "product" of two words is a population count.
struct BitBlock {
  using Value = std::int32_t;
  static constexpr int kDepth = 4;
  static void unpack_a(const void* block, std::int32_t* out, std::uint32_t) {
    std::memcpy(out, block, 32 * sizeof(std::int32_t));
  }
  static void unpack_b(const void* block, std::int32_t* out, std::uint32_t) {
    transpose(static_cast<const std::int32_t*>(block), out, kDepth);
  }
};

}  // namespace emulator::tensor
