#include "kernels/center.h"

#include "kernels/column_sums.cuh"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

// The center is one row: what counts is the pass over x [rows, cols], which column_sums() reads once.
namespace dino {
inline namespace center_cu {

using namespace cuda;

constexpr int kThreads = 256;

/// A pack of N prototypes per thread.
template <int N>
__global__ void __launch_bounds__(kThreads) update_center(const float* center, const float* sums, const float* healthy,
                                                          float keep, float rest, int64_t packs, float* updated) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  float value[N], sum[N];
  load(center + i * N, value);
  if (*healthy != 0) {
    load(sums + i * N, sum);
#pragma unroll
    for (int e = 0; e < N; ++e) value[e] = fmaf(keep, value[e], rest * sum[e]);
  }
  store(updated + i * N, value);
}

}  // namespace center_cu

void ColumnSums::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const bool add = in[before].defined();
  if (add && in[before].data != out[sums].data)
    stream.copy(out[sums].data, in[before].data, static_cast<size_t>(in[before].count()) * sizeof(float));
  column_sums(stream, in[x], out[sums], add ? GradMode::add : GradMode::write,
              stream.scratch(column_sums_scratch(in[x])));
}

void UpdateCenter::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const bool packed =
      fits_packs<float, 4>(in[center]) && fits_packs<float, 4>(in[sums]) && fits_packs<float, 4>(out[updated]);
  const int64_t packs = in[center].count() / (packed ? 4 : 1);
  launch(stream, "update center", packed ? update_center<4> : update_center<1>, {blocks_for(packs, kThreads), kThreads},
         in[center].as<float>(), in[sums].as<float>(), in[healthy].as<float>(), momentum,
         (1 - momentum) / static_cast<double>(rows), packs, out[updated].as<float>());
}

}  // namespace dino
