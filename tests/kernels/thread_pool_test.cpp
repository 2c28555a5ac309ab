#include "kernels/thread_pool.h"

#include <catch2/catch.hpp>
#include <algorithm>
#include <atomic>
#include <stdexcept>

using namespace dino;

TEST_CASE("every chunk runs exactly once, for any number of threads and chunks") {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int64_t chunks : {0, 1, 2, 7, 1000})
      for (int repeat = 0; repeat < 20; ++repeat) {
        std::vector<int> runs(static_cast<size_t>(chunks), 0);
        pool.parallel(chunks, [&](int64_t chunk, int thread) {
          if (thread < 0 || thread >= threads) throw std::logic_error("thread out of range");
          ++runs[static_cast<size_t>(chunk)];
        });
        CHECK(std::count(runs.begin(), runs.end(), 1) == chunks);
      }
  }
}

TEST_CASE("ranges cover everything once and depend on the grain only") {
  ThreadPool pool(3);
  std::vector<int> seen(1001, 0);
  pool.for_ranges(1001, 64, [&](int64_t begin, int64_t end) {
    if (begin % 64 != 0) throw std::logic_error("a range must start at a multiple of the grain");
    for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
  });
  CHECK(std::count(seen.begin(), seen.end(), 1) == 1001);
}

TEST_CASE("an exception of a chunk reaches the caller and the pool works on") {
  ThreadPool pool(3);
  for (int repeat = 0; repeat < 50; ++repeat) {
    CHECK_THROWS_AS(pool.parallel(100, [](int64_t chunk, int) { if (chunk == 41) throw std::runtime_error("41"); }), std::runtime_error);
    std::atomic<int> runs = 0;
    pool.parallel(100, [&](int64_t, int) { ++runs; });
    CHECK(runs == 100);
  }
}
