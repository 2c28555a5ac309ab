#include "kernels/convolution.cuh"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/matmul.cuh"

// Convolution as a product of matrices. A row of `columns` holds the patch of x under one pixel of y, [row, col,
// channel] as in a filter, so y = columns · filtersᵀ, d filters = dyᵀ · columns, and dx gathers from d columns = dy ·
// filters. Every patch is written and read once, kernel² / stride² times the bytes of x; images are taken in chunks so
// that scratch memory stays small.
namespace dino::cuda {
inline namespace convolution_columns_cu {

constexpr int kThreads = 256;

/// The type of `columns`: their gradients are sums on the way to a sum.
Dtype columns_dtype(ConvolutionPass pass, Dtype dtype) { return pass == ConvolutionPass::input ? Dtype::f32 : dtype; }

int64_t image_bytes(ConvolutionPass pass, const ConvolutionShape& s, Dtype dtype) {
  return s.out_height * s.out_width * columns_stride(s) * static_cast<int64_t>(bytes_of(columns_dtype(pass, dtype)));
}

int64_t chunk_images(ConvolutionPass pass, const ConvolutionShape& s, Dtype dtype, int64_t most_bytes) {
  return std::clamp<int64_t>(most_bytes / image_bytes(pass, s, dtype), 1, std::max<int64_t>(s.images, 1));
}

/// One thread per N channels of one pixel of a patch.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    gather_patches(const T* x, T* columns, ConvolutionShape s, int64_t row_stride, int64_t packs) {
  int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  const int64_t packs_of_pixel = s.in_channels / N;
  const int64_t channel = i % packs_of_pixel * N;
  i /= packs_of_pixel;
  const int64_t place = i % (s.kernel * s.kernel), row = i / (s.kernel * s.kernel);
  const int64_t image = row / (s.out_height * s.out_width), pixel = row % (s.out_height * s.out_width);
  const int64_t h = pixel / s.out_width * s.stride - s.pad + place / s.kernel;
  const int64_t w = pixel % s.out_width * s.stride - s.pad + place % s.kernel;
  Pack<T, N> value{};
  if (h >= 0 && h < s.height && w >= 0 && w < s.width)
    value = *reinterpret_cast<const Pack<T, N>*>(x + ((image * s.height + h) * s.width + w) * s.in_channels + channel);
  *reinterpret_cast<Pack<T, N>*>(columns + row * row_stride + place * s.in_channels + channel) = value;
}

/// One thread per element of dx: sums the patches that it is part of.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_patches(const float* columns, T* dx, ConvolutionShape s, int64_t row_stride, int64_t count, float beta) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t channel = i % s.in_channels, pixel = i / s.in_channels;
  const int64_t w = pixel % s.width + s.pad, h = pixel / s.width % s.height + s.pad, image = pixel / s.width / s.height;
  float sum = 0;
  for (int64_t r = 0; r < s.kernel && r <= h; ++r) {
    const int64_t row = (h - r) / s.stride;
    if (row * s.stride != h - r || row >= s.out_height) continue;
    for (int64_t c = 0; c < s.kernel && c <= w; ++c) {
      const int64_t col = (w - c) / s.stride;
      if (col * s.stride != w - c || col >= s.out_width) continue;
      const int64_t patch = (image * s.out_height + row) * s.out_width + col;
      sum += columns[patch * row_stride + (r * s.kernel + c) * s.in_channels + channel];
    }
  }
  if (beta != 0) sum += beta * to_float(dx[i]);
  dx[i] = from_float<T>(sum);
}

/// One chunk of images; `arrays` point to its first image.
struct Chunk {
  CudaStream& stream;
  ConvolutionShape shape;
  ConvolutionArrays arrays;
  void* columns;

  int64_t row_stride() const { return columns_stride(shape); }
  Matrix filters(bool transposed) const { return {arrays.filters, arrays.dtype, arrays.filter_stride, transposed}; }
  Matrix y(bool transposed = false) const { return {arrays.y, arrays.dtype, shape.out_channels, transposed}; }

  void gather() const {
    with_dtype(arrays.dtype, [&](auto zero) {
      using T = decltype(zero);
      constexpr int kPack = 16 / sizeof(T);
      const bool fits = shape.in_channels % kPack == 0 && reinterpret_cast<uintptr_t>(arrays.x) % 16 == 0;
      const int64_t packs = shape.pixels() * shape.patch() / (fits ? kPack : 1);
      const Grid grid{blocks_for(packs, kThreads), kThreads};
      launch(stream, "conv2d patches", fits ? gather_patches<T, kPack> : gather_patches<T, 1>, grid,
             static_cast<const T*>(arrays.x), static_cast<T*>(columns), shape, row_stride(), packs);
    });
  }

  void output(float beta) const {
    gather();
    matmul(stream, shape.pixels(), shape.out_channels, shape.patch(), 1, Matrix(columns, arrays.dtype, row_stride()),
           filters(true), beta, Target(arrays.y, arrays.dtype, shape.out_channels));
  }

  void input(float beta) const {
    matmul(stream, shape.pixels(), shape.patch(), shape.out_channels, 1, y(), filters(false), 0,
           Target(columns, Dtype::f32, row_stride()));
    with_dtype(arrays.dtype, [&](auto zero) {
      using T = decltype(zero);
      const int64_t count = shape.images * shape.height * shape.width * shape.in_channels;
      launch(stream, "conv2d input gradient", sum_patches<T>, {blocks_for(count, kThreads), kThreads},
             static_cast<const float*>(columns), static_cast<T*>(arrays.x), shape, row_stride(), count, beta);
    });
  }

  void filter_gradient(float beta) const {
    gather();
    matmul(stream, shape.out_channels, shape.patch(), shape.pixels(), 1, y(true),
           Matrix(columns, arrays.dtype, row_stride()), beta, Target(arrays.filters, Dtype::f32, arrays.filter_stride));
  }
};

}  // namespace convolution_columns_cu

size_t columns_scratch(ConvolutionPass pass, const ConvolutionShape& shape, Dtype dtype, int64_t most_bytes) {
  return static_cast<size_t>(chunk_images(pass, shape, dtype, most_bytes) * image_bytes(pass, shape, dtype));
}

void convolve_by_columns(CudaStream& stream, ConvolutionPass pass, const ConvolutionShape& shape, float beta,
                         const ConvolutionArrays& arrays, std::byte* scratch, int64_t most_bytes) {
  const int64_t step = chunk_images(pass, shape, arrays.dtype, most_bytes),
                bytes = static_cast<int64_t>(bytes_of(arrays.dtype));
  for (int64_t image = 0; image < shape.images; image += step) {
    Chunk chunk{stream, shape, arrays, scratch};
    chunk.shape.images = std::min(step, shape.images - image);
    chunk.arrays.x = static_cast<std::byte*>(arrays.x) + image * shape.height * shape.width * shape.in_channels * bytes;
    chunk.arrays.y =
        static_cast<std::byte*>(arrays.y) + image * shape.out_height * shape.out_width * shape.out_channels * bytes;
    if (pass == ConvolutionPass::output) chunk.output(beta);
    if (pass == ConvolutionPass::input) chunk.input(beta);
    if (pass == ConvolutionPass::filters) chunk.filter_gradient(image == 0 ? beta : 1);
  }
}

}  // namespace dino::cuda
