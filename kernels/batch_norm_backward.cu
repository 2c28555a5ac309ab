#include "kernels/batch_norm.cuh"
#include "kernels/gelu.cuh"

// Backward reads x and dy (and y for ReLU) twice: for sums over the rows, and for dx.
namespace dino {
inline namespace batch_norm_backward_cu {

using namespace cuda;
using namespace cuda::batch_norm;

/// What backward reads of forward and of the gradient; y only for ReLU, residual only for GELU.
template <class T>
struct Kept {
  const T *x, *residual, *y, *dy;
};

/// x and the gradient with respect to the activation's argument.
template <Activation kActivation, class T, int N, int More>
__device__ void load_gradient(const Kept<T>& kept, const Affine<N, More>& affine, int64_t at, float (&x)[N],
                              float (&g)[N]) {
  load(kept.x + at, x);
  load(kept.dy + at, g);
  float argument[N];
  if (kActivation == Activation::relu) {
    load(kept.y + at, argument);
#pragma unroll
    for (int i = 0; i < N; ++i) g[i] = argument[i] > 0 ? g[i] : 0;
  }
  if (is_gelu(kActivation)) {
#pragma unroll
    for (int i = 0; i < N; ++i) argument[i] = x[i];
    affine.apply(argument, kept.residual, at);
#pragma unroll
    for (int i = 0; i < N; ++i)
      g[i] *= kActivation == Activation::gelu ? gelu_slope(argument[i]) : gelu_tanh_slope(argument[i]);
  }
}

/// {Σ g, Σ g · (x − mean)} of every chunk and channel; on the way, the gradient of the residual, which is g
/// itself.
template <Activation kActivation, class T, int N>
__global__ void __launch_bounds__(kThreads)
    sum_gradients(Cut cut, Channels channels, Kept<T> kept, T* dresidual, bool add, float* sums) {
  __shared__ alignas(16) GroupSum<N> groups;
  const Place<N> place(cut);
  float sum[N] = {}, sum_x[N] = {};
  const Affine<N> affine(cut, channels, groups);
#pragma unroll kRowsAtOnce < N>
  for (int64_t row = place.row; row < place.end; row += place.groups) {
    const int64_t at = row * cut.channels + place.channel;
    float x[N], g[N];
    load_gradient<kActivation>(kept, affine, at, x, g);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum[i] += g[i];
      sum_x[i] = fmaf(g[i], x[i] - affine.mean(i), sum_x[i]);
    }
    if (dresidual) store(dresidual + at, g, add);
  }
  write_sum<N>(cut, sums, 2, 0, groups.of(sum, cut.width_log2));
  write_sum<N>(cut, sums, 2, 1, groups.of(sum_x, cut.width_log2));
}

/// A gradient of a parameter; no pointer: not wanted.
struct ParameterGradient {
  float* data;
  bool add;
  explicit ParameterGradient(const Grad& grad)
      : data(grad.wanted() ? grad.view.as<float>() : nullptr), add(grad.mode == GradMode::add) {}
  __device__ void put(int64_t channel, float value) const {
    if (data) data[channel] = add ? data[channel] + value : value;
  }
};

/// Gradients of parameters, and {constant, slope} of every channel: dx = scale · g − constant − (x − mean) ·
/// slope.
__global__ void __launch_bounds__(kTailColumns* kTailGroups)
    finish_gradients(Cut cut, Channels channels, const float* sums, bool training, ParameterGradient dgamma,
                     ParameterGradient dbeta, float* constant, float* slope) {
  __shared__ TailSums tail;
  const int64_t channel = int64_t{blockIdx.x} * kTailColumns + threadIdx.x;
  double sum = 0, sum_x = 0;
  if (channel < cut.channels)
#pragma unroll 4
    for (int64_t chunk = threadIdx.y; chunk < cut.chunks; chunk += kTailGroups) {
      sum += static_cast<double>(sums[2 * chunk * cut.channels + channel]);
      sum_x += static_cast<double>(sums[(2 * chunk + 1) * cut.channels + channel]);
    }
  tail.add(sum, sum_x);
  if (threadIdx.y > 0 || channel >= cut.channels) return;
  const float rstd = channels.rstd[channel], scale = channels.gamma ? rstd * channels.gamma[channel] : rstd;
  const float factor = training ? scale / static_cast<float>(cut.rows) : 0.0f;
  dbeta.put(channel, static_cast<float>(sum));
  dgamma.put(channel, static_cast<float>(sum_x) * rstd);
  constant[channel] = static_cast<float>(sum) * factor;
  slope[channel] = static_cast<float>(sum_x) * factor * rstd * rstd;
}

template <Activation kActivation, class T, int N>
__global__ void __launch_bounds__(kThreads, 2)
    input_gradient(Cut cut, Channels channels, Kept<T> kept, const float* constants, const float* slopes, T* dx,
                   bool add) {
  __shared__ alignas(16) GroupSum<N> groups;
  const Place<N> place(cut);
  const Affine<N, 2> affine(cut, channels, groups, constants, slopes);
#pragma unroll kRowsAtOnce < N>
  for (int64_t row = place.row; row < place.end; row += place.groups) {
    const int64_t at = row * cut.channels + place.channel;
    float x[N], g[N];
    load_gradient<kActivation>(kept, affine, at, x, g);
#pragma unroll
    for (int i = 0; i < N; ++i)
      g[i] = fmaf(g[i], affine.scale(i), -affine.more(0, i)) - (x[i] - affine.mean(i)) * affine.more(1, i);
    store(dx + at, g, add);
  }
}

/// A part of scratch memory that begins where any access is aligned.
int64_t padded(int64_t floats) { return (floats + 63) / 64 * 64; }

}  // namespace batch_norm_backward_cu

void BatchNorm::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  const Grad &dx = din[x], &dresidual = din[residual];
  const std::array values{dout[y], in[x], in[residual], out[y], dx.view, dresidual.view};
  const std::array per_channel{in[gamma], in[beta], out[mean], out[rstd]};
  const int64_t channels = in[x].cols();
  with_kernel(*this, values, per_channel, [&](auto zero, auto pack, auto kind) {
    using T = decltype(zero);
    constexpr int kPack = decltype(pack)::value;
    constexpr Activation kActivation = decltype(kind)::value;
    const Cut sum_cut(in[x], kPack, kSumBlocks), cut(in[x], kPack, kMapBlocks);
    float* sums = reinterpret_cast<float*>(stream.scratch(
        static_cast<size_t>(padded(sum_cut.chunks * 2 * channels) + 2 * padded(channels)) * sizeof(float)));
    float *constant = sums + padded(sum_cut.chunks * 2 * channels), *slope = constant + padded(channels);
    const Kept<T> kept{in[x].as<T>(), in[residual].as<T>(), out[y].as<T>(), dout[y].as<T>()};
    launch(stream, "batch_norm backward: sums", sum_gradients<kActivation, T, kPack>, sum_cut.grid(), sum_cut,
           channels_of(in, out), kept, dresidual.wanted() ? dresidual.view.as<T>() : nullptr,
           dresidual.mode == GradMode::add, sums);
    launch(stream, "batch_norm backward: parameters", finish_gradients,
           {blocks_for(channels, kTailColumns), {kTailColumns, kTailGroups}}, sum_cut, channels_of(in, out), sums,
           training, ParameterGradient(din[gamma]), ParameterGradient(din[beta]), constant, slope);
    if (dx.wanted())
      launch(stream, "batch_norm backward", input_gradient<kActivation, T, kPack>, cut.grid(), cut,
             channels_of(in, out), kept, constant, slope, dx.view.as<T>(), dx.mode == GradMode::add);
  });
}

}  // namespace dino
