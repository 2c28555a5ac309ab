#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

namespace dino {

/// A team of worker threads for data-parallel loops. The calling thread works too.
///
/// Chunks are handed out dynamically, so which thread runs a chunk is not determined: a loop body must write only
/// what its chunk owns. Then results cannot depend on the number of threads.
class ThreadPool {
 public:
  /// `threads` workers in all, counting the caller; 0 means one per processor of this process.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Runs `body(chunk, thread)` for every chunk in [0, chunks), `thread` in [0, threads()), and returns when all are
  /// done. The first exception of a chunk is thrown again here. Not reentrant: a body must not call `parallel`.
  void parallel(int64_t chunks, const std::function<void(int64_t chunk, int thread)>& body);

  /// Splits [0, n) into chunks of `grain` (the last may be shorter) and runs `body(begin, end)` for each.
  /// The chunks depend on n and grain only.
  template <class F>
  void for_ranges(int64_t n, int64_t grain, F&& body) {
    const int64_t chunks = (n + grain - 1) / grain;
    parallel(chunks, [&](int64_t chunk, int) {
      const int64_t begin = chunk * grain;
      body(begin, begin + grain < n ? begin + grain : n);
    });
  }

 private:
  void work(int thread);
  void run_chunks(int thread);

  std::vector<std::thread> workers_;
  const std::function<void(int64_t, int)>* body_ = nullptr;
  int64_t chunks_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<uint32_t> generation_{0};
  std::atomic<int> busy_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

}  // namespace dino
