#include "kernels/convolution.cuh"

#include "kernels/conv2d.h"
#include "kernels/cuda_graph.h"
#include "tests/cuda/cuda_harness.h"

using namespace dino;
using namespace dino::test;
using cuda::ConvolutionArrays;
using cuda::ConvolutionPass;
using cuda::ConvolutionShape;

namespace {

constexpr std::array kPasses = {ConvolutionPass::output, ConvolutionPass::input, ConvolutionPass::filters};

ConvolutionShape shape_of(int64_t images, int64_t height, int64_t width, int64_t in, int64_t out,
                          int64_t kernel, int64_t stride, int64_t pad) {
  const auto extent = [&](int64_t size) { return (size + 2 * pad - kernel) / stride + 1; };
  return {images, height, width, in, extent(height), extent(width), out, kernel, stride, pad};
}

/// x, filters and y of one convolution, in which the result is what was there before.
struct Arrays {
  Buffer x, filters, y;

  /// Filters of type `filter_dtype`, which as a result may be wider than the rest.
  Arrays(const ConvolutionShape& s, Dtype dtype, Dtype filter_dtype) {
    x = random({s.images, s.height, s.width, s.in_channels}, dtype, 1);
    filters = random({s.out_channels, s.patch()}, filter_dtype, 2);
    y = random({s.images, s.out_height, s.out_width, s.out_channels}, dtype, 3);
  }
  static Buffer random(const Shape& shape, Dtype dtype, uint32_t seed) {
    Buffer buffer(Spec{dtype, shape});
    Draws draws(seed);
    fill(buffer, Fill::normal, draws);
    return buffer;
  }
  const Buffer& result(ConvolutionPass pass) const {
    return pass == ConvolutionPass::output ? y : pass == ConvolutionPass::input ? x : filters;
  }
};

Buffer expected(const ConvolutionShape& s, const Arrays& arrays, ConvolutionPass pass, float beta) {
  Buffer result = arrays.result(pass).as(Dtype::f64);
  for (int64_t i = 0; i < result.count(); ++i) result.set(i, static_cast<double>(beta) * result.at(i));
  for (int64_t row = 0; row < s.pixels(); ++row)
    for (int64_t place = 0; place < s.kernel * s.kernel; ++place) {
      const int64_t pixel = row % (s.out_height * s.out_width), image = row / (s.out_height * s.out_width);
      const int64_t h = pixel / s.out_width * s.stride - s.pad + place / s.kernel;
      const int64_t w = pixel % s.out_width * s.stride - s.pad + place % s.kernel;
      if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
      for (int64_t c = 0; c < s.in_channels; ++c)
        for (int64_t o = 0; o < s.out_channels; ++o) {
          const int64_t xi = ((image * s.height + h) * s.width + w) * s.in_channels + c;
          const int64_t fi = o * s.patch() + place * s.in_channels + c, yi = row * s.out_channels + o;
          if (pass == ConvolutionPass::output)
            result.set(yi, result.at(yi) + arrays.x.at(xi) * arrays.filters.at(fi));
          if (pass == ConvolutionPass::input)
            result.set(xi, result.at(xi) + arrays.y.at(yi) * arrays.filters.at(fi));
          if (pass == ConvolutionPass::filters)
            result.set(fi, result.at(fi) + arrays.y.at(yi) * arrays.x.at(xi));
        }
    }
  return result;
}

constexpr float kBeta = 0.5f;

/// Runs both ways to convolve that are there, columns also with `most_bytes` of scratch.
void check_convolutions(const ConvolutionShape& s, Dtype dtype, int64_t most_bytes) {
  for (const ConvolutionPass pass : kPasses) {
    // Products write gradients of filters in f32, cuDNN in the type of its inputs.
    const Arrays by_columns(s, dtype, pass == ConvolutionPass::filters ? Dtype::f32 : dtype),
        by_library(s, dtype, dtype);
    for (const float beta : {0.0f, kBeta}) {
      INFO("pass " << static_cast<int>(pass) << ", beta " << beta << ", " << name_of(dtype));
      const auto run = [&](const Arrays& host, auto&& convolve) {
        const Buffer exact = expected(s, host, pass, beta);
        const auto is_empty = [&](ConvolutionPass own) { return own == pass && beta == 0; };
        const DeviceBuffer x(host.x, is_empty(ConvolutionPass::input)),
            filters(host.filters, is_empty(ConvolutionPass::filters)),
            y(host.y, is_empty(ConvolutionPass::output));
        const bool did =
            convolve(ConvolutionArrays{dtype, x.view().data, filters.view().data, y.view().data, s.patch()});
        cuda_stream().synchronize();
        if (!did) return false;
        const DeviceBuffer& result = pass == ConvolutionPass::output  ? y
                                     : pass == ConvolutionPass::input ? x
                                                                      : filters;
        const Buffer got = result.host();
        CHECK(distance(got, exact) <=
              (epsilon(got.spec().dtype) + 256 * epsilon(Dtype::f32)) * largest(exact));
        CHECK(result.guards_intact());
        return true;
      };
      for (const int64_t bytes : {cuda::kColumnsBytes, most_bytes})
        run(by_columns, [&](const ConvolutionArrays& arrays) {
          std::byte* scratch = cuda_stream().scratch(cuda::columns_scratch(pass, s, dtype, bytes));
          cuda::convolve_by_columns(cuda_stream(), pass, s, beta, arrays, scratch, bytes);
          return true;
        });
      const bool has_library = run(by_library, [&](const ConvolutionArrays& arrays) {
        return cuda::library_convolves(cuda_stream(), pass, s, arrays) &&
               cuda::convolve_by_library(cuda_stream(), pass, s, beta, arrays);
      });
      // Tensor cores take 8 channels at once; what does not fit them is left to the products.
      const bool fits = dtype == Dtype::f32 || (s.in_channels % 8 == 0 && s.out_channels % 8 == 0);
      CHECK((has_library || !fits));
    }
  }
}

TEST_CASE("convolutions as products of matrices and by the library, whole and in chunks") {
  for (const ConvolutionShape& s : {shape_of(5, 6, 5, 8, 8, 3, 1, 1), shape_of(3, 9, 7, 3, 5, 4, 2, 1),
                                    shape_of(2, 4, 4, 1, 2, 2, 3, 2)}) {
    const int64_t image = s.out_height * s.out_width * cuda::columns_stride(s) * 4;
    check_convolutions(s, Dtype::f32, 2 * image);
    check_convolutions(s, Dtype::bf16, 1);
  }
}

TEST_CASE(
    "gradients of bf16 filters come from the library where its tensor cores fit, and are widened as they are "
    "unpacked") {
  const Conv2d op{.kernel = 3, .stride = 1, .pad = 1};
  const Buffers in = make_inputs(Case<Conv2d>{op, {{{2, 6, 6, 8}}, {{16, 8, 3, 3}}, {{}}}}, Dtype::bf16);
  const ConvolutionShape s = shape_of(2, 6, 6, 8, 16, 3, 1, 1);
  const DeviceBuffer x(in[Conv2d::x]), dy(Buffer(Spec{Dtype::bf16, {2, 6, 6, 16}}));
  CHECK(cuda::library_convolves(cuda_stream(), ConvolutionPass::filters, s,
                                {Dtype::bf16, x.view().data, nullptr, dy.view().data, 0}));
  const Buffers out = cuda_forward(op, in), dout = make_output_gradients<Conv2d>(out);
  const Buffer dweight = std::move(cuda_backward(op, in, out, dout)[Conv2d::weight]);
  REQUIRE(dweight.spec().dtype == Dtype::f32);
  int64_t rounded = 0;
  for (int64_t i = 0; i < dweight.count(); ++i)
    rounded +=
        static_cast<double>(static_cast<float>(BFloat16(static_cast<float>(dweight.at(i))))) == dweight.at(i);
  CHECK(rounded == dweight.count());  // what the library wrote
  auto stream = make_stream(1);
  Buffers wide_in, wide_dout;
  for (const Buffer& buffer : in) wide_in.push_back(buffer.as(Dtype::f64));
  for (const Buffer& buffer : dout) wide_dout.push_back(buffer.as(Dtype::f64));
  const Buffer exact =
      std::move(backward(op, *stream, wide_in, forward(op, *stream, wide_in), wide_dout)[Conv2d::weight]);
  // Half a rounding of each element to bf16 beside those of sums in f32.
  for (int64_t i = 0; i < dweight.count(); ++i)
    CHECK(std::abs(dweight.at(i) - exact.at(i)) <=
          epsilon(Dtype::bf16) / 2 * std::abs(exact.at(i)) + 256 * epsilon(Dtype::f32) * largest(exact));
}

TEST_CASE("convolutions can be part of a recorded graph once they have run") {
  const Conv2d op{.kernel = 3, .stride = 2, .pad = 1};
  const Buffers in = make_inputs(Case<Conv2d>{op, {{{2, 6, 6, 8}}, {{8, 8, 3, 3}}, {{8}}}}, Dtype::f32);
  const Buffers out = cuda_forward(op, in), dout = make_output_gradients<Conv2d>(out);
  const Buffers din = cuda_backward(op, in, out, dout);
  const DeviceBuffers device_in = on_device(in), device_out = on_device(out, true),
                      device_dout = on_device(dout),
                      device_din = on_device(make_input_gradients<Conv2d>(in), true);
  CudaStream& stream = cuda_stream();
  const CudaGraph graph(stream, [&] {
    op.forward(stream, views(device_in), views(device_out));
    op.backward(stream, views(device_in), views(device_out), views(device_dout),
                grads(device_din, GradMode::write));
  });
  graph.launch(stream);
  stream.synchronize();
  CHECK(device_out[0].host().equal_bits(out[0]));
  for (size_t i = 0; i < din.size(); ++i) CHECK(device_din[i].host().equal_bits(din[i]));
}

}  // namespace
