#include "kernels/batch_norm.h"

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

// A block takes up to 32 packs of channels of a chunk of rows: its threads are groups, one pack each, of
// which each takes every so-manieth row. So a thread's channels are fixed, and what belongs to them is read
// once. Forward reads x twice, for statistics and to normalise; backward reads x and dy (and y for ReLU)
// twice, for sums and for dx. Sums of chunks are 1/32 of x or less, and are added in double and in a fixed
// order.
namespace dino {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kWidest = 32;  // packs of channels per block
constexpr int kTailColumns = 32, kTailGroups = 32;
constexpr int64_t kSumBlocks = 512;  // whatever the machine: the order of sums depends on the shape only
constexpr int64_t kMapBlocks = 4096;

/// Rows of a thread that are under way at once, as far as registers go.
template <int N>
constexpr int kRowsAtOnce = N > 4 ? 1 : 2;

/// How a matrix is cut into blocks.
struct Cut {
  int64_t rows, channels, chunk_rows;
  int width_log2 = 0;  ///< packs of channels per block are a power of two
  unsigned chunks, channel_blocks;

  Cut(const View& x, int pack, int64_t most_blocks) : rows(x.rows()), channels(x.cols()) {
    const int64_t packs = channels / pack;
    while (1 << width_log2 < kWidest && 1 << width_log2 < packs) ++width_log2;
    channel_blocks = blocks_for(packs, int64_t{1} << width_log2);
    constexpr int64_t kFewestRows = 4;  // per thread
    const int64_t groups = kThreads >> width_log2, most = std::max<int64_t>(1, most_blocks / channel_blocks);
    const int64_t wanted = std::clamp<int64_t>(rows / (groups * kFewestRows), 1, most);
    chunk_rows = (rows + wanted - 1) / wanted;
    chunks = blocks_for(rows, chunk_rows);
  }
  Grid grid() const { return {{chunks, channel_blocks}, kThreads}; }
};

/// The elements of one thread: N channels of rows row, row + groups, …
template <int N>
struct Place {
  int64_t channel, row, end;
  int groups;

  __device__ explicit Place(const Cut& cut) : groups(kThreads >> cut.width_log2) {
    const int width = 1 << cut.width_log2, thread = static_cast<int>(threadIdx.x);
    channel = (static_cast<int64_t>(blockIdx.y) * width + (thread & (width - 1))) * N;
    row = blockIdx.x * cut.chunk_rows + (thread >> cut.width_log2);
    end = channel < cut.channels ? min((blockIdx.x + 1) * cut.chunk_rows, cut.rows) : 0;
  }
};

/// N floats, where packs of four are aligned.
template <int N>
__device__ void load_floats(const float* from, float (&to)[N]) {
  constexpr int kPart = N < 4 ? N : 4;
#pragma unroll
  for (int begin = 0; begin < N; begin += kPart) {
    float part[kPart];
    load(from + begin, part);
#pragma unroll
    for (int i = 0; i < kPart; ++i) to[begin + i] = part[i];
  }
}

/// Adds what the groups of a block have, in a fixed order: thread t gets the sum of channel t of the block,
/// if it has one.
template <int N>
struct GroupSum {
  float of_warps[kWarps][kWidest * N];

  __device__ float of(const float (&value)[N], int width_log2) {
    const int width = 1 << width_log2, lane = static_cast<int>(threadIdx.x) % 32;
    __syncthreads();  // an earlier sum may still be read
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float sum = value[i];
      for (int offset = 16; offset >= width; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
      if (lane < width) of_warps[threadIdx.x / 32][lane * N + i] = sum;
    }
    __syncthreads();
    float total = 0;
    if (threadIdx.x < width * N)
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) total += of_warps[warp][threadIdx.x];
    return total;
  }
  /// Hands one number per channel, as of() returns them, to all threads.
  __device__ void spread(float value, float (&to)[N], int width_log2) {
    __syncthreads();
    if (threadIdx.x < kWidest * N) of_warps[0][threadIdx.x] = value;
    __syncthreads();
    load_floats(&of_warps[0][(threadIdx.x & ((1u << width_log2) - 1)) * N], to);
  }
};

/// Writes number `index` of `numbers` of the block's channels: `sums` is [chunks, numbers, channels].
template <int N>
__device__ void write_sum(const Cut& cut, float* sums, int numbers, int index, float value) {
  const int64_t channel = (static_cast<int64_t>(blockIdx.y) << cut.width_log2) * N + threadIdx.x;
  if (threadIdx.x < N << cut.width_log2 && channel < cut.channels)
    sums[(int64_t{blockIdx.x} * numbers + index) * cut.channels + channel] = value;
}

/// {origin, Σ (x − origin), Σ (x − origin)²} of every chunk and channel. The origin is the mean of the
/// chunk's first rows, one per group, so that a mean far from zero costs no accuracy.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) sum_moments(Cut cut, const T* x, float* moments) {
  __shared__ GroupSum<N> groups;
  Place<N> place(cut);
  float value[N] = {}, origin[N], sum[N] = {}, square[N] = {};
  if (place.row < place.end) load(x + place.row * cut.channels + place.channel, value);
  const int64_t chunk_rows = min(cut.chunk_rows, cut.rows - blockIdx.x * cut.chunk_rows);
  const float first = groups.of(value, cut.width_log2) / static_cast<float>(min(int64_t{place.groups}, chunk_rows));
  write_sum<N>(cut, moments, 3, 0, first);
  groups.spread(first, origin, cut.width_log2);
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

/// Two sums per channel over the groups of a block of the tail kernels, in order, for its first group.
struct TailSums {
  double first[kTailGroups][kTailColumns], second[kTailGroups][kTailColumns];

  __device__ void add(double& a, double& b) {
    first[threadIdx.y][threadIdx.x] = a;
    second[threadIdx.y][threadIdx.x] = b;
    __syncthreads();
    if (threadIdx.y > 0) return;
    for (int group = 1; group < kTailGroups; ++group) {
      a += first[group][threadIdx.x];
      b += second[group][threadIdx.x];
    }
  }
};

/// Joins chunks: all moments are taken about the origin of the first one, which in double loses nothing.
__global__ void __launch_bounds__(kTailColumns* kTailGroups)
    finish_moments(Cut cut, const float* moments, float eps, float* mean, float* var, float* rstd) {
  __shared__ TailSums sums;
  const int64_t channel = int64_t{blockIdx.x} * kTailColumns + threadIdx.x;
  const bool exists = channel < cut.channels;
  double sum = 0, square = 0;
  const double origin = exists ? static_cast<double>(moments[channel]) : 0;
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

/// What belongs to channels, in memory; gamma and beta may be absent.
struct Channels {
  const float *mean, *rstd, *gamma, *beta;
};

/// What belongs to a thread's channels: the argument of the activation is (x − mean) · scale + shift +
/// residual.
template <int N>
struct Affine {
  float mean[N], scale[N], shift[N];

  __device__ Affine(const Channels& from, int64_t channel) {
    load_floats(from.mean + channel, mean);
    load_floats(from.rstd + channel, scale);
    if (from.gamma) {
      load_floats(from.gamma + channel, shift);
#pragma unroll
      for (int i = 0; i < N; ++i) scale[i] *= shift[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) shift[i] = 0;
    if (from.beta) load_floats(from.beta + channel, shift);
  }
  template <class T>
  __device__ void apply(float (&x)[N], const T* residual, int64_t at) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = fmaf(x[i] - mean[i], scale[i], shift[i]);
    if (!residual) return;
    float more[N];
    load(residual + at, more);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] += more[i];
  }
};

template <Activation kActivation>
__device__ float activate(float x) {
  if (kActivation == Activation::relu) return x < 0 ? 0 : x;  // NaN stays NaN
  if (kActivation == Activation::gelu) return 0.5f * x * (1 + erff(x * 0.70710678118654752f));
  return x;
}

template <Activation kActivation, class T, int N>
__global__ void __launch_bounds__(kThreads) normalize(Cut cut, Channels channels, const T* x, const T* residual, T* y) {
  const Place<N> place(cut);
  if (place.row >= place.end) return;
  const Affine<N> affine(channels, place.channel);
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

/// What backward reads of forward and of the gradient; y only for ReLU, residual only for GELU.
template <class T>
struct Kept {
  const T *x, *residual, *y, *dy;
};

/// x and the gradient with respect to the activation's argument.
template <Activation kActivation, class T, int N>
__device__ void load_gradient(const Kept<T>& kept, const Affine<N>& affine, int64_t at, float (&x)[N], float (&g)[N]) {
  load(kept.x + at, x);
  load(kept.dy + at, g);
  float argument[N];
  if (kActivation == Activation::relu) {
    load(kept.y + at, argument);
#pragma unroll
    for (int i = 0; i < N; ++i) g[i] = argument[i] > 0 ? g[i] : 0;
  }
  if (kActivation == Activation::gelu) {
#pragma unroll
    for (int i = 0; i < N; ++i) argument[i] = x[i];
    affine.apply(argument, kept.residual, at);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float a = argument[i];
      g[i] *= 0.5f * (1 + erff(a * 0.70710678118654752f)) + a * 0.39894228040143268f * expf(-0.5f * a * a);
    }
  }
}

/// {Σ g, Σ g · (x − mean)} of every chunk and channel; on the way, the gradient of the residual, which is g
/// itself.
template <Activation kActivation, class T, int N>
__global__ void __launch_bounds__(kThreads)
    sum_gradients(Cut cut, Channels channels, Kept<T> kept, T* dresidual, bool add, float* sums) {
  __shared__ GroupSum<N> groups;
  const Place<N> place(cut);
  float sum[N] = {}, sum_x[N] = {};
  if (place.row < place.end) {
    const Affine<N> affine(channels, place.channel);
#pragma unroll kRowsAtOnce < N>
    for (int64_t row = place.row; row < place.end; row += place.groups) {
      const int64_t at = row * cut.channels + place.channel;
      float x[N], g[N];
      load_gradient<kActivation>(kept, affine, at, x, g);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sum[i] += g[i];
        sum_x[i] = fmaf(g[i], x[i] - affine.mean[i], sum_x[i]);
      }
      if (dresidual) store(dresidual + at, g, add);
    }
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
__global__ void __launch_bounds__(kThreads)
    input_gradient(Cut cut, Channels channels, Kept<T> kept, const float* constants, const float* slopes, T* dx,
                   bool add) {
  const Place<N> place(cut);
  if (place.row >= place.end) return;
  const Affine<N> affine(channels, place.channel);
  float constant[N], slope[N];
  load_floats(constants + place.channel, constant);
  load_floats(slopes + place.channel, slope);
#pragma unroll kRowsAtOnce < N>
  for (int64_t row = place.row; row < place.end; row += place.groups) {
    const int64_t at = row * cut.channels + place.channel;
    float x[N], g[N];
    load_gradient<kActivation>(kept, affine, at, x, g);
#pragma unroll
    for (int i = 0; i < N; ++i) g[i] = fmaf(g[i], affine.scale[i], -constant[i]) - (x[i] - affine.mean[i]) * slope[i];
    store(dx + at, g, add);
  }
}

/// Calls f(zero of the element type, number of elements in a pack, activation), the last two as constants.
template <class F>
void with_kernel(const BatchNorm& op, std::span<const View> values, std::span<const View> per_channel, const F& f) {
  with_dtype(values[0].dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kPack = 16 / sizeof(T);
    const bool packed = std::ranges::all_of(values, [](const View& view) { return fits_packs<T, kPack>(view); }) &&
                        std::ranges::all_of(per_channel, [](const View& view) { return fits_packs<float, 4>(view); });
    const auto with_pack = [&](auto activation) {
      if (packed)
        f(zero, std::integral_constant<int, kPack>(), activation);
      else
        f(zero, std::integral_constant<int, 1>(), activation);
    };
    using enum Activation;
    if (op.activation == none) with_pack(std::integral_constant<Activation, none>());
    if (op.activation == relu) with_pack(std::integral_constant<Activation, relu>());
    if (op.activation == gelu) with_pack(std::integral_constant<Activation, gelu>());
  });
}

Channels channels_of(std::span<const View> in, std::span<const View> out) {
  return {out[BatchNorm::mean].as<float>(), out[BatchNorm::rstd].as<float>(), in[BatchNorm::gamma].as<float>(),
          in[BatchNorm::beta].as<float>()};
}

/// A part of scratch memory that begins where any access is aligned.
int64_t padded(int64_t floats) { return (floats + 63) / 64 * 64; }

}  // namespace

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
