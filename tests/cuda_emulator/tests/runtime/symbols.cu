// __device__ and __constant__ variables by name. Any environment. Prints findings of kind api on stderr, on
// purpose: run without CUDA_EMULATOR_FAIL.
#include "expect.h"

__device__ int table[16] = {3, 1, 4, 1, 5};
__constant__ float factors[4] = {0.5f, 2.0f};
__device__ int untouched;

__global__ void read_both(float* out) {
  out[0] = static_cast<float>(table[2] + untouched);
  out[1] = factors[1];
  table[3] = 77;
}

int main() {
  float* out = nullptr;
  float host[2] = {};
  OK(cudaMalloc(&out, sizeof host));
  read_both<<<1, 1>>>(out);
  OK(cudaMemcpy(host, out, sizeof host, cudaMemcpyDeviceToHost));
  EXPECT(host[0] == 4 && host[1] == 2.0f);

  int values[3] = {10, 20, 30}, back[16] = {};
  OK(cudaMemcpyToSymbol(table, values, sizeof values, sizeof(int)));
  OK(cudaMemcpyFromSymbol(back, table, sizeof back));
  EXPECT(back[0] == 3 && back[1] == 10 && back[2] == 20 && back[3] == 30 && back[4] == 5 && back[15] == 0);
  const float doubled[2] = {1.0f, 4.0f};
  OK(cudaMemcpyToSymbolAsync(factors, doubled, sizeof doubled, 0, cudaMemcpyHostToDevice, nullptr));
  read_both<<<1, 1>>>(out);
  OK(cudaMemcpy(host, out, sizeof host, cudaMemcpyDeviceToHost));
  EXPECT(host[0] == 20 && host[1] == 4.0f);
  OK(cudaMemcpyFromSymbol(back, table, sizeof(int), 3 * sizeof(int)));
  EXPECT(back[0] == 77);

  void* address = nullptr;
  std::size_t bytes = 0;
  OK(cudaGetSymbolAddress(&address, table));
  OK(cudaGetSymbolSize(&bytes, table));
  EXPECT(address != nullptr && bytes == sizeof table);
  OK(cudaMemset(address, 0, bytes));
  OK(cudaMemcpyFromSymbol(back, table, sizeof(int)));
  EXPECT(back[0] == 0);

  static int no_symbol = 0;
  EXPECT_ERROR(cudaErrorInvalidSymbol, cudaGetSymbolAddress(&address, no_symbol));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemcpyToSymbol(table, back, sizeof table, 4));
  EXPECT(cudaMemcpyToSymbol(table, back, 4, 0, cudaMemcpyDeviceToHost) != cudaSuccess);
  OK(cudaFree(out));
  return status();
}
