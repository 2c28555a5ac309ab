#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels/cuda_stream.h"
#include "kernels/device.h"
#include "kernels/step_scalars.h"
#include "kernels/thread_pool.h"

namespace dino {

/// Where CPU ops run: the thread pool, scratch memory per thread, and the scalars of the current step.
/// Ops of one stream run one after the other. On a GPU, a CudaStream takes its place.
class CpuStream {
 public:
  /// `threads` as for ThreadPool: 0 means one per processor.
  explicit CpuStream(int threads = 0) : pool_(threads), scratch_(static_cast<size_t>(pool_.threads())) {}

  ThreadPool& pool() { return pool_; }

  /// At least `bytes` of 64-byte aligned memory of thread `thread`, valid until the next call for that thread.
  std::byte* scratch(int thread, size_t bytes);

  /// At least `bytes` of 64-byte aligned memory shared by all threads of one op, valid until its next call.
  /// It must be asked for outside of parallel sections.
  std::byte* shared_scratch(size_t bytes);

  /// The same for copies of what an op reads and writes, so apart from what the op itself asks for.
  std::byte* wide_scratch(size_t bytes);

  /// The one object of type T of this stream, made when first asked for: where an op's `.cpp` keeps library primitives
  /// that are costly to create. It must be asked for outside of parallel sections.
  template <class T>
  T& cache() {
    std::shared_ptr<void>& slot = caches_[&kKey<T>];
    if (!slot) slot = std::make_shared<T>();
    return *static_cast<T*>(slot.get());
  }

  /// The scalars of the current step; set by the training loop before the step.
  const StepScalars& step() const { return step_; }
  void set_step(const StepScalars& step) { step_ = step; }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  struct Block {
    std::unique_ptr<std::byte, Free> data;
    size_t bytes = 0;
    std::byte* at_least(size_t bytes);
  };
  ThreadPool pool_;
  std::vector<Block> scratch_;
  Block shared_, wide_;
  /// Its address stands for T: names would not do, which types of two files may share in their anonymous namespaces.
  template <class T>
  static inline const char kKey = 0;
  std::map<const void*, std::shared_ptr<void>> caches_;
  StepScalars step_;
};

/// The streams that every op of this build must have overloads for.
using Streams = std::conditional_t<kWithCuda, std::tuple<CpuStream, CudaStream>, std::tuple<CpuStream>>;

}  // namespace dino
