#include "kernels/batch_norm.h"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

namespace dino {
inline namespace running_stats_cu {

using namespace cuda;

constexpr int kThreads = 256;

/// As on the CPU, in double: a running mean moves by little.
__global__ void __launch_bounds__(kThreads)
    mix(const float* old, const float* batch, double momentum, double factor, int64_t channels, float* mixed) {
  const int64_t channel = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (channel >= channels) return;
  const double before = static_cast<double>(old[channel]), now = static_cast<double>(batch[channel]);
  mixed[channel] = static_cast<float>((1 - momentum) * before + momentum * (factor * now));
}

}  // namespace running_stats_cu

void RunningStats::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t channels = in[mean].count();
  const auto start = [&](const View& old, const View& batch, double factor, const View& mixed) {
    launch(stream, "running_stats", mix, {blocks_for(channels, kThreads), kThreads}, old.as<float>(), batch.as<float>(),
           momentum, factor, channels, mixed.as<float>());
  };
  start(in[running_mean], in[mean], 1, out[new_mean]);
  start(in[running_var], in[var], static_cast<double>(count) / static_cast<double>(count - 1), out[new_var]);
}

}  // namespace dino
