#include "cublas/matmul.h"

#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

namespace emulator::blas {
namespace {

#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#else
constexpr int kVectorBytes = 32;
#endif
constexpr std::int64_t kBlock = 64;       // terms of the sum that are added in one go
constexpr std::int64_t kTileRows = 1024;  // with kTileColumns: sums stay in the second-level cache
constexpr std::int64_t kTileColumns = 192;
constexpr int kWidth = 6;  // columns of the register tile: 12 accumulators hide the latency of two FMA units

template <class Real>
constexpr int kHeight = 2 * kVectorBytes / static_cast<int>(sizeof(Real));  // rows of the register tile

struct Block {
  std::int64_t begin, length;
};

std::vector<Block> blocks_of(std::int64_t k, unsigned seed) {
  std::vector<Block> blocks;
  std::minstd_rand random(seed);
  while (true) {
    const std::int64_t begin = blocks.empty() ? 0 : blocks.back().begin + blocks.back().length;
    if (begin >= k) break;
    const std::int64_t length = seed == 0 ? kBlock : std::int64_t{8} << (random() % 4);
    blocks.push_back({begin, std::min(length, k - begin)});
  }
  if (seed != 0) std::shuffle(blocks.begin(), blocks.end(), random);
  return blocks;
}

/// packed[l * width + i] = operand(first + i, block.begin + l); rows past `count` are 0.
template <class Real>
void pack(const Operand& operand, std::int64_t first, std::int64_t count, std::int64_t width, Block block,
          InputRounding rounding, Real* packed) {
  const auto* data = static_cast<const char*>(operand.data);
  const auto size = static_cast<std::int64_t>(bytes_of(operand.type));
  const auto* corner = data + (first * operand.outer_stride + block.begin * operand.inner_stride) * size;
  if (count < width) std::fill_n(packed, width * block.length, Real{0});
  if (operand.outer_stride == 1) {
    for (std::int64_t l = 0; l < block.length; ++l) {
      load(operand.type, corner + l * operand.inner_stride * size, 1, count, packed + l * width);
    }
  } else {
    Real line[kBlock];
    for (std::int64_t i = 0; i < count; ++i) {
      load(operand.type, corner + i * operand.outer_stride * size, operand.inner_stride, block.length, line);
      for (std::int64_t l = 0; l < block.length; ++l) packed[l * width + i] = line[l];
    }
  }
  if constexpr (sizeof(Real) == sizeof(float)) round_inputs(rounding, packed, width * block.length);
}

/// out[j * kHeight + i] = sum over l of a[l * kHeight + i] * b[l * kWidth + j]
template <class Real>
void register_tile(const Real* a, const Real* b, std::int64_t length, Real* out) {
  typedef Real Vector __attribute__((vector_size(kVectorBytes)));
  constexpr int kLanes = kHeight<Real> / 2;
  Vector sums[kWidth][2] = {};
  for (std::int64_t l = 0; l < length; ++l) {
    Vector upper, lower;
    __builtin_memcpy(&upper, a + l * kHeight<Real>, sizeof upper);
    __builtin_memcpy(&lower, a + l * kHeight<Real> + kLanes, sizeof lower);
#pragma GCC unroll 6
    for (int j = 0; j < kWidth; ++j) {
      const Real factor = b[l * kWidth + j];
      sums[j][0] += upper * factor;
      sums[j][1] += lower * factor;
    }
  }
  __builtin_memcpy(out, sums, sizeof sums);
}

/// Adds one register tile to the sums. With noise the running sum is kept in f32: the sum of two floats
/// rounds the same through f64.
template <class Real>
void add(const Real* part, std::int64_t rows, std::int64_t columns, bool in_f32, double* sums,
         std::int64_t stride) {
  for (std::int64_t j = 0; j < columns; ++j) {
    double* column = sums + j * stride;
    const Real* from = part + j * kHeight<Real>;
    if (in_f32) {
      for (std::int64_t i = 0; i < rows; ++i)
        column[i] = static_cast<float>(column[i] + static_cast<double>(from[i]));
    } else {
      for (std::int64_t i = 0; i < rows; ++i) column[i] += static_cast<double>(from[i]);
    }
  }
}

/// Buffers of one product, reused from tile to tile.
template <class Real>
struct Scratch {
  std::vector<double> sums = std::vector<double>(kTileRows * kTileColumns);
  std::vector<Real> a = std::vector<Real>(kHeight<Real> * kBlock),
                    b = std::vector<Real>(kTileColumns * kBlock);
};

template <class Real>
void add_block(const Product& product, const Tile& tile, Block block, bool in_f32, Scratch<Real>& scratch) {
  constexpr std::int64_t kRows = kHeight<Real>;
  for (std::int64_t j = 0; j < tile.columns; j += kWidth) {
    pack(product.b, tile.column + j, std::min<std::int64_t>(kWidth, tile.columns - j), kWidth, block,
         product.rounding, scratch.b.data() + j * block.length);
  }
  alignas(64) Real part[kRows * kWidth];
  for (std::int64_t i = 0; i < tile.rows; i += kRows) {
    const std::int64_t rows = std::min(kRows, tile.rows - i);
    pack(product.a, tile.row + i, rows, kRows, block, product.rounding, scratch.a.data());
    for (std::int64_t j = 0; j < tile.columns; j += kWidth) {
      register_tile(scratch.a.data(), scratch.b.data() + j * block.length, block.length, part);
      add(part, rows, std::min<std::int64_t>(kWidth, tile.columns - j), in_f32,
          scratch.sums.data() + j * tile.stride + i, tile.stride);
    }
  }
}

template <class Real>
void multiply_in(const Product& product, unsigned seed, const std::function<void(const Tile&)>& take) {
  static_assert(kTileColumns % kWidth == 0);
  const std::vector<Block> blocks = blocks_of(product.k, seed);
  const bool in_f32 = seed != 0 && !product.in_f64;
  Scratch<Real> scratch;
  for (std::int64_t column = 0; column < product.n; column += kTileColumns) {
    for (std::int64_t row = 0; row < product.m; row += kTileRows) {
      const std::int64_t rows = std::min(kTileRows, product.m - row);
      const std::int64_t columns = std::min(kTileColumns, product.n - column);
      const Tile tile{row, rows, column, columns, scratch.sums.data(), rows};
      std::fill_n(scratch.sums.data(), rows * columns, 0.0);
      for (const Block& block : blocks) add_block(product, tile, block, in_f32, scratch);
      take(tile);
    }
  }
}

}  // namespace

void multiply(const Product& product, unsigned seed, const std::function<void(const Tile&)>& take) {
  product.in_f64 ? multiply_in<double>(product, seed, take) : multiply_in<float>(product, seed, take);
}

unsigned noise_seed() {
  const char* text = std::getenv("CUDA_EMULATOR_NOISE");
  return text == nullptr ? 0u : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

}  // namespace emulator::blas
