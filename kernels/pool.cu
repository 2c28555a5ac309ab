#include "kernels/pool.h"

#include <climits>

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

// A thread per pack of channels of one pixel of what is written, forward and backward: it gathers, so nothing
// is added to by two threads. Neighbouring threads have neighbouring channels. Average pooling reads every
// element once per bin that holds it, and backward goes along rows of pixels with a bin's gradient in
// registers. Max pooling forward reads once per window, mostly out of the L1 cache; backward it reads index and
// dy, which are stride² times fewer, once per pixel of the window.
namespace dino {
inline namespace pool_cu {

using namespace cuda;

constexpr int kThreads = 128;

/// Extents of an image in memory; channels in packs.
struct Image {
  int height, width, packs;
  __device__ int64_t pixels() const { return int64_t{height} * width; }
};

/// Where a thread writes.
struct Pixel {
  int64_t image;
  int row, col, pack;
};

/// Calls f(pixel) for every pack of every pixel: blockIdx.x is the image, and blockIdx.y goes over the packs
/// in it.
template <class F>
__device__ void for_pixels(const Image& image, const F& f) {
  const unsigned row_packs = static_cast<unsigned>(image.width) * static_cast<unsigned>(image.packs);
  const unsigned items = row_packs * static_cast<unsigned>(image.height);
  for (unsigned item = blockIdx.y * kThreads + threadIdx.x; item < items; item += gridDim.y * kThreads) {
    const unsigned row = item / row_packs, in_row = item - row * row_packs,
                   col = in_row / static_cast<unsigned>(image.packs);
    f(Pixel{blockIdx.x, static_cast<int>(row), static_cast<int>(col),
            static_cast<int>(in_row - col * static_cast<unsigned>(image.packs))});
  }
}

/// Element 0 of a pack of channels.
template <int N>
__device__ int64_t offset_of(const Image& image, int64_t number, int64_t pixel, int pack) {
  return ((number * image.pixels() + pixel) * image.packs + pack) * N;
}

/// Bins along one axis: bin i begins at ⌊i · extent / bins⌋ and ends before ⌈(i + 1) · extent / bins⌉.
struct Bins {
  unsigned extent, bins;
  __device__ Bins(int extent, int bins) : extent(static_cast<unsigned>(extent)), bins(static_cast<unsigned>(bins)) {}
  __device__ int begin(int bin) const { return static_cast<int>(static_cast<unsigned>(bin) * extent / bins); }
  __device__ int end(int bin) const {
    return static_cast<int>((static_cast<unsigned>(bin + 1) * extent + bins - 1) / bins);
  }
  /// The bins that hold a position are first(position) … last(position).
  __device__ int first(int position) const { return static_cast<int>(static_cast<unsigned>(position) * bins / extent); }
  __device__ int last(int position) const {
    return static_cast<int>((static_cast<unsigned>(position + 1) * bins + extent - 1) / extent) - 1;
  }
};

template <class T, int N>
__global__ void __launch_bounds__(kThreads) average(const T* x, Image in, T* y, Image out) {
  for_pixels(out, [&](const Pixel& p) {
    const Bins rows{in.height, out.height}, cols{in.width, out.width};
    const int top = rows.begin(p.row), bottom = rows.end(p.row), left = cols.begin(p.col), right = cols.end(p.col);
    const float weight = __frcp_rn(static_cast<float>(bottom - top) * static_cast<float>(right - left));
    float sum[N] = {};
    for (int row = top; row < bottom; ++row)
#pragma unroll 4
      for (int col = left; col < right; ++col) {
        float value[N];
        load(x + offset_of<N>(in, p.image, int64_t{row} * in.width + col, p.pack), value);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] = fmaf(weight, value[i], sum[i]);
      }
    store(y + offset_of<N>(out, p.image, int64_t{p.row} * out.width + p.col, p.pack), sum);
  });
}

/// A thread goes along a row of pixels, and reads dy anew only where the bins change.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) average_gradient(const T* dy, Image out, T* dx, Image in, bool add) {
  for_pixels(Image{in.height, 1, in.packs}, [&](const Pixel& p) {
    const Bins rows{in.height, out.height}, cols{in.width, out.width};
    const int first_row = rows.first(p.row), last_row = rows.last(p.row);
    int first_col = -1, last_col = -1;
    float sum[N];
#pragma unroll 1
    for (int col = 0; col < in.width; ++col) {
      if (cols.first(col) != first_col || cols.last(col) != last_col) {
        first_col = cols.first(col);
        last_col = cols.last(col);
#pragma unroll
        for (float& s : sum) s = 0;
#pragma unroll 1
        for (int i = first_row; i <= last_row; ++i)
#pragma unroll 1
          for (int j = first_col; j <= last_col; ++j) {
            const int pixels = (rows.end(i) - rows.begin(i)) * (cols.end(j) - cols.begin(j));
            const float weight = __frcp_rn(static_cast<float>(pixels));
            float value[N];
            load(dy + offset_of<N>(out, p.image, int64_t{i} * out.width + j, p.pack), value);
#pragma unroll
            for (int e = 0; e < N; ++e) sum[e] = fmaf(weight, value[e], sum[e]);
          }
      }
      float gradient[N];
#pragma unroll
      for (int e = 0; e < N; ++e) gradient[e] = sum[e];
      store(dx + offset_of<N>(in, p.image, int64_t{p.row} * in.width + col, p.pack), gradient, add);
    }
  });
}

/// Window i along an axis covers positions [i · stride − pad, i · stride − pad + kernel).
struct Windows {
  int kernel, stride, pad;
  __device__ int begin(int window) const { return max(0, window * stride - pad); }
  __device__ int end(int window, int extent) const { return min(extent, window * stride - pad + kernel); }
  /// The windows that hold a position are first(position) … last(position, number of windows).
  __device__ int first(int position) const { return max(0, position + pad - kernel + stride) / stride; }
  __device__ int last(int position, int windows) const { return min(windows - 1, (position + pad) / stride); }
};

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    maxima(Windows windows, const T* x, Image in, T* y, int32_t* index, Image out) {
  for_pixels(out, [&](const Pixel& p) {
    const int top = windows.begin(p.row), bottom = windows.end(p.row, in.height);
    const int left = windows.begin(p.col), right = windows.end(p.col, in.width);
    float best[N];
    int32_t winner[N];
#pragma unroll
    for (int i = 0; i < N; ++i) best[i] = -INFINITY, winner[i] = top * in.width + left;
    for (int row = top; row < bottom; ++row)
#pragma unroll 2
      for (int col = left; col < right; ++col) {
        float value[N];
        load(x + offset_of<N>(in, p.image, int64_t{row} * in.width + col, p.pack), value);
#pragma unroll
        for (int i = 0; i < N; ++i)
          if (value[i] > best[i] || isnan(value[i])) best[i] = value[i], winner[i] = row * in.width + col;
      }
    const int64_t at = offset_of<N>(out, p.image, int64_t{p.row} * out.width + p.col, p.pack);
    store(y + at, best);
    Pack<int32_t, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i) pack.value[i] = winner[i];
    *reinterpret_cast<Pack<int32_t, N>*>(index + at) = pack;
  });
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    max_gradient(Windows windows, const int32_t* index, const T* dy, Image out, T* dx, Image in, bool add) {
  for_pixels(in, [&](const Pixel& p) {
    const int32_t own = p.row * in.width + p.col;
    float sum[N] = {};
    for (int i = windows.first(p.row); i <= windows.last(p.row, out.height); ++i)
      for (int j = windows.first(p.col); j <= windows.last(p.col, out.width); ++j) {
        const int64_t at = offset_of<N>(out, p.image, int64_t{i} * out.width + j, p.pack);
        const Pack<int32_t, N> winner = *reinterpret_cast<const Pack<int32_t, N>*>(index + at);
        float value[N];
        load(dy + at, value);
#pragma unroll
        for (int e = 0; e < N; ++e) sum[e] += winner.value[e] == own ? value[e] : 0;
      }
    store(dx + offset_of<N>(in, p.image, own, p.pack), sum, add);
  });
}

Image image_of(const Shape& shape, int pack) {
  dino::check(shape[1] * shape[2] * shape[3] <= INT_MAX, "pool: an image must have less than 2^31 elements; got ",
              shape);
  return {static_cast<int>(shape[1]), static_cast<int>(shape[2]), static_cast<int>(shape[3] / pack)};
}

/// Bins are worked out with 32 bits.
void check_bins(const Shape& x, const Shape& y) {
  for (const int axis : {1, 2})
    dino::check((x[axis] + 1) * (y[axis] + 1) <= INT_MAX, "average_pool: too many pixels and bins; got ", x, " and ",
                y);
}

/// Blocks for all packs of images of this shape.
Grid grid_of(const Shape& shape, int pack) {
  const unsigned per_image = blocks_for(shape[1] * shape[2] * (shape[3] / pack), kThreads);
  return {{blocks_for(shape[0], 1), std::min(per_image, 65535u)}, kThreads};
}

/// Calls f(zero of the element type, number of channels in a pack). Packs are of 16 bytes, or if there is an
/// index, whose elements have 4 bytes each, of 4 elements.
template <bool kIndexed, class F>
void with_pack(const View& a, const View& b, const F& f) {
  with_dtype(a.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kPack = kIndexed ? 4 : 16 / sizeof(T);
    if (fits_packs<T, kPack>(a) && fits_packs<T, kPack>(b))
      f(zero, std::integral_constant<int, kPack>());
    else
      f(zero, std::integral_constant<int, 1>());
  });
}

Windows windows_of(const MaxPool& op) {
  return {static_cast<int>(op.kernel), static_cast<int>(op.stride), static_cast<int>(op.pad)};
}

}  // namespace pool_cu

void AveragePool::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  check_bins(in[x].shape, out[y].shape);
  with_pack<false>(in[x], out[y], [&](auto zero, auto pack) {
    using T = decltype(zero);
    constexpr int kPack = decltype(pack)::value;
    launch(stream, "average_pool", average<T, kPack>, grid_of(out[y].shape, kPack), in[x].as<T>(),
           image_of(in[x].shape, kPack), out[y].as<T>(), image_of(out[y].shape, kPack));
  });
}

void AveragePool::backward(CudaStream& stream, std::span<const View>, std::span<const View>, std::span<const View> dout,
                           std::span<const Grad> din) const {
  const Grad& dx = din[x];
  if (!dx.wanted()) return;
  check_bins(dx.view.shape, dout[y].shape);
  with_pack<false>(dout[y], dx.view, [&](auto zero, auto pack) {
    using T = decltype(zero);
    constexpr int kPack = decltype(pack)::value;
    const Shape& shape = dx.view.shape;
    launch(stream, "average_pool backward", average_gradient<T, kPack>,
           grid_of({shape[0], shape[1], 1, shape[3]}, kPack), dout[y].as<T>(), image_of(dout[y].shape, kPack),
           dx.view.as<T>(), image_of(shape, kPack), dx.mode == GradMode::add);
  });
}

void MaxPool::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_pack<true>(in[x], out[y], [&](auto zero, auto pack) {
    using T = decltype(zero);
    constexpr int kPack = decltype(pack)::value;
    launch(stream, "max_pool", maxima<T, kPack>, grid_of(out[y].shape, kPack), windows_of(*this), in[x].as<T>(),
           image_of(in[x].shape, kPack), out[y].as<T>(), out[index].as<int32_t>(), image_of(out[y].shape, kPack));
  });
}

void MaxPool::backward(CudaStream& stream, std::span<const View>, std::span<const View> out, std::span<const View> dout,
                       std::span<const Grad> din) const {
  const Grad& dx = din[x];
  if (!dx.wanted()) return;
  with_pack<true>(dout[y], dx.view, [&](auto zero, auto pack) {
    using T = decltype(zero);
    constexpr int kPack = decltype(pack)::value;
    launch(stream, "max_pool backward", max_gradient<T, kPack>, grid_of(dx.view.shape, kPack), windows_of(*this),
           out[index].as<int32_t>(), dout[y].as<T>(), image_of(dout[y].shape, kPack), dx.view.as<T>(),
           image_of(dx.view.shape, kPack), dx.mode == GradMode::add);
  });
}

}  // namespace dino
