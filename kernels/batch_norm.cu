#include "kernels/batch_norm.cuh"
#include "kernels/gelu.cuh"

// Forward reads x twice: for the statistics, and to normalise it.
namespace dino {
inline namespace batch_norm_cu {

using namespace cuda;
using namespace cuda::batch_norm;

/// {origin, Σ (x − origin), Σ (x − origin)²} of every chunk and channel. The origin is the mean of the
/// chunk's first rows, one per group, so that a mean far from zero costs no accuracy.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) sum_moments(Cut cut, const T* x, float* moments) {
  __shared__ alignas(16) GroupSum<N> groups;
  const Place<N> place(cut);
  float value[N] = {}, origins[1][N], sum[N] = {}, square[N] = {};
  if (place.row < place.end) load(x + place.row * cut.channels + place.channel, value);
  const int64_t chunk_rows = min(cut.chunk_rows, cut.rows - blockIdx.x * cut.chunk_rows);
  const float first = groups.of(value, cut.width_log2) / static_cast<float>(min(int64_t{place.groups}, chunk_rows));
  write_sum<N>(cut, moments, 3, 0, first);
  groups.spread({first}, origins, cut.width_log2);
  const float(&origin)[N] = origins[0];
  const auto add = [&] {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float centered = value[i] - origin[i];
      sum[i] += centered;
      square[i] = fmaf(centered, centered, square[i]);
    }
  };
  if (place.row < place.end) add();
#pragma unroll 4
  for (int64_t row = place.row + place.groups; row < place.end; row += place.groups) {
    load(x + row * cut.channels + place.channel, value);
    add();
  }
  write_sum<N>(cut, moments, 3, 1, groups.of(sum, cut.width_log2));
  write_sum<N>(cut, moments, 3, 2, groups.of(square, cut.width_log2));
}

/// Joins chunks: all moments are taken about the origin of the first one, which in double loses nothing.
__global__ void __launch_bounds__(kTailColumns* kTailGroups)
    finish_moments(Cut cut, const float* moments, float eps, float* mean, float* var, float* rstd) {
  __shared__ TailSums sums;
  __shared__ float origins[kTailColumns];
  const int64_t channel = int64_t{blockIdx.x} * kTailColumns + threadIdx.x;
  const bool exists = channel < cut.channels;
  double sum = 0, square = 0;
  if (threadIdx.y == 0) origins[threadIdx.x] = exists ? moments[channel] : 0.0f;
  __syncthreads();
  const double origin = static_cast<double>(origins[threadIdx.x]);
  if (exists)
#pragma unroll 4
    for (int64_t chunk = threadIdx.y; chunk < cut.chunks; chunk += kTailGroups) {
      const float* m = moments + chunk * 3 * cut.channels + channel;
      const double count = static_cast<double>(min(cut.chunk_rows, cut.rows - chunk * cut.chunk_rows));
      const double shift = static_cast<double>(m[0]) - origin, centered = static_cast<double>(m[cut.channels]);
      sum += centered + count * shift;
      square += static_cast<double>(m[2 * cut.channels]) + shift * (2 * centered + count * shift);
    }
  sums.add(sum, square);
  if (threadIdx.y > 0 || !exists) return;
  const double rows = static_cast<double>(cut.rows), center = sum / rows, variance = square / rows - center * center;
  mean[channel] = static_cast<float>(origin + center);
  var[channel] = static_cast<float>(variance < 0 ? 0 : variance);  // a NaN stays one
  rstd[channel] = 1 / sqrtf(var[channel] + eps);
}

__global__ void __launch_bounds__(kThreads)
    take_running(const float* running_mean, const float* running_var, int64_t channels, float eps, float* mean,
                 float* var, float* rstd) {
  const int64_t channel = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (channel >= channels) return;
  mean[channel] = running_mean[channel];
  var[channel] = running_var[channel];
  rstd[channel] = 1 / sqrtf(running_var[channel] + eps);
}

template <Activation kActivation>
__device__ float activate(float x) {
  if (kActivation == Activation::relu) return x < 0 ? 0 : x;  // NaN stays NaN
  if (kActivation == Activation::gelu) return gelu(x);
  if (kActivation == Activation::gelu_tanh) return gelu_tanh(x);
  return x;
}

template <Activation kActivation, class T, int N>
__global__ void __launch_bounds__(kThreads) normalize(Cut cut, Channels channels, const T* x, const T* residual, T* y) {
  __shared__ alignas(16) GroupSum<N> groups;
  const Place<N> place(cut);
  const Affine<N> affine(cut, channels, groups);
#pragma unroll kRowsAtOnce < N>
  for (int64_t row = place.row; row < place.end; row += place.groups) {
    const int64_t at = row * cut.channels + place.channel;
    float value[N];
    load(x + at, value);
    affine.apply(value, residual, at);
#pragma unroll
    for (float& v : value) v = activate<kActivation>(v);
    store(y + at, value);
  }
}

}  // namespace batch_norm_cu

void BatchNorm::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const std::array values{in[x], in[residual], out[y]};
  const std::array per_channel{in[gamma], in[beta], out[mean], out[rstd]};
  const int64_t channels = in[x].cols();
  float *means = out[mean].as<float>(), *vars = out[var].as<float>(), *rstds = out[rstd].as<float>();
  with_kernel(*this, values, per_channel, [&](auto zero, auto pack, auto activation) {
    using T = decltype(zero);
    constexpr int kPack = decltype(pack)::value;
    const T* data = in[x].as<T>();
    if (training) {
      const Cut cut(in[x], kPack, kSumBlocks);
      float* moments =
          reinterpret_cast<float*>(stream.scratch(static_cast<size_t>(cut.chunks * 3 * channels) * sizeof(float)));
      launch(stream, "batch_norm: moments", sum_moments<T, kPack>, cut.grid(), cut, data, moments);
      launch(stream, "batch_norm: statistics", finish_moments,
             {blocks_for(channels, kTailColumns), {kTailColumns, kTailGroups}}, cut, moments, eps, means, vars, rstds);
    } else {
      launch(stream, "batch_norm: running statistics", take_running, {blocks_for(channels, kThreads), kThreads},
             in[running_mean].as<float>(), in[running_var].as<float>(), channels, eps, means, vars, rstds);
    }
    const Cut cut(in[x], kPack, kMapBlocks);
    launch(stream, "batch_norm", normalize<decltype(activation)::value, T, kPack>, cut.grid(), cut,
           channels_of(in, out), data, in[residual].as<T>(), out[y].as<T>());
  });
}

}  // namespace dino
