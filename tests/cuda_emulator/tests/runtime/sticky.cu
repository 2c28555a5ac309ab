// A fault in a kernel loses the context until cudaDeviceReset. Any environment. Prints findings on stderr, on
// purpose: run without CUDA_EMULATOR_FAIL.
#include "expect.h"

__device__ int counter = 5;

__global__ void fault(int* nowhere) { *nowhere = 1; }
__global__ void count_up(int* out) { *out = ++counter; }

int main() {
  int *a = nullptr, *b = nullptr;
  OK(cudaMalloc(&a, 64));
  fault<<<1, 1>>>(nullptr);
  EXPECT_ERROR(cudaErrorIllegalAddress, cudaDeviceSynchronize());
  EXPECT_ERROR(cudaErrorIllegalAddress, cudaGetLastError());
  EXPECT_ERROR(cudaErrorIllegalAddress, cudaGetLastError());  // sticky: reading does not clear it
  EXPECT_ERROR(cudaErrorIllegalAddress, cudaMalloc(&b, 64));
  EXPECT_ERROR(cudaErrorIllegalAddress, cudaMemset(a, 0, 64));
  EXPECT_ERROR(cudaErrorIllegalAddress, cudaPeekAtLastError());
  OK(cudaDeviceReset());
  OK(cudaGetLastError());
  EXPECT_ERROR(cudaErrorInvalidValue, cudaFree(a));  // went with the context
  (void)cudaGetLastError();
  OK(cudaMalloc(&b, 64));
  count_up<<<1, 1>>>(b);
  int value = 0;
  OK(cudaMemcpy(&value, b, sizeof value, cudaMemcpyDeviceToHost));
  EXPECT(value == 6);  // the module was loaded again, with its initial values
  OK(cudaFree(b));
  return status();
}
