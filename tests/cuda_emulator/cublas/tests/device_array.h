#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <library_types.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cublas/tests/mock_runtime.h"

/// Arrays on the mock's device, converted by the toolkit's own host functions (not by the code under test).
namespace test {

inline std::size_t bytes_of(cudaDataType type) { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }

/// Unit roundoff: the relative error of one rounding to the type.
inline double unit_of(cudaDataType type) {
  return type == CUDA_R_64F ? 0x1p-53 : type == CUDA_R_32F ? 0x1p-24 : type == CUDA_R_16F ? 0x1p-11 : 0x1p-8;
}

inline double get(cudaDataType type, const void* from) {
  const auto as = [&](auto value) {
    std::memcpy(&value, from, sizeof value);
    return value;
  };
  switch (type) {
    case CUDA_R_64F:
      return as(double{});
    case CUDA_R_32F:
      return as(float{});
    case CUDA_R_16F:
      return __half2float(as(__half{}));
    default:
      return __bfloat162float(as(__nv_bfloat16{}));
  }
}

inline void put(cudaDataType type, void* to, double value) {
  const auto as = [&](auto converted) { std::memcpy(to, &converted, sizeof converted); };
  switch (type) {
    case CUDA_R_64F:
      return as(value);
    case CUDA_R_32F:
      return as(static_cast<float>(value));
    case CUDA_R_16F:
      return as(__float2half_rn(static_cast<float>(value)));
    default:
      return as(__float2bfloat16_rn(static_cast<float>(value)));
  }
}

inline double rounded(cudaDataType type, double value) {
  unsigned char buffer[8];
  put(type, buffer, value);
  return get(type, buffer);
}

/// `size` elements of a type on the device; freed at the end.
class DeviceArray {
 public:
  DeviceArray(cudaDataType type, std::size_t size)
      : type_(type), size_(size), address_(mock::allocate(std::max<std::size_t>(size, 1) * bytes_of(type))) {}
  DeviceArray(cudaDataType type, const std::vector<double>& values) : DeviceArray(type, values.size()) {
    write(values);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { mock::release(address_); }

  void* address() const { return address_; }
  template <class Element>
  Element* as() const {
    return static_cast<Element*>(address_);
  }
  void* element(std::size_t i) const { return static_cast<char*>(address_) + i * bytes_of(type_); }
  std::size_t bytes() const { return size_ * bytes_of(type_); }

  void write(const std::vector<double>& values) {
    auto* to = static_cast<char*>(mock::host(address_, bytes()));
    for (std::size_t i = 0; i < values.size(); ++i) put(type_, to + i * bytes_of(type_), values[i]);
    mock::mark(address_, bytes());
  }
  std::vector<double> read() const {
    std::vector<double> values(size_);
    const auto* from = static_cast<const char*>(mock::host(address_, bytes()));
    for (std::size_t i = 0; i < size_; ++i) values[i] = get(type_, from + i * bytes_of(type_));
    return values;
  }

 private:
  cudaDataType type_;
  std::size_t size_;
  void* address_;
};

/// Uniform in [-1, 1), rounded to the type.
inline std::vector<double> random_values(cudaDataType type, std::size_t size, unsigned seed) {
  std::minstd_rand random(seed + 1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> values(size);
  for (double& value : values) value = rounded(type, uniform(random));
  return values;
}

inline bool contains(const std::vector<std::string>& reports, const std::string& words) {
  for (const std::string& report : reports) {
    if (report.find(words) != std::string::npos) return true;
  }
  return false;
}

}  // namespace test
