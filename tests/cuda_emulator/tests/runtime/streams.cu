// Streams and events: order, implicit synchronisation, host functions, and that CUDA_EMULATOR_STREAMS=late
// shows missing synchronisation. Run with CUDA_EMULATOR_STREAMS=eager, late and random (and some
// CUDA_EMULATOR_SEED); it reads the variable to know what to expect. Prints findings of kind api on stderr,
// on purpose: run without CUDA_EMULATOR_FAIL.
#include <cstring>
#include <thread>
#include <vector>

#include "expect.h"

constexpr int n = 256;
static bool late = false, eager = false;

static int read(const int* pinned) { return *static_cast<const volatile int*>(pinned); }

/// The wrong program reads pinned memory before the copy is known to be complete.
static void test_missing_host_synchronization() {
  int *pinned = nullptr, *device = nullptr;
  cudaStream_t stream;
  OK(cudaMallocHost(&pinned, n * sizeof(int)));
  OK(cudaMalloc(&device, n * sizeof(int)));
  OK(cudaStreamCreate(&stream));
  OK(cudaMemset(device, 0, n * sizeof(int)));
  OK(cudaDeviceSynchronize());
  pinned[0] = -1;
  add_value<<<blocks_for(n), 128, 0, stream>>>(device, 3, n);
  OK(cudaMemcpyAsync(pinned, device, n * sizeof(int), cudaMemcpyDeviceToHost, stream));
  if (late) EXPECT(read(pinned) == -1);  // stale
  if (eager) EXPECT(read(pinned) == 3);
  OK(cudaStreamSynchronize(stream));
  EXPECT(read(pinned) == 3);  // the right program
  // Reusing the source of an asynchronous copy before it is complete.
  pinned[0] = 10;
  OK(cudaMemcpyAsync(device, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
  pinned[0] = 20;
  int back = 0;
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(&back, device, sizeof(int), cudaMemcpyDeviceToHost));
  if (late) EXPECT(back == 20);
  if (eager) EXPECT(back == 10);
  // From pageable memory the value is taken at the call.
  int pageable = 30;
  OK(cudaMemcpyAsync(device, &pageable, sizeof(int), cudaMemcpyHostToDevice, stream));
  pageable = 40;
  OK(cudaMemcpyAsync(&back, device, sizeof(int), cudaMemcpyDeviceToHost,
                     stream));  // pageable target: synchronous
  EXPECT(back == 30);
  OK(cudaStreamDestroy(stream));
  OK(cudaFree(device));
  OK(cudaFreeHost(pinned));
}

/// Two streams without an event between producer and consumer.
static void test_missing_event() {
  int *a = nullptr, *b = nullptr, *pinned = nullptr;
  cudaStream_t producer, consumer;
  cudaEvent_t produced;
  OK(cudaMalloc(&a, n * sizeof(int)));
  OK(cudaMalloc(&b, n * sizeof(int)));
  OK(cudaMallocHost(&pinned, n * sizeof(int)));
  OK(cudaStreamCreateWithFlags(&producer, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&consumer, cudaStreamNonBlocking));
  OK(cudaEventCreateWithFlags(&produced, cudaEventDisableTiming));
  for (const bool correct : {false, true}) {
    OK(cudaMemset(a, 0, n * sizeof(int)));
    OK(cudaMemset(b, 0, n * sizeof(int)));
    OK(cudaDeviceSynchronize());
    add_value<<<blocks_for(n), 128, 0, producer>>>(a, 7, n);
    if (correct) {
      OK(cudaEventRecord(produced, producer));
      OK(cudaStreamWaitEvent(consumer, produced, 0));
    }
    copy_value<<<blocks_for(n), 128, 0, consumer>>>(b, a, n);
    OK(cudaMemcpyAsync(pinned, b, n * sizeof(int), cudaMemcpyDeviceToHost, consumer));
    OK(cudaStreamSynchronize(consumer));
    if (correct || eager)
      EXPECT(pinned[n - 1] == 7);
    else if (late)
      EXPECT(pinned[n - 1] == 0);
  }
  OK(cudaDeviceSynchronize());
  // A blocking copy of pageable memory returns before a non-blocking stream may rely on it; a device
  // synchronisation makes it safe.
  int value = 99;
  OK(cudaMemcpy(a, &value, sizeof value, cudaMemcpyHostToDevice));
  copy_value<<<1, 128, 0, consumer>>>(b, a, 1);
  OK(cudaMemcpyAsync(pinned, b, sizeof(int), cudaMemcpyDeviceToHost, consumer));
  OK(cudaStreamSynchronize(consumer));
  if (late) EXPECT(pinned[0] == 7);
  if (eager) EXPECT(pinned[0] == 99);
  OK(cudaDeviceSynchronize());
  copy_value<<<1, 128, 0, consumer>>>(b, a, 1);
  OK(cudaMemcpyAsync(pinned, b, sizeof(int), cudaMemcpyDeviceToHost, consumer));
  OK(cudaStreamSynchronize(consumer));
  EXPECT(pinned[0] == 99);
  OK(cudaEventDestroy(produced));
  OK(cudaStreamDestroy(producer));
  OK(cudaStreamDestroy(consumer));
  OK(cudaFree(a));
  OK(cudaFree(b));
  OK(cudaFreeHost(pinned));
}

/// The legacy default stream waits for blocking streams and they for it.
static void test_legacy_stream() {
  int *a = nullptr, *pinned = nullptr;
  cudaStream_t blocking, other;
  OK(cudaMalloc(&a, n * sizeof(int)));
  OK(cudaMallocHost(&pinned, n * sizeof(int)));
  OK(cudaStreamCreate(&blocking));
  OK(cudaStreamCreate(&other));
  OK(cudaMemsetAsync(a, 0, n * sizeof(int), blocking));
  add_value<<<blocks_for(n), 128>>>(a, 5, n);            // legacy: behind the memset
  add_value<<<blocks_for(n), 128, 0, other>>>(a, 5, n);  // behind the legacy stream
  OK(cudaMemcpyAsync(pinned, a, n * sizeof(int), cudaMemcpyDeviceToHost, other));
  OK(cudaStreamSynchronize(other));
  EXPECT(pinned[17] == 10);
  add_value<<<blocks_for(n), 128, 0, blocking>>>(a, 1, n);
  add_value<<<blocks_for(n), 128, 0, cudaStreamPerThread>>>(a, 0, 0);
  OK(cudaStreamSynchronize(nullptr));
  int back = 0;
  OK(cudaMemcpy(&back, a + 17, sizeof back, cudaMemcpyDeviceToHost));
  EXPECT(back == 11);
  OK(cudaStreamDestroy(blocking));
  OK(cudaStreamDestroy(other));
  OK(cudaFree(a));
  OK(cudaFreeHost(pinned));
}

static void test_events() {
  cudaEvent_t start, end, untimed;
  cudaStream_t stream;
  int* a = nullptr;
  OK(cudaMalloc(&a, n * sizeof(int)));
  OK(cudaStreamCreate(&stream));
  OK(cudaEventCreate(&start));
  OK(cudaEventCreate(&end));
  OK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
  OK(cudaEventQuery(start));  // never recorded: complete
  float ms = -1;
  EXPECT_ERROR(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, end));
  OK(cudaEventRecord(start, stream));
  OK(cudaMemsetAsync(a, 0, n * sizeof(int), stream));
  OK(cudaEventRecord(end, stream));
  OK(cudaEventRecord(untimed, stream));
  if (late) EXPECT_ERROR(cudaErrorNotReady, cudaEventElapsedTime(&ms, start, end));
  int polls = 0;
  while (cudaEventQuery(end) == cudaErrorNotReady) ++polls;
  (void)cudaGetLastError();
  if (late) EXPECT(polls == 1);
  if (eager) EXPECT(polls == 0);
  OK(cudaEventSynchronize(end));
  OK(cudaEventElapsedTime(&ms, start, end));
  EXPECT(ms >= 0);
  EXPECT_ERROR(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, untimed));
  OK(cudaEventDestroy(untimed));
  EXPECT_ERROR(cudaErrorInvalidResourceHandle, cudaEventRecord(untimed, stream));
  OK(cudaMemsetAsync(a, 0, 4, stream));
  polls = 0;
  while (cudaStreamQuery(stream) == cudaErrorNotReady) ++polls;
  if (late) EXPECT(polls == 1);
  OK(cudaStreamDestroy(stream));
  EXPECT_ERROR(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(stream));
  EXPECT_ERROR(cudaErrorInvalidResourceHandle, cudaMemsetAsync(a, 0, 4, stream));
  OK(cudaEventDestroy(start));
  OK(cudaEventDestroy(end));
  OK(cudaFree(a));
  (void)cudaGetLastError();
}

struct Record {
  int calls = 0;
  cudaError_t inside = cudaSuccess;
};

static void test_host_functions() {
  cudaStream_t stream;
  OK(cudaStreamCreate(&stream));
  Record record;
  const auto called = [](void* data) {
    auto* record = static_cast<Record*>(data);
    ++record->calls;
    record->inside = cudaStreamSynchronize(nullptr);  // not allowed
  };
  OK(cudaLaunchHostFunc(stream, called, &record));
  OK(cudaStreamAddCallback(
      stream,
      [](cudaStream_t, cudaError_t status, void* data) {
        if (status == cudaSuccess) static_cast<Record*>(data)->calls += 10;
      },
      &record, 0));
  if (late) EXPECT(record.calls == 0);
  OK(cudaStreamSynchronize(stream));
  EXPECT(record.calls == 11);
  EXPECT(record.inside == cudaErrorNotPermitted);
  OK(cudaStreamDestroy(stream));
  (void)cudaGetLastError();
}

static void test_properties_of_streams() {
  int least = 0, greatest = 0, priority = 0;
  OK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  EXPECT(least == 0 && greatest < 0);
  cudaStream_t stream;
  OK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
  OK(cudaStreamGetPriority(stream, &priority));
  EXPECT(priority == greatest);
  unsigned flags = 0;
  OK(cudaStreamGetFlags(stream, &flags));
  EXPECT(flags == cudaStreamNonBlocking);
  unsigned long long one = 0, two = 0;
  OK(cudaStreamGetId(stream, &one));
  OK(cudaStreamGetId(nullptr, &two));
  EXPECT(one != two);
  OK(cudaStreamDestroy(stream));
}

static void test_threads() {
  constexpr int threads = 4, rounds = 50;
  std::vector<int> results(threads);
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([t, &results] {
      cudaStream_t stream;
      int *device = nullptr, *pinned = nullptr;
      OK(cudaStreamCreate(&stream));
      OK(cudaMalloc(&device, n * sizeof(int)));
      OK(cudaMallocHost(&pinned, n * sizeof(int)));
      OK(cudaMemsetAsync(device, 0, n * sizeof(int), stream));
      for (int i = 0; i < rounds; ++i) {
        add_value<<<blocks_for(n), 128, 0, stream>>>(device, t + 1, n);
        OK(cudaLaunchHostFunc(
            stream, [](void* data) { ++*static_cast<int*>(data); }, &results[t]));
      }
      OK(cudaMemcpyAsync(pinned, device, n * sizeof(int), cudaMemcpyDeviceToHost, stream));
      OK(cudaStreamSynchronize(stream));
      EXPECT(pinned[n - 1] == (t + 1) * rounds && results[t] == rounds);
      OK(cudaFree(device));
      OK(cudaFreeHost(pinned));
      OK(cudaStreamDestroy(stream));
    });
  }
  for (std::thread& worker : workers) worker.join();
}

int main() {
  const char* mode = std::getenv("CUDA_EMULATOR_STREAMS");
  late = mode && std::strcmp(mode, "late") == 0;
  eager = !mode || std::strcmp(mode, "eager") == 0;
  test_missing_host_synchronization();
  test_missing_event();
  test_legacy_stream();
  test_events();
  test_host_functions();
  test_properties_of_streams();
  test_threads();
  return status();
}
