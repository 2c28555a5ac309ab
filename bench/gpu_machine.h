#pragma once

#include "bench/machine.h"
#include "engine/ops.h"
#include "engine/run.h"

namespace dino::bench {

/// Waits until everything that was started on the context's device is done.
inline void wait_for(Context& context) {
  if constexpr (kWithCuda)
    if (context.device() == Device::cuda) context.cuda().synchronize();
}

/// Seconds of one of many calls that are started one after the other, without the host's part.
template <class Body>
double seconds_per_call(Context& context, const Body& body) {
  constexpr double kLeast = 0.05;
  body();
  wait_for(context);
  for (int64_t calls = 4;; calls *= 4) {
    const auto start = Clock::now();
    for (int64_t i = 0; i < calls; ++i) body();
    wait_for(context);
    if (const double seconds = seconds_since(start); seconds > kLeast) return seconds / static_cast<double>(calls);
  }
}

/// What a GPU reaches: a large matmul in the type that is timed, and a copy inside of its memory.
struct GpuCeilings {
  double flops, bytes;  ///< per second; bytes read and written

  GpuCeilings(Context& context, Dtype dtype) {
    constexpr int64_t kSize = 8192, kBytes = int64_t{1} << 30;
    const auto matrix = [&] {
      const Tensor tensor = context.tensor({dtype, Shape{kSize, kSize}});
      clear(tensor.view());
      return tensor;
    };
    const Tensor a = matrix(), b = matrix(), c = matrix();
    flops = 2.0 * kSize * kSize * kSize / seconds_per_call(context, [&] { run(context, Linear{}, {a, b}, {c}); });
    const Tensor from = context.tensor({Dtype::u8, Shape{kBytes}}), to = context.tensor({Dtype::u8, Shape{kBytes}});
    clear(from.view());
    bytes = 2.0 * kBytes / seconds_per_call(context, [&] { copy_elements(from.view(), to.view()); });
  }
};

}  // namespace dino::bench
