#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

/// Checks of the runtime programs: every failure is printed; status() is 1 if there was one.
inline int& failures() {
  static int count = 0;
  return count;
}

inline void expect(bool holds, const char* what, const char* file, int line) {
  if (holds) return;
  std::printf("%s:%d: failed: %s\n", file, line, what);
  ++failures();
}

inline void expect_error(cudaError_t got, cudaError_t wanted, const char* what, const char* file, int line) {
  if (got == wanted) return;
  std::printf("%s:%d: failed: %s: expected %s, got %s\n", file, line, what, cudaGetErrorName(wanted),
              cudaGetErrorName(got));
  ++failures();
}

#define EXPECT(condition) expect((condition), #condition, __FILE__, __LINE__)
#define EXPECT_ERROR(wanted, call) expect_error((call), (wanted), #call, __FILE__, __LINE__)
#define OK(call) EXPECT_ERROR(cudaSuccess, call)

inline int status() {
  if (failures() == 0) std::printf("passed\n");
  return failures() == 0 ? 0 : 1;
}

/// Adds `value` to n integers.
__global__ void add_value(int* numbers, int value, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) numbers[i] += value;
}

/// Copies n integers.
__global__ void copy_value(int* to, const int* from, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) to[i] = from[i];
}

inline int blocks_for(int n) { return (n + 127) / 128; }
