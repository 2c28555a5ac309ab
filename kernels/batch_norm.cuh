#pragma once

#include "kernels/batch_norm.h"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

/// What forward and backward of batch normalisation share. A block takes up to 32 packs of channels of a chunk of rows: its
/// threads are groups, one pack each, of which each takes every so-manieth row. So a thread's channels are fixed. Sums of
/// chunks are 1/32 of x or less, and are added in double and in a fixed order.
namespace dino::cuda::batch_norm {

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
    // What belongs to channels is read by every thread, so that it should have some rows, but not at the cost of idle
    // multiprocessors.
    constexpr int64_t kFewestRows = 4, kEnoughRows = 16, kEnoughBlocks = 512;
    const int64_t groups = kThreads >> width_log2, most = std::max<int64_t>(1, most_blocks / channel_blocks);
    const int64_t enough = std::min(rows / (groups * kFewestRows), kEnoughBlocks / channel_blocks);
    const int64_t wanted = std::clamp<int64_t>(std::max(rows / (groups * kEnoughRows), enough), 1, most);
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

/// Adds what the groups of a block have, in a fixed order: thread t gets the sum of channel t of the block, if it has
/// one.
template <int N>
struct GroupSum {
  // A line holds the first four channels of all packs, then the others; the gap keeps both in different banks.
  static constexpr int kPart = N < 4 ? N : 4, kNextPart = kWidest * kPart + 16;
  float of_warps[kWarps][N > 4 ? 2 * kNextPart : kWidest * N];

  __device__ static int place(int channel) {
    return channel % N / kPart * kNextPart + channel / N * kPart + channel % kPart;
  }

  __device__ float of(const float (&value)[N], int width_log2) {
    const int width = 1 << width_log2, lane = static_cast<int>(threadIdx.x) % 32;
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] = value[i];
    for (int offset = 16; offset >= width; offset /= 2)
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += __shfl_xor_sync(0xFFFFFFFFu, sum[i], offset);
    __syncthreads();  // an earlier sum may still be read
    if (lane < width)
#pragma unroll
      for (int begin = 0; begin < N; begin += kPart) {
        float part[kPart];
#pragma unroll
        for (int i = 0; i < kPart; ++i) part[i] = sum[begin + i];
        store(&of_warps[threadIdx.x / 32][place(lane * N + begin)], part);
      }
    __syncthreads();
    float total = 0;
    if (threadIdx.x < width * N)
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += of_warps[w][place(static_cast<int>(threadIdx.x))];
    return total;
  }
  /// Hands some numbers per channel, as of() returns them, to all threads.
  template <int Numbers>
  __device__ void spread(const float (&value)[Numbers], float (&to)[Numbers][N], int width_log2) {
    static_assert(Numbers <= kWarps);
    __syncthreads();
#pragma unroll
    for (int number = 0; number < Numbers; ++number)
      if (threadIdx.x < kWidest * N) of_warps[number][place(static_cast<int>(threadIdx.x))] = value[number];
    __syncthreads();
    const int pack = static_cast<int>(threadIdx.x) & ((1 << width_log2) - 1);
#pragma unroll
    for (int number = 0; number < Numbers; ++number)
#pragma unroll
      for (int begin = 0; begin < N; begin += kPart) {
        float part[kPart];
        load(&of_warps[number][place(pack * N + begin)], part);
#pragma unroll
        for (int i = 0; i < kPart; ++i) to[number][begin + i] = part[i];
      }
  }
};

/// The channel of which this thread reads or writes numbers for the block, or -1.
template <int N>
__device__ int64_t own_channel(const Cut& cut) {
  const int64_t channel = (static_cast<int64_t>(blockIdx.y) << cut.width_log2) * N + threadIdx.x;
  return threadIdx.x < N << cut.width_log2 && channel < cut.channels ? channel : -1;
}

/// Writes number `index` of `numbers` of the block's channels: `sums` is [chunks, numbers, channels].
template <int N>
__device__ void write_sum(const Cut& cut, float* sums, int numbers, int index, float value) {
  const int64_t channel = own_channel<N>(cut);
  if (channel >= 0) sums[(int64_t{blockIdx.x} * numbers + index) * cut.channels + channel] = value;
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

/// What belongs to channels, in memory; gamma and beta may be absent.
struct Channels {
  const float *mean, *rstd, *gamma, *beta;
};

/// What belongs to a thread's channels, which a block reads once: the argument of the activation is
/// (x − mean) · scale + shift + residual. `more` are other numbers of theirs.
template <int N, int More = 0>
struct Affine {
  float number[3 + More][N];
  __device__ float mean(int i) const { return number[0][i]; }
  __device__ float scale(int i) const { return number[1][i]; }
  __device__ float shift(int i) const { return number[2][i]; }
  __device__ float more(int which, int i) const { return number[3 + which][i]; }

  /// For all threads of a block.
  template <class... Pointer>
  __device__ Affine(const Cut& cut, const Channels& from, GroupSum<N>& groups, Pointer... more) {
    static_assert(sizeof...(more) == More);
    float own[3 + More] = {};
    if (const int64_t channel = own_channel<N>(cut); channel >= 0) {
      own[0] = from.mean[channel];
      own[1] = from.gamma ? from.rstd[channel] * from.gamma[channel] : from.rstd[channel];
      own[2] = from.beta ? from.beta[channel] : 0;
      int next = 3;
      ((own[next++] = more[channel]), ...);
    }
    groups.spread(own, number, cut.width_log2);
  }
  template <class T>
  __device__ void apply(float (&x)[N], const T* residual, int64_t at) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = fmaf(x[i] - mean(i), scale(i), shift(i));
    if (!residual) return;
    float more[N];
    load(residual + at, more);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] += more[i];
  }
};

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
    if (op.activation == gelu_tanh) with_pack(std::integral_constant<Activation, gelu_tanh>());
  });
}

inline Channels channels_of(std::span<const View> in, std::span<const View> out) {
  return {out[BatchNorm::mean].as<float>(), out[BatchNorm::rstd].as<float>(), in[BatchNorm::gamma].as<float>(),
          in[BatchNorm::beta].as<float>()};
}

}  // namespace dino::cuda::batch_norm
