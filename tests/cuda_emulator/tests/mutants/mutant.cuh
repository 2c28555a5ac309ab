#pragma once

#include <cuda_runtime.h>

#include <vector>

/// Known-good kernels with one mistake each. A scenario is a function template over the mistake: `template <Bug bug> bool scenario()` returns whether the result is
/// right; scenario<Bug::none> is the good twin. A line that carries `// found: NAME` is where the finding must point.
enum class Bug {
  none,
  row_guard_write, row_guard_read, vector_guard, misaligned_vector, uninitialized_global, uninitialized_accumulator, uninitialized_shared, uninitialized_local,
  local_out_of_bounds, small_dynamic_shared, endless_recursion, plain_add, constant_write,
  no_sync_after_load, no_sync_in_reduction, no_sync_before_reuse, shuffle_in_branch, sync_in_branch, wrong_member_mask, no_threadfence, no_syncwarp,
  double_arrival, large_barrier_count, early_exit_at_barrier,
  zero_fill_guard, no_commit, wait_for_too_few, no_wait, no_sync_after_wait, no_sync_before_refill, ldmatrix_without_trans, ldmatrix_misaligned, misaligned_async_copy,
  use_after_free, host_pointer, no_shared_attribute, too_many_threads, no_stream_sync, no_event, pinned_reuse, long_copy, failed_assert
};

/// A call that failed.
struct CudaError {
  cudaError_t code;
};

inline void ok(cudaError_t error) {
  if (error != cudaSuccess) throw CudaError{error};
}

/// Waits for everything that was launched.
inline void finish() {
  ok(cudaGetLastError());
  ok(cudaDeviceSynchronize());
}

/// An array of the device; nobody writes it before `upload`.
template <class T>
class Device {
 public:
  explicit Device(std::size_t n) : size_(n) { ok(cudaMalloc(&data_, n * sizeof(T))); }
  explicit Device(const std::vector<T>& values) : Device(values.size()) { upload(values); }
  ~Device() { cudaFree(data_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  void upload(const std::vector<T>& values) { ok(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice)); }
  std::vector<T> download() const {
    std::vector<T> values(size_);
    ok(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

/// 0, 1, 2, … modulo `period`.
template <class T>
std::vector<T> ramp(int n, int period = 1 << 30) {
  std::vector<T> values(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) values[static_cast<std::size_t>(i)] = static_cast<T>(i % period);
  return values;
}
