#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "kernels/step_scalars.h"

struct CUstream_st;  // what a cudaStream_t points to: CUDA's headers stay in .cu files

namespace dino {

/// Where CUDA ops run: a stream of the current device, memory that ops use while they run, and the scalars of the current
/// step in device memory. Ops of one stream run one after the other, and nothing here waits for them unless it says so.
class CudaStream {
 public:
  /// Throws UsageError, with what to do, if this build, driver or machine cannot run CUDA.
  CudaStream();
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  CUstream_st* handle() const { return handle_; }

  /// At least `bytes` of device memory, aligned to 256 bytes, for one op until it ends. Throws Error when out of memory.
  std::byte* scratch(size_t bytes);

  /// Device memory for matmul libraries, of fixed size: its address may be part of a recorded graph.
  std::byte* workspace() const { return workspace_; }
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  /// The one object of type T of this stream, made when first asked for: where an op's `.cu` keeps library handles.
  template <class T>
  T& cache() {
    std::shared_ptr<void>& slot = caches_[&kKey<T>];
    if (!slot) slot = std::make_shared<T>();
    return *static_cast<T*>(slot.get());
  }

  /// The scalars of the current step, in device memory at an address that never changes.
  const StepScalars* step() const { return step_; }
  /// Hands over the scalars of the next step, in order with the ops before and after.
  void set_step(const StepScalars& step);

  /// Copies `bytes` from host memory that may change right after the call, in order with the ops. While a graph is being
  /// recorded the bytes become part of it.
  void upload(void* to, const void* from, size_t bytes);

  /// Copies inside of device memory, in order with the ops.
  void copy(void* to, const void* from, size_t bytes);

  /// Waits until all ops are done. Throws Error if one of them failed.
  void synchronize();

  int multiprocessors() const { return multiprocessors_; }

 private:
  struct Pinned;  // host memory that the device reads on its own
  std::byte* staging(size_t bytes);

  CUstream_st* handle_ = nullptr;
  std::byte *scratch_ = nullptr, *workspace_ = nullptr;
  size_t scratch_bytes_ = 0;
  std::vector<std::byte*> outgrown_;
  StepScalars* step_ = nullptr;
  std::unique_ptr<Pinned> pinned_;
  /// Its address stands for T: names would not do, which types of two files may share in their anonymous namespaces.
  template <class T>
  static inline const char kKey = 0;
  std::map<const void*, std::shared_ptr<void>> caches_;
  int multiprocessors_ = 0;
};

}  // namespace dino
