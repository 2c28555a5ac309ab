#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../runtime/expect.h"

/// An array of the device with a copy on the host. Comparisons print the first difference; NaN is equal to
/// nothing but NaN.
template <class T>
class Array {
 public:
  explicit Array(std::size_t n, T value = T{}) : host(n, value) { upload(); }
  explicit Array(const std::vector<T>& values) : host(values) { upload(); }
  ~Array() { cudaFree(device_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  operator T*() const { return device_; }
  const std::vector<T>& fetch() {
    OK(cudaMemcpy(host.data(), device_, host.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }

  std::vector<T> host;

 private:
  void upload() {
    OK(cudaMalloc(&device_, host.size() * sizeof(T)));
    OK(cudaMemcpy(device_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  T* device_ = nullptr;
};

/// Waits for a kernel; `what` names it if it fails.
inline void finish(const char* what) {
  const cudaError_t launched = cudaGetLastError(), ran = cudaDeviceSynchronize();
  if (launched == cudaSuccess && ran == cudaSuccess) return;
  std::printf("failed: %s: %s\n", what, cudaGetErrorName(launched != cudaSuccess ? launched : ran));
  ++failures();
}

template <class T>
bool same(T a, T b) {
  return a == b || (a != a && b != b);
}

/// Every element is what it should be.
template <class T>
void expect_equal(const std::string& what, const std::vector<T>& got, const std::vector<T>& expected) {
  if (got.size() != expected.size()) {
    std::printf("failed: %s: %zu values, expected %zu\n", what.c_str(), got.size(), expected.size());
    ++failures();
    return;
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (same(got[i], expected[i])) continue;
    std::printf("failed: %s: [%zu] is %.17g, expected %.17g\n", what.c_str(), i, static_cast<double>(got[i]),
                static_cast<double>(expected[i]));
    ++failures();
    return;
  }
}

/// A distance in units in the last place, where both have the same sign or are tiny; NaN and infinities must
/// agree.
inline double ulps(float got, double expected) {
  const float rounded = static_cast<float>(expected);
  if (std::isnan(expected) || std::isinf(rounded)) return same(got, rounded) ? 0 : 1e30;
  if (!std::isfinite(got)) return 1e30;
  const double unit =
      std::fmax(std::ldexp(1.0, std::ilogb(rounded == 0 ? 1e-45f : rounded) - 23), std::ldexp(1.0, -149));
  return std::fabs(static_cast<double>(got) - expected) / unit;
}

inline double ulps(double got, long double expected) {
  const double rounded = static_cast<double>(expected);
  if (std::isnan(rounded) || std::isinf(rounded)) return same(got, rounded) ? 0 : 1e30;
  if (!std::isfinite(got)) return 1e30;
  const double unit =
      std::fmax(std::ldexp(1.0, std::ilogb(rounded == 0 ? 4.9e-324 : rounded) - 52), std::ldexp(1.0, -1074));
  return static_cast<double>(std::fabs(static_cast<long double>(got) - expected)) / unit;
}
