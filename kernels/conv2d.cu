#include "kernels/conv2d.h"

#include "kernels/column_sums.cuh"
#include "kernels/convolution.cuh"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/linear.h"

// The work is cuDNN's, or cuBLASLt's where cuDNN has nothing that fits. Here filters, [out, in, row, col] in memory,
// are copied to [out, row, col, in] for every call and their gradients back: small beside images. A bias is written to
// y first, and the convolution added to it: one write and one read of y more, in exchange for one rounding less.
namespace dino {
inline namespace conv2d_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int64_t kMostShared = 8192;  // floats

ConvolutionShape shape_of(const Conv2d& op, const Shape& x, const Shape& y) {
  return {x[0], x[1], x[2], x[3], y[1], y[2], y[3], op.kernel, op.stride, op.pad};
}

/// A convolution that is a product of matrices as it stands.
bool is_product(const ConvolutionShape& s) { return s.kernel == 1 && s.stride == 1 && s.pad == 0; }
View as_matrix(const View& filters) {
  return filters.shape.rank == 0
             ? filters
             : View(filters.data, filters.dtype, {filters.shape[0], filters.shape[1]}, 0, Device::cuda);
}

/// Some channels of one filter in shared memory, where those begin `stride` apart: a warp that goes over all channels of
/// neighbouring places then meets every bank once, as far as there are so many.
struct Part {
  int area, channels, stride;

  Part(int64_t area_, int64_t channels_) : area(static_cast<int>(area_)), channels(static_cast<int>(channels_)), stride(area | 1) {
    const int places = (32 + channels - 1) / channels;  // of a warp
    if (channels < 32 && area >= 32) stride = area + (places - area % 32 + 32) % 32;
  }
  size_t bytes() const { return static_cast<size_t>(channels) * static_cast<size_t>(stride) * sizeof(float); }

  /// Calls f(channel, place) for all places of `own` channels, neighbours in neighbouring lanes.
  template <class F>
  __device__ void for_places(int own, const F& f) const {
    if (area >= 32) {
      for (int channel = static_cast<int>(threadIdx.x) / 32; channel < own; channel += kThreads / 32)
        for (int place = static_cast<int>(threadIdx.x) % 32; place < area; place += 32) f(channel, place);
    } else {
      for (int i = static_cast<int>(threadIdx.x); i < own * area; i += kThreads) f(i / area, i % area);
    }
  }
  /// The same, but neighbours are channels.
  template <class F>
  __device__ void for_channels(int own, const F& f) const {
    for (int i = static_cast<int>(threadIdx.x); i < own * area; i += kThreads) f(i % own, i / own);
  }
};

/// One block per filter and `part.channels` of its channels, which lie together on the side of checkpoints; through shared
/// memory.
template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    pack_filters(const From* from, To* to, int64_t in_channels, Part part, int64_t to_stride) {
  extern __shared__ float values[];
  const int64_t filter = blockIdx.x, first = static_cast<int64_t>(blockIdx.y) * part.channels;
  const int own = static_cast<int>(min(int64_t{part.channels}, in_channels - first));
  from += (filter * in_channels + first) * part.area;
  part.for_places(own, [&](int channel, int place) {
    values[channel * part.stride + place] = to_float(from[channel * part.area + place]);
  });
  __syncthreads();
  to += filter * to_stride + first;
  part.for_channels(own, [&](int channel, int place) {
    to[place * in_channels + channel] = from_float<To>(values[channel * part.stride + place]);
  });
}

/// The way back, into gradients.
template <class From, class To>
__global__ void __launch_bounds__(kThreads) unpack_filters(const From* from, To* to, int64_t in_channels, Part part,
                                                           int64_t from_stride, bool add) {
  extern __shared__ float values[];
  const int64_t filter = blockIdx.x, first = static_cast<int64_t>(blockIdx.y) * part.channels;
  const int own = static_cast<int>(min(int64_t{part.channels}, in_channels - first));
  from += filter * from_stride + first;
  part.for_channels(own, [&](int channel, int place) {
    values[channel * part.stride + place] = to_float(from[place * in_channels + channel]);
  });
  __syncthreads();
  to += (filter * in_channels + first) * part.area;
  part.for_places(own, [&](int channel, int place) {
    To& target = to[channel * part.area + place];
    target = from_float<To>(values[channel * part.stride + place] + (add ? to_float(target) : 0.0f));
  });
}

/// Calls start(grid, part).
template <class F>
void for_filters(const ConvolutionShape& s, const F& start) {
  const int64_t area = s.kernel * s.kernel;
  const Part part(area, std::clamp<int64_t>(kMostShared / area, 1, std::min<int64_t>(32, s.in_channels)));
  const Grid grid{{static_cast<unsigned>(s.out_channels), blocks_for(s.in_channels, part.channels)}, kThreads, part.bytes()};
  start(grid, part);
}

void pack(CudaStream& stream, const ConvolutionShape& s, const View& weight, const ConvolutionArrays& arrays) {
  for_filters(s, [&](const Grid& grid, const Part& part) {
    with_dtype(weight.dtype, [&](auto from) {
      with_dtype(arrays.dtype, [&](auto to) {
        using From = decltype(from);
        using To = decltype(to);
        launch(stream, "conv2d pack", pack_filters<From, To>, grid, weight.as<From>(), static_cast<To*>(arrays.filters),
               s.in_channels, part, arrays.filter_stride);
      });
    });
  });
}

void unpack(CudaStream& stream, const ConvolutionShape& s, Dtype dtype, const ConvolutionArrays& arrays,
            const Grad& dweight) {
  for_filters(s, [&](const Grid& grid, const Part& part) {
    with_dtype(dtype, [&](auto from) {
      with_dtype(dweight.view.dtype, [&](auto to) {
        using From = decltype(from);
        using To = decltype(to);
        launch(stream, "conv2d unpack", unpack_filters<From, To>, grid, static_cast<const From*>(arrays.filters),
               dweight.view.as<To>(), s.in_channels, part, arrays.filter_stride,
               dweight.mode == GradMode::add);
      });
    });
  });
}

/// Fills every pixel of y with the bias.
template <class T>
__global__ void __launch_bounds__(kThreads) fill_with_bias(const T* bias, T* y, int64_t channels, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) y[i] = bias[i % channels];
}

void fill(CudaStream& stream, const View& bias, const View& y) {
  with_dtype(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(stream, "conv2d bias", fill_with_bias<T>, {blocks_for(y.count(), kThreads), kThreads}, bias.as<T>(),
           y.as<T>(), y.cols(), y.count());
  });
}

/// One pass, with filters in scratch memory: calls before(arrays), convolves, and calls after(dtype of filters,
/// arrays).
template <class Before, class After>
void convolve(CudaStream& stream, ConvolutionPass pass, const ConvolutionShape& s, float beta, ConvolutionArrays arrays,
              const Before& before, const After& after) {
  const bool by_library = library_convolves(stream, pass, s, arrays);
  const bool are_result = pass == ConvolutionPass::filters;
  const Dtype dtype = are_result && !by_library ? Dtype::f32 : arrays.dtype;
  arrays.filter_stride = by_library ? s.patch() : columns_stride(s);
  const size_t filter_bytes = static_cast<size_t>(s.out_channels * arrays.filter_stride) * bytes_of(dtype);
  const size_t columns_begin = (filter_bytes + 255) / 256 * 256;
  std::byte* scratch = stream.scratch(columns_begin + (by_library ? 0 : columns_scratch(pass, s, arrays.dtype)));
  arrays.filters = scratch;
  before(arrays);
  if (!by_library)
    convolve_by_columns(stream, pass, s, beta, arrays, scratch + columns_begin);
  else if (!convolve_by_library(stream, pass, s, beta, arrays))
    return convolve(stream, pass, s, beta, arrays, before, after);  // the library has changed its mind
  after(dtype, arrays);
}

const auto kNothing = [](auto&&...) {};

}  // namespace conv2d_cu

void Conv2d::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const ConvolutionShape s = shape_of(*this, in[x].shape, out[y].shape);
  if (is_product(s)) return Linear{}.forward(stream, std::array{in[x], as_matrix(in[weight]), in[bias]}, out);
  const bool has_bias = in[bias].defined();
  if (has_bias) fill(stream, in[bias], out[y]);
  convolve(
      stream, ConvolutionPass::output, s, has_bias ? 1 : 0, {in[x].dtype, in[x].data, nullptr, out[y].data, 0},
      [&](const ConvolutionArrays& arrays) { pack(stream, s, in[weight], arrays); }, kNothing);
}

void Conv2d::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                      std::span<const View> dout, std::span<const Grad> din) const {
  const View& dy = dout[y];
  const ConvolutionShape s = shape_of(*this, in[x].shape, dy.shape);
  const Grad &dx = din[x], &dweight = din[weight], &dbias = din[bias];
  if (is_product(s))
    return Linear{}.backward(stream, std::array{in[x], as_matrix(in[weight]), in[bias]}, out, dout,
                             std::array{dx, Grad{as_matrix(dweight.view), dweight.mode}, dbias});
  if (dx.wanted())
    convolve(
        stream, ConvolutionPass::input, s, dx.mode == GradMode::add ? 1 : 0,
        {dy.dtype, dx.view.data, nullptr, dy.data, 0},
        [&](const ConvolutionArrays& arrays) { pack(stream, s, in[weight], arrays); }, kNothing);
  if (dweight.wanted())
    convolve(stream, ConvolutionPass::filters, s, 0, {dy.dtype, in[x].data, nullptr, dy.data, 0}, kNothing,
             [&](Dtype dtype, const ConvolutionArrays& arrays) { unpack(stream, s, dtype, arrays, dweight); });
  if (dbias.wanted()) column_sums(stream, dy, dbias.view, dbias.mode, stream.scratch(column_sums_scratch(dy)));
}

}  // namespace dino
