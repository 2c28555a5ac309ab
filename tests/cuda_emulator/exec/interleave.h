#pragma once

#include <cstdint>
#include <cstring>

/// Between the order of memory, where a lane's 2 or 4 words are neighbours, and the order of registers, where
/// the same word of 32 lanes are.
namespace emulator {

using Words16 = std::uint32_t __attribute__((vector_size(64)));

inline Words16 load_words(const void* p) {
  Words16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store_words(void* p, Words16 v) { std::memcpy(p, &v, sizeof v); }

/// d[lane] = memory[2 * lane + element], for 32 lanes.
template <int element>
void take_of_pairs(const std::uint8_t* memory, std::uint32_t* d) {
  for (int half = 0; half < 2; ++half) {
    const Words16 a = load_words(memory + half * 128), b = load_words(memory + half * 128 + 64);
    constexpr int e = element;
    store_words(d + half * 16,
                __builtin_shufflevector(a, b, e, e + 2, e + 4, e + 6, e + 8, e + 10, e + 12, e + 14, e + 16,
                                        e + 18, e + 20, e + 22, e + 24, e + 26, e + 28, e + 30));
  }
}

/// d[lane] = memory[4 * lane + element], for 32 lanes.
template <int element>
void take_of_fours(const std::uint8_t* memory, std::uint32_t* d) {
  constexpr int e = element;
  for (int half = 0; half < 2; ++half) {
    const std::uint8_t* m = memory + half * 256;
    const Words16 a = load_words(m), b = load_words(m + 64), c = load_words(m + 128), f = load_words(m + 192);
    const Words16 low = __builtin_shufflevector(a, b, e, e + 4, e + 8, e + 12, e + 16, e + 20, e + 24, e + 28,
                                                0, 0, 0, 0, 0, 0, 0, 0);
    const Words16 high = __builtin_shufflevector(c, f, e, e + 4, e + 8, e + 12, e + 16, e + 20, e + 24,
                                                 e + 28, 0, 0, 0, 0, 0, 0, 0, 0);
    store_words(d + half * 16,
                __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
  }
}

/// memory[2 * lane + i] = s_i[lane].
inline void put_pairs(std::uint8_t* memory, const std::uint32_t* s0, const std::uint32_t* s1) {
  for (int half = 0; half < 2; ++half) {
    const Words16 a = load_words(s0 + half * 16), b = load_words(s1 + half * 16);
    store_words(memory + half * 128,
                __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    store_words(memory + half * 128 + 64,
                __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
  }
}

/// memory[4 * lane + i] = s_i[lane].
inline void put_fours(std::uint8_t* memory, const std::uint32_t* s0, const std::uint32_t* s1,
                      const std::uint32_t* s2, const std::uint32_t* s3) {
  for (int half = 0; half < 2; ++half) {
    const Words16 a = load_words(s0 + half * 16), b = load_words(s1 + half * 16),
                  c = load_words(s2 + half * 16), f = load_words(s3 + half * 16);
    const Words16 ab_low =
        __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const Words16 cf_low =
        __builtin_shufflevector(c, f, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const Words16 ab_high =
        __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const Words16 cf_high =
        __builtin_shufflevector(c, f, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    std::uint8_t* m = memory + half * 256;
    store_words(
        m, __builtin_shufflevector(ab_low, cf_low, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23));
    store_words(m + 64, __builtin_shufflevector(ab_low, cf_low, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29,
                                                14, 15, 30, 31));
    store_words(m + 128, __builtin_shufflevector(ab_high, cf_high, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21,
                                                 6, 7, 22, 23));
    store_words(m + 192, __builtin_shufflevector(ab_high, cf_high, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28,
                                                 29, 14, 15, 30, 31));
  }
}

}  // namespace emulator
