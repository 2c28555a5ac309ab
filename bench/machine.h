#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <exception>
#include <numeric>
#include <vector>

#include "kernels/linear_products.h"

/// What the benches share: measured time, and what this machine can do at best.
namespace dino::bench {

using Clock = std::chrono::steady_clock;

/// What `main` of a bench does: runs it, and turns an exception into one line and exit code 1.
inline int main_of(int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Seconds that each of several calls took.
struct Times {
  double least, median, mean;
};

/// Calls `body` until `seconds` have passed, but at least `calls` times.
template <class Body>
Times time_calls(double seconds, size_t calls, const Body& body) {
  std::vector<double> taken;
  for (const auto begin = Clock::now(); taken.size() < calls || seconds_since(begin) < seconds;) {
    const auto start = Clock::now();
    body();
    taken.push_back(seconds_since(start));
  }
  const double total = std::accumulate(taken.begin(), taken.end(), 0.0);
  const auto middle = taken.begin() + static_cast<std::ptrdiff_t>(taken.size() / 2);
  std::nth_element(taken.begin(), middle, taken.end());
  return {*std::min_element(taken.begin(), taken.end()), *middle, total / static_cast<double>(taken.size())};
}

/// What the machine reaches on the threads of a stream: a large matmul with packed weights, as linear layers use it, and a
/// copy of memory that no cache holds.
struct Ceilings {
  double flops;  ///< per second
  double bytes;  ///< per second, read and written

  /// `dtype`: of what is multiplied, f32 or bf16.
  explicit Ceilings(CpuStream& stream, Dtype dtype = Dtype::f32) {
    // Rows of 960 rather than 1024 floats: at a stride of a power of two, cache sets collide.
    constexpr int64_t kRows = 6144, kInner = 960, kBytes = 256 << 20, kPiece = 1 << 20;
    constexpr double kSeconds = 0.5;
    const size_t element = bytes_of(dtype);
    std::vector<std::byte> a(kRows * kInner * element), b(kInner * kInner * element), c(kRows * kInner * element);
    const View x(a.data(), dtype, Shape{kRows, kInner}), weight(b.data(), dtype, Shape{kInner, kInner}),
        y(c.data(), dtype, Shape{kRows, kInner});
    const Times matmul = time_calls(kSeconds, 1, [&] { multiply_rows(stream, x, weight, /*transposed=*/true, View(), y, /*add=*/false); });
    std::vector<std::byte> from(kBytes, std::byte{1}), to(kBytes);
    const Times copy = time_calls(kSeconds, 1, [&] {
      stream.pool().for_ranges(kBytes, kPiece, [&](int64_t begin, int64_t end) {
        std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
      });
    });
    flops = 2.0 * kRows * kInner * kInner / matmul.least;
    bytes = 2.0 * kBytes / copy.least;
  }
};

}  // namespace dino::bench
