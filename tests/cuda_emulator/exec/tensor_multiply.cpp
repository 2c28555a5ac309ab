// The arithmetic of mma.sync and wmma.mma.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "exec/tensor_formats.h"

namespace emulator::tensor {
namespace {

// ---- products of blocks ----

template <class Element, class T = typename Element::Value>
[[gnu::always_inline]] inline void multiply_add(Eight<T>& sum, T a, const Eight<T>& b, std::uint32_t flags) {
  if constexpr (std::is_same_v<Element, BitBlock>) {
    for (int i = 0; i < 8; ++i)
      sum[i] += std::popcount(static_cast<std::uint32_t>((flags & kAnd) != 0 ? a & b[i] : a ^ b[i]));
  } else if constexpr (std::is_same_v<T, double>) {
    for (int i = 0; i < 8; ++i) sum[i] = std::fma(a, b[i], sum[i]);
  } else if constexpr (std::is_same_v<T, float>) {
    // Products of floats of 8 or 11 bits are exact, so that fusing changes nothing but the speed.
#ifdef __FMA__
    sum = static_cast<Eight<T>>(
        _mm256_fmadd_ps(_mm256_set1_ps(a), static_cast<__m256>(b), static_cast<__m256>(sum)));
#else
    sum += a * b;
#endif
  } else {
    sum += a * b;
  }
}

/// sum [8][8] += a [8][depth] · b [depth][8], k ascending.
template <class Element, class T = typename Element::Value>
[[gnu::always_inline]] inline void multiply_block(const T* a, const T* b, Eight<T>* sum,
                                                  std::uint32_t flags) {
  constexpr int kDepth = Element::kDepth;
  Eight<T> s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3], s4 = sum[4], s5 = sum[5], s6 = sum[6],
           s7 = sum[7];
#pragma GCC unroll 8
  for (int k = 0; k < kDepth; ++k) {
    Eight<T> row;
    load(row, b + 8 * k);
    multiply_add<Element>(s0, a[k], row, flags);
    multiply_add<Element>(s1, a[kDepth + k], row, flags);
    multiply_add<Element>(s2, a[2 * kDepth + k], row, flags);
    multiply_add<Element>(s3, a[3 * kDepth + k], row, flags);
    multiply_add<Element>(s4, a[4 * kDepth + k], row, flags);
    multiply_add<Element>(s5, a[5 * kDepth + k], row, flags);
    multiply_add<Element>(s6, a[6 * kDepth + k], row, flags);
    multiply_add<Element>(s7, a[7 * kDepth + k], row, flags);
  }
  sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3, sum[4] = s4, sum[5] = s5, sum[6] = s6, sum[7] = s7;
}

// ---- noise ----

/// How f32 accumulation deviates from the chain of the exact mode when options().noise is on. This is a
/// model, not a measurement; it follows what is known of tensor cores (Fasi, Higham, Mikaitis, Pranesh:
/// "Numerical behavior of NVIDIA tensor cores", 2021): the accumulator and `group` products are aligned to
/// the largest of them, 24 + 1 bits are kept and smaller ones cut off, the sum is rounded toward zero. group
/// 0: a chain of f32 additions rounded to nearest. Both take k in a random order. The seed picks, and
/// everything is the same in all instructions of a process, as it is on hardware.
struct Noise {
  int group = 0;
  std::array<int, 16> order{};
};

Noise read_noise() {
  Noise noise;
  std::uint64_t state = options().seed * 0x9e3779b97f4a7c15u;
  static constexpr int kGroups[] = {0, 4, 8, 16};  // products: V100 4, A100 8, H100 16
  noise.group = kGroups[options().seed % 4];
  std::iota(noise.order.begin(), noise.order.end(), 0);
  for (std::size_t i = noise.order.size() - 1; i > 0; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(noise.order[i], noise.order[(state >> 33) % (i + 1)]);
  }
  return noise;
}

typedef double Double8 __attribute__((vector_size(64)));
typedef std::int64_t Long8 __attribute__((vector_size(64)));

/// The sum of the terms in fixed point, rounded toward zero to f32 (subnormal results excepted: to nearest).
void add_truncated(const Double8* terms, int count, Eight<float>& sum) {
  constexpr std::int64_t kExponent = 0x7ff0000000000000;
  Double8 plain{}, largest{};
  for (int i = 0; i < count; ++i) {
    plain += terms[i];
    const Double8 magnitude = terms[i] < 0.0 ? -terms[i] : terms[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  const Long8 usual =
      (largest > 0x1p-200) & (plain - plain == 0.0);  // zeros, infinities and NaNs are summed as they are
  const Double8 power = (Double8)(usual ? (Long8)largest & kExponent : (Long8)(Double8{} + 1.0));
  const Double8 scale = 0x1p24 / power;
  Double8 total{};
  for (int i = 0; i < count; ++i)
    total += __builtin_convertvector(__builtin_convertvector(usual ? terms[i] * scale : Double8{}, Long8),
                                     Double8);
  total /= scale;
  const Double8 cut = (Double8)((Long8)total & ~((std::int64_t{1} << 29) - 1));  // the 29 bits that f32 lacks
  sum = __builtin_convertvector(usual ? cut : plain, Eight<float>);
}

/// multiply_block for all blocks of k at once: a [k blocks, stride apart][8][depth], b [k blocks][depth][8].
void multiply_noisy(const Noise& noise, const float* a, std::size_t a_stride, const float* b, int depth,
                    int blocks, Eight<float>* sum) {
  const int group = noise.group == 0 ? 1 : noise.group;
  for (int row = 0; row < 8; ++row) {
    Double8 terms[17];
    int count = 0, left = depth * blocks;
    for (const int k : noise.order) {
      if (k >= depth * blocks) continue;
      const auto block = static_cast<std::size_t>(k / depth);
      Eight<float> values;
      load(values, b + k * 8);
      terms[++count] =
          __builtin_convertvector(values, Double8) *
          static_cast<double>(a[block * a_stride + static_cast<std::size_t>(row * depth + k % depth)]);
      --left;
      if (count < group && left > 0) continue;
      terms[0] = __builtin_convertvector(sum[row], Double8);
      if (noise.group == 0)
        sum[row] = __builtin_convertvector(terms[0] + terms[1], Eight<float>);
      else
        add_truncated(terms, count + 1, sum[row]);
      count = 0;
    }
  }
}

// ---- accumulators ----

/// Block [8][8] of C: one f16x2 register, or two of which the second holds the odd columns.
template <class T>
void load_accumulator(const Warp& warp, const Slot* slots, bool half, Eight<T>* sum) {
  if constexpr (std::is_same_v<T, float>) {
    if (half) {
      float values[64];
      from_f16(warp.lanes<std::uint16_t>(slots[0]), values);
      for (int row = 0; row < 8; ++row) {
        Eight<float> in_order;
        load(in_order, values + 8 * row);
        sum[row] = __builtin_shufflevector(in_order, in_order, 0, 2, 4, 6, 1, 3, 5, 7);
      }
      return;
    }
  }
  const T *even = warp.lanes<T>(slots[0]), *odd = warp.lanes<T>(slots[1]);
  for (int row = 0; row < 8; ++row) {
    Four<T> low, high;
    load(low, even + 4 * row);
    load(high, odd + 4 * row);
    sum[row] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
  }
}

template <class T>
void store_lanes(const Warp& warp, Slot slot, const T* values, Mask lanes) {
  T* to = warp.lanes<T>(slot);
  each_lane(lanes, [&](int lane) { to[lane] = values[lane]; });
}

template <class T>
void store_accumulator(const Warp& warp, const Slot* slots, bool half, Mask lanes, const Eight<T>* sum) {
  if constexpr (std::is_same_v<T, float>) {
    if (half) {
      float values[64];
      for (int row = 0; row < 8; ++row) {
        const Eight<float> in_order = __builtin_shufflevector(sum[row], sum[row], 0, 4, 1, 5, 2, 6, 3, 7);
        std::memcpy(values + 8 * row, &in_order, sizeof in_order);
      }
      std::uint32_t packed[kLanes];
      for (int lane = 0; lane < kLanes; ++lane)
        packed[lane] = emulator::F16::round<Rounding::nearest>(values[2 * lane]) |
                       emulator::F16::round<Rounding::nearest>(values[2 * lane + 1]) << 16;
      return store_lanes(warp, slots[0], packed, lanes);
    }
  }
  T scratch[2][kLanes];
  T* even = lanes == ~0u ? warp.lanes<T>(slots[0]) : scratch[0];
  T* odd = lanes == ~0u ? warp.lanes<T>(slots[1]) : scratch[1];
  for (int row = 0; row < 8; ++row) {
    std::memcpy(even + 4 * row, &sum[row], sizeof(Four<T>));
    std::memcpy(odd + 4 * row, reinterpret_cast<const char*>(&sum[row]) + sizeof(Four<T>), sizeof(Four<T>));
  }
  if (lanes == ~0u) return;
  store_lanes(warp, slots[0], scratch[0], lanes);
  store_lanes(warp, slots[1], scratch[1], lanes);
}

// ---- the instruction ----

/// Block extents, packed in Ins::aux.
struct Blocks {
  int m, n, k;
};
std::uint16_t pack(Blocks b) { return static_cast<std::uint16_t>(b.m | b.n << 4 | b.k << 8); }
Blocks unpack(std::uint16_t aux) { return {aux & 15, aux >> 4 & 15, aux >> 8}; }

/// c + products: of integers the sum wraps around or is clamped; of floating point the products have been
/// added to c already.
void finish_integer(const Eight<std::int32_t>& c, Eight<std::int32_t>& sum, bool saturate) {
  for (int i = 0; i < 8; ++i) {
    const std::int64_t exact = std::int64_t{c[i]} + sum[i];
    const std::int64_t clamped = std::clamp<std::int64_t>(exact, std::numeric_limits<std::int32_t>::min(),
                                                          std::numeric_limits<std::int32_t>::max());
    sum[i] = static_cast<std::int32_t>(saturate ? clamped : exact);
  }
}

/// One block of C after the other; A and B are [blocks][8 * depth] values.
template <class Element, class T = typename Element::Value>
void multiply(const T* a, const T* b, Blocks blocks, std::uint32_t flags, Eight<T> (*sum)[8]) {
  constexpr std::size_t kSize = 8 * Element::kDepth;
  static const Noise noise = read_noise();
  const bool noisy = std::is_same_v<T, float> && options().noise;
  for (int nb = 0; nb < blocks.n; ++nb) {
    for (int mb = 0; mb < blocks.m; ++mb) {
      const T *rows = a + static_cast<std::size_t>(mb) * kSize,
              *columns = b + static_cast<std::size_t>(nb * blocks.k) * kSize;
      Eight<T>* result = sum[nb * blocks.m + mb];
      const auto stride = static_cast<std::size_t>(blocks.m) * kSize;
      if constexpr (std::is_same_v<T, float>) {
        if (noisy) {
          multiply_noisy(noise, rows, stride, columns, Element::kDepth, blocks.k, result);
          continue;
        }
      }
      Eight<T> before[8];
      if constexpr (std::is_same_v<T, std::int32_t>) {
        std::memcpy(before, result, sizeof before);
        std::memset(result, 0, sizeof before);
      }
      for (int kb = 0; kb < blocks.k; ++kb)
        multiply_block<Element>(rows + static_cast<std::size_t>(kb) * stride,
                                columns + static_cast<std::size_t>(kb) * kSize, result, flags);
      if constexpr (std::is_same_v<T, std::int32_t>) {
        for (int row = 0; row < 8; ++row) finish_integer(before[row], result[row], (flags & kSaturate) != 0);
      }
    }
  }
}

template <class Element>
void run_multiply(Warp& warp, const Ins& ins, Mask active) {
  using T = typename Element::Value;
  constexpr int kSize = 8 * Element::kDepth;
  const Mask lanes = whole_warp(warp, ins, active);
  if (lanes == 0) return;
  const Blocks blocks = unpack(ins.aux);
  const std::uint32_t flags = ins.extra;
  const Slot* slots = warp.frame->program->slots.data();
  alignas(64) T a[kMostBlocks * kSize], b[kMostBlocks * kSize];
  Eight<T> sum[kMostResults][8];
  for (int i = 0; i < blocks.m * blocks.k; ++i)
    Element::unpack_a(warp.lanes<std::uint8_t>(slots[ins.a + static_cast<Slot>(i)]), a + i * kSize, flags);
  for (int i = 0; i < blocks.n * blocks.k; ++i)
    Element::unpack_b(warp.lanes<std::uint8_t>(slots[ins.b + static_cast<Slot>(i)]), b + i * kSize, flags);
  const bool half_c = (flags & kHalfC) != 0, half_d = (flags & kHalfD) != 0;
  for (int i = 0; i < blocks.m * blocks.n; ++i)
    load_accumulator<T>(warp, slots + ins.c + (half_c ? i : 2 * i), half_c, sum[i]);
  multiply<Element>(a, b, blocks, flags, sum);
  for (int i = 0; i < blocks.m * blocks.n; ++i)
    store_accumulator<T>(warp, slots + ins.d + (half_d ? i : 2 * i), half_d, lanes, sum[i]);
}

}  // namespace

Mask whole_warp(Warp& warp, const Ins& ins, Mask active) {
  // The usual case without the bookkeeping of ready_aligned(), which costs as much as a product.
  if (active == ~0u) return active;
  const Mask ready = ready_aligned(warp, ins, active);
  if (ready == 0 || ready == ~0u || !options().barrier_check) return ready;
  report(warp, FindingKind::barrier, std::countr_zero(ready), 0,
         "an instruction of the whole warp is executed by " + std::to_string(std::popcount(ready)) +
             " of 32 lanes");
  return ready;
}

int depth_of(Format format) {
  switch (format) {
    case Format::f16:
    case Format::bf16:
      return 8;
    case Format::tf32:
    case Format::f64:
      return 4;
    case Format::int8:
      return 16;
    case Format::int4:
      return 32;
    case Format::bit:
      return 128;
  }
  return 0;
}

void set_multiply(Ins& ins, Shape shape, Format format, std::uint32_t flags) {
  static constexpr Run kRuns[] = {run_multiply<F16Block>, run_multiply<Bf16Block>, run_multiply<Tf32Block>,
                                  run_multiply<F64Block>, run_multiply<Int8Block>, run_multiply<Int4Block>,
                                  run_multiply<BitBlock>};
  ins.run = kRuns[static_cast<int>(format)];
  ins.aux = pack({shape.m / 8, shape.n / 8, shape.k / depth_of(format)});
  ins.aux2 = static_cast<std::uint16_t>(2 * shape.m * shape.n * shape.k / 64);
  ins.extra = flags;
}

void transpose_8x8(const std::uint16_t* in, std::uint16_t* out) { transpose_halves<false>(in, out, kHalves); }

}  // namespace emulator::tensor
