// Allocation, copies, memset, pointer attributes, pools, and the errors of their wrong use. Any environment
// (CUDA_EMULATOR_STREAMS=eager|late|random). Prints findings of kind api on stderr, on purpose: run without
// CUDA_EMULATOR_FAIL.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstring>
#include <vector>

#include "expect.h"

static void test_round_trip() {
  constexpr int n = 1000;
  std::vector<int> numbers(n), back(n);
  for (int i = 0; i < n; ++i) numbers[i] = i * 7;
  int *a = nullptr, *b = nullptr;
  OK(cudaMalloc(&a, n * sizeof(int)));
  OK(cudaMalloc(&b, n * sizeof(int)));
  EXPECT(reinterpret_cast<std::uintptr_t>(a) % 256 == 0);
  OK(cudaMemcpy(a, numbers.data(), n * sizeof(int), cudaMemcpyHostToDevice));
  add_value<<<blocks_for(n), 128>>>(a, 5, n);
  OK(cudaGetLastError());
  OK(cudaMemcpy(b, a, n * sizeof(int), cudaMemcpyDeviceToDevice));
  OK(cudaMemcpy(back.data(), b, n * sizeof(int), cudaMemcpyDefault));
  bool same = true;
  for (int i = 0; i < n; ++i) same = same && back[i] == numbers[i] + 5;
  EXPECT(same);
  OK(cudaFree(a));
  OK(cudaFree(b));
}

static void test_poison() {
  std::uint8_t* p = nullptr;
  OK(cudaMalloc(&p, 64));
  OK(cudaMemset(p + 5, 0x11, 6));
  std::uint8_t host[64];
  OK(cudaMemcpy(host, p, 64, cudaMemcpyDeviceToHost));
  bool as_expected = true;
  for (int i = 0; i < 64; ++i) as_expected = as_expected && host[i] == (i >= 5 && i < 11 ? 0x11 : 0xFF);
  EXPECT(as_expected);  // bytes that nobody wrote arrive as 0xFF

  std::uint8_t* q = nullptr;
  OK(cudaMalloc(&q, 64));
  OK(cudaMemcpy(q + 1, p + 4, 8,
                cudaMemcpyDeviceToDevice));  // misaligned: byte 4 is unwritten, 5..10 written, 11 unwritten
  OK(cudaMemcpy(host, q, 64, cudaMemcpyDeviceToHost));
  as_expected = true;
  for (int i = 0; i < 64; ++i) as_expected = as_expected && host[i] == (i >= 2 && i < 8 ? 0x11 : 0xFF);
  EXPECT(as_expected);
  OK(cudaFree(p));
  OK(cudaFree(q));
}

static void test_wrong_use() {
  char* p = nullptr;
  OK(cudaMalloc(&p, 100));
  char host[200] = {};
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemcpy(p, host, 101, cudaMemcpyHostToDevice));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaGetLastError());
  EXPECT_ERROR(cudaSuccess, cudaGetLastError());
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemcpy(host, p, 10, cudaMemcpyHostToDevice));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemcpy(p, host, 10, cudaMemcpyDeviceToDevice));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemcpy(nullptr, host, 10, cudaMemcpyHostToDevice));
  EXPECT_ERROR(cudaErrorInvalidMemcpyDirection, cudaMemcpy(p, host, 10, static_cast<cudaMemcpyKind>(9)));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemset(p + 50, 0, 51));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemset(host, 0, 10));
  EXPECT_ERROR(cudaErrorInvalidPitchValue, cudaMemcpy2D(p, 8, host, 16, 9, 2, cudaMemcpyHostToDevice));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaFree(p + 1));
  OK(cudaFree(p));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaFree(p));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaFree(host));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemcpy(host, p, 10, cudaMemcpyDeviceToHost));
  OK(cudaFree(nullptr));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMalloc(nullptr, 10));
  EXPECT_ERROR(cudaErrorMemoryAllocation, cudaMalloc(&p, std::size_t{1} << 45));
  EXPECT_ERROR(cudaErrorMemoryAllocation, cudaPeekAtLastError());
  EXPECT_ERROR(cudaErrorMemoryAllocation, cudaGetLastError());
  OK(cudaPeekAtLastError());
  EXPECT(std::strcmp(cudaGetErrorName(cudaErrorInvalidValue), "cudaErrorInvalidValue") == 0);
  EXPECT(std::strcmp(cudaGetErrorString(cudaErrorIllegalAddress),
                     "an illegal memory access was encountered") == 0);
}

static void test_boxes() {
  constexpr std::size_t width = 13, height = 5, depth = 3;
  std::size_t pitch = 0;
  char* p = nullptr;
  OK(cudaMallocPitch(&p, &pitch, width, height));
  EXPECT(pitch >= width && pitch % 256 == 0);
  char from[height * 20], to[height * 16];
  for (int i = 0; i < int(sizeof from); ++i) from[i] = char(i);
  std::memset(to, 77, sizeof to);
  OK(cudaMemcpy2D(p, pitch, from, 20, width, height, cudaMemcpyHostToDevice));
  OK(cudaMemset2D(p + 2, pitch, 9, 3, 2));
  OK(cudaMemcpy2D(to, 16, p, pitch, width, height, cudaMemcpyDeviceToHost));
  bool same = true;
  for (std::size_t y = 0; y < height; ++y) {
    for (std::size_t x = 0; x < 16; ++x) {
      const char wanted = x >= width ? 77 : (y < 2 && x >= 2 && x < 5) ? 9 : from[y * 20 + x];
      same = same && to[y * 16 + x] == wanted;
    }
  }
  EXPECT(same);
  OK(cudaFree(p));

  cudaPitchedPtr box{};
  OK(cudaMalloc3D(&box, make_cudaExtent(width, height, depth)));
  OK(cudaMemset3D(box, 3, make_cudaExtent(width, height, depth)));
  char all[width * height * depth] = {};
  cudaMemcpy3DParms params{};
  params.srcPtr = box;
  params.dstPtr = make_cudaPitchedPtr(all, width, width, height);
  params.extent = make_cudaExtent(width, height, depth);
  params.kind = cudaMemcpyDeviceToHost;
  OK(cudaMemcpy3D(&params));
  same = true;
  for (const char c : all) same = same && c == 3;
  EXPECT(same);
  OK(cudaFree(box.ptr));
}

static void test_host_memory() {
  int* pinned = nullptr;
  OK(cudaMallocHost(&pinned, 4096));
  pinned[3] = 42;
  void* seen = nullptr;
  OK(cudaHostGetDevicePointer(&seen, pinned, 0));
  EXPECT(seen == pinned);
  add_value<<<1, 128>>>(pinned, 1, 8);
  OK(cudaDeviceSynchronize());
  EXPECT(pinned[3] == 43);
  cudaPointerAttributes attributes{};
  OK(cudaPointerGetAttributes(&attributes, pinned + 1));
  EXPECT(attributes.type == cudaMemoryTypeHost);
  unsigned flags = 0;
  OK(cudaHostGetFlags(&flags, pinned));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaFree(pinned));
  OK(cudaFreeHost(pinned));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaFreeHost(pinned));

  std::vector<int> mine(256, 1);
  OK(cudaHostRegister(mine.data(), 1024, cudaHostRegisterDefault));
  EXPECT_ERROR(cudaErrorHostMemoryAlreadyRegistered,
               cudaHostRegister(mine.data() + 3, 8, cudaHostRegisterDefault));
  add_value<<<2, 128>>>(mine.data(), 2, 256);
  OK(cudaHostUnregister(mine.data()));
  EXPECT(mine[255] == 3);
  EXPECT_ERROR(cudaErrorHostMemoryNotRegistered, cudaHostUnregister(mine.data()));
  OK(cudaPointerGetAttributes(&attributes, mine.data()));
  EXPECT(attributes.type == cudaMemoryTypeUnregistered);

  int* managed = nullptr;
  OK(cudaMallocManaged(&managed, 64));
  managed[0] = 5;
  add_value<<<1, 32>>>(managed, 3, 1);
  OK(cudaDeviceSynchronize());
  EXPECT(managed[0] == 8);
  OK(cudaPointerGetAttributes(&attributes, managed));
  EXPECT(attributes.type == cudaMemoryTypeManaged);
  OK(cudaFree(managed));
}

static void test_pools() {
  cudaMemPool_t pool = nullptr;
  OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  std::uint64_t threshold = 1 << 20, read = 0;
  OK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  OK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &read));
  EXPECT(read == threshold);
  cudaStream_t stream;
  OK(cudaStreamCreate(&stream));
  int* p = nullptr;
  OK(cudaMallocAsync(&p, 512, stream));
  OK(cudaMemsetAsync(p, 0, 512, stream));
  add_value<<<1, 128, 0, stream>>>(p, 4, 128);
  int value = 0;
  OK(cudaMemcpyAsync(&value, p + 100, 4, cudaMemcpyDeviceToHost, stream));
  OK(cudaFreeAsync(p, stream));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaFreeAsync(p, stream));
  OK(cudaStreamSynchronize(stream));
  EXPECT(value == 4);
  EXPECT_ERROR(cudaErrorInvalidValue, cudaMemset(p, 0, 4));
  OK(cudaStreamDestroy(stream));
}

static void test_accounting() {
  std::size_t free_before = 0, free_after = 0, total = 0;
  OK(cudaMemGetInfo(&free_before, &total));
  void* p = nullptr;
  OK(cudaMalloc(&p, 1 << 20));
  OK(cudaMemGetInfo(&free_after, &total));
  EXPECT(free_before - free_after == 1 << 20);
  OK(cudaFree(p));
  OK(cudaMemGetInfo(&free_after, &total));
  EXPECT(free_before == free_after && free_before <= total);
}

static void test_host_cannot_read_device_memory() {
  int* p = nullptr;
  OK(cudaMalloc(&p, 64));
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    const volatile int* device = p;
    const int value = *device;
    _exit(value == 0 ? 0 : 1);
  }
  int result = 0;
  waitpid(child, &result, 0);
  EXPECT(WIFSIGNALED(result) && WTERMSIG(result) == SIGSEGV);
  OK(cudaFree(p));
}

int main() {
  test_round_trip();
  test_poison();
  test_wrong_use();
  test_boxes();
  test_host_memory();
  test_pools();
  test_accounting();
  test_host_cannot_read_device_memory();
  return status();
}
