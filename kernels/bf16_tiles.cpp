#if defined(__x86_64__)
// GCC 12 takes the undefined operands inside of its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "kernels/bf16_tiles.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <dnnl.hpp>

#define DINO_AMX __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,amx-tile,amx-bf16")))

namespace dino::bf16_tiles {
namespace {

using namespace bf16_pairs;

/// Rows, columns and pairs of a tile.
constexpr int64_t kTile = 16;
/// Tiles along the inner axis that are copied at a time where they cannot be loaded from where they are.
constexpr int64_t kCopied = 8;

bool system_allows() {
#if defined(__linux__)
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

bool processor_has_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kBf16) != 0 && (d & kTiles) != 0;
}

/// Memory of the tile configuration, of 64 bytes: all eight tiles whole.
struct alignas(64) Configuration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  Configuration() {
    std::fill_n(row_bytes, 8, uint16_t{64});
    std::fill_n(rows, 8, uint8_t{kTile});
  }
};

/// GCC's intrinsics for tiles do not say which memory they read.
inline void finish_writes() { asm volatile("" ::: "memory"); }

/// Tiles 0 and 1 are the sums of the upper, 2 and 3 of the lower rows; 4 and 5 hold A, 6 and 7 B.
template <int kDown, int kAcross>
DINO_AMX inline __attribute__((always_inline)) void clear() {
  _tile_zero(0);
  if constexpr (kAcross == 2) _tile_zero(1);
  if constexpr (kDown == 2) _tile_zero(2);
  if constexpr (kDown == 2 && kAcross == 2) _tile_zero(3);
}

/// Adds the product of one tile of the inner axis; strides in bytes.
template <int kDown, int kAcross>
DINO_AMX inline __attribute__((always_inline)) void add_tiles(const void* a_upper, const void* a_lower, int64_t a_stride, const Pair* b, int64_t b_stride) {
  _tile_loadd(4, a_upper, a_stride);
  _tile_loadd(6, b, b_stride);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kAcross == 2) {
    _tile_loadd(7, b + kTile, b_stride);
    _tile_dpbf16ps(1, 4, 7);
  }
  if constexpr (kDown == 2) {
    _tile_loadd(5, a_lower, a_stride);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kAcross == 2) _tile_dpbf16ps(3, 5, 7);
  }
}

inline __mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>(count >= kTile ? 0xFFFF : (1u << std::max<int64_t>(count, 0)) - 1); }

/// Rows [row, row + rows) and `pairs` pairs from `from` on of A as a tile [16, 16] that ends in zeros.
DINO_AMX void copy_left(const Product& p, int64_t row, int64_t rows, int64_t from, int64_t pairs, Pair* to) {
  const BFloat16* const a = p.a + row * p.a_row + from * p.a_inner;
  if (p.a_inner == 2) {
    const __mmask16 lanes = first_lanes(pairs);
    for (int64_t r = 0; r < kTile; ++r)
      _mm512_storeu_si512(to + r * kTile, r < rows ? _mm512_maskz_loadu_epi32(lanes, a + r * p.a_row) : _mm512_setzero_si512());
    return;
  }
  __m512i block[16];
  const __mmask16 lanes = first_lanes(rows);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) block[i] = i < pairs ? _mm512_maskz_loadu_epi32(lanes, a + i * p.a_inner) : _mm512_setzero_si512();
  transpose_16x16(block);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * kTile, block[i]);
}

/// The last pairs of B and zeros: a tile, or two side by side.
DINO_AMX void copy_right(const Product& p, int64_t col, int64_t across, int64_t from, int64_t pairs, Pair* to) {
  for (int64_t i = 0; i < kTile; ++i)
    for (int64_t tile = 0; tile < across; ++tile)
      _mm512_storeu_si512(to + (i * across + tile) * kTile,
                          i < pairs ? _mm512_loadu_si512(p.b + (from + i) * p.b_row + col + tile * kTile) : _mm512_setzero_si512());
}

/// Writes `rows` rows of the sums.
template <int kDown, int kAcross>
DINO_AMX inline __attribute__((always_inline)) void write(const Product& p, int64_t row, int64_t rows, int64_t col) {
  alignas(64) float sums[kDown * kTile][kAcross * kTile];
  constexpr int64_t kStride = kAcross * kTile * sizeof(float);
  _tile_stored(0, sums[0], kStride);
  if constexpr (kAcross == 2) _tile_stored(1, sums[0] + kTile, kStride);
  if constexpr (kDown == 2) _tile_stored(2, sums[kTile], kStride);
  if constexpr (kDown == 2 && kAcross == 2) _tile_stored(3, sums[kTile] + kTile, kStride);
  finish_writes();
  __m512 bias[kAcross];
  for (int v = 0; v < kAcross; ++v) bias[v] = p.bias ? _mm512_loadu_ps(p.bias + col + v * kTile) : _mm512_setzero_ps();
  const bool whole_lines = kAcross == 2 && p.c.narrow && !p.c.add;
  for (int64_t r = 0; r < rows; ++r) {
    const __m512 factor = _mm512_set1_ps(p.factors ? p.factors[row + r] : p.factor);
    __m512 sum[kAcross];
    for (int v = 0; v < kAcross; ++v) sum[v] = _mm512_fmadd_ps(_mm512_load_ps(sums[r] + v * kTile), factor, bias[v]);
    if (whole_lines) {
      _mm512_storeu_si512(p.c.narrow + (row + r) * p.c.stride + col, (__m512i)_mm512_cvtne2ps_pbh(sum[kAcross - 1], sum[0]));
      continue;
    }
    for (int v = 0; v < kAcross; ++v) store(p.c, row + r, col + v * kTile, sum[v]);
  }
}

/// A block of C of up to 32 rows and columns.
template <int kDown, int kAcross>
DINO_AMX __attribute__((noinline)) void block(const Product& p, int64_t row, int64_t rows, int64_t col) {
  const int64_t whole = p.inner / kTile, rest = p.inner % kTile, b_stride = p.b_row * 4;
  const bool in_place = p.a_inner == 2 && rows == kDown * kTile;
  alignas(64) Pair left[kCopied][kDown][kTile * kTile];
  constexpr int64_t kRow = kTile * sizeof(Pair);
  clear<kDown, kAcross>();
  const BFloat16* const a = p.a + row * p.a_row;
  const Pair* const b = p.b + col;
  if (in_place)
    for (int64_t i = 0; i < whole; ++i)
      add_tiles<kDown, kAcross>(a + 2 * i * kTile, a + kTile * p.a_row + 2 * i * kTile, p.a_row * 2, b + i * kTile * p.b_row, b_stride);
  for (int64_t first = 0; !in_place && first < whole; first += kCopied) {
    const int64_t count = std::min(kCopied, whole - first);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t down = 0; down < kDown; ++down)
        copy_left(p, row + down * kTile, std::min(kTile, rows - down * kTile), (first + i) * kTile, kTile, left[i][down]);
    finish_writes();
    for (int64_t i = 0; i < count; ++i)
      add_tiles<kDown, kAcross>(left[i][0], left[i][kDown - 1], kRow, b + (first + i) * kTile * p.b_row, b_stride);
  }
  if (rest > 0) {
    alignas(64) Pair right[kTile * kAcross * kTile];
    for (int64_t down = 0; down < kDown; ++down)
      copy_left(p, row + down * kTile, std::min(kTile, rows - down * kTile), whole * kTile, rest, left[0][down]);
    copy_right(p, col, kAcross, whole * kTile, rest, right);
    finish_writes();
    add_tiles<kDown, kAcross>(left[0][0], left[0][kDown - 1], kRow, right, kAcross * kRow);
  }
  write<kDown, kAcross>(p, row, rows, col);
}

DINO_AMX void multiply_by_tiles(const Product& p) {
  static const Configuration configuration;
  _tile_loadconfig(&configuration);
  for (int64_t col = 0; col < p.cols; col += 2 * kTile)
    for (int64_t row = 0; row < p.rows; row += 2 * kTile) {
      const int64_t rows = std::min(2 * kTile, p.rows - row);
      const bool wide = p.cols - col > kTile, high = rows > kTile;
      if (wide && high) block<2, 2>(p, row, rows, col);
      else if (wide) block<1, 2>(p, row, rows, col);
      else if (high) block<2, 1>(p, row, rows, col);
      else block<1, 1>(p, row, rows, col);
    }
  _tile_release();
}

}  // namespace

bool supported() {
  static const bool result = [] {
    constexpr auto kAmx = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_amx);
    return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kAmx) == kAmx && bf16_pairs::supported() && processor_has_tiles() && system_allows();
  }();
  return result;
}

void multiply(const Product& product) {
  const bool laid_out = product.a_inner == 2 || product.a_row == 2;
  // Few rows or pairs would leave most of a tile empty.
  if (!supported() || !laid_out || product.rows < 8 || product.inner < 8) return bf16_pairs::multiply(product);
  // A few rows past whole tiles are faster without them.
  const int64_t rest = product.rows % kTile, rows = rest < 6 ? product.rows - rest : product.rows;
  Product part = product;
  part.rows = rows;
  multiply_by_tiles(part);
  if (rows == product.rows) return;
  part.rows = rest;
  part.a += rows * product.a_row;
  if (part.c.wide) part.c.wide += rows * product.c.stride;
  if (part.c.narrow) part.c.narrow += rows * product.c.stride;
  if (part.factors) part.factors += rows;
  bf16_pairs::multiply(part);
}

}  // namespace dino::bf16_tiles

#endif
