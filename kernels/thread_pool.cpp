#include "kernels/thread_pool.h"

#include <omp.h>
#include <sched.h>

#include <exception>
#include <utility>

namespace dino {
namespace {

/// A worker looks for new work this many times before it goes to sleep: some tens of microseconds, enough to bridge
/// the gap between two ops, too short to take a processor from anybody else.
constexpr int kSpins = 4000;

int processors_of_this_process() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return CPU_COUNT(&set);
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  if (threads <= 0) threads = processors_of_this_process();
  // oneDNN is built on OpenMP: with one OpenMP thread per pool thread it computes inline and starts no team.
  omp_set_num_threads(1);
  for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel(int64_t chunks, const std::function<void(int64_t, int)>& body) {
  if (chunks <= 0) return;
  omp_set_num_threads(1);  // the caller may be another thread than the one that made the pool
  if (workers_.empty() || chunks == 1) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) body(chunk, 0);
    return;
  }
  body_ = &body;
  chunks_ = chunks;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  run_chunks(0);
  for (int spins = 0; busy_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) {
      pause();
    } else if (const int busy = busy_.load(); busy != 0) {
      busy_.wait(busy);
    }
  }
  if (failed_.exchange(false)) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::run_chunks(int thread) {
  try {
    for (int64_t chunk; (chunk = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;) (*body_)(chunk, thread);
  } catch (...) {
    if (!failed_.exchange(true)) error_ = std::current_exception();
    next_.store(chunks_, std::memory_order_relaxed);
  }
}

void ThreadPool::work(int thread) {
  omp_set_num_threads(1);
  uint32_t seen = 0;
  for (;;) {
    for (int spins = 0; generation_.load(std::memory_order_acquire) == seen && spins < kSpins; ++spins) pause();
    generation_.wait(seen, std::memory_order_acquire);
    seen = generation_.load(std::memory_order_acquire);
    if (stop_) return;
    run_chunks(thread);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_all();
  }
}

}  // namespace dino
