#include "kernels/conv2d.h"

#include <algorithm>
#include <dnnl.hpp>
#include <map>

#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace dino {
namespace {

struct Geometry {
  int64_t images, height, width, in_channels, out_height, out_width, out_channels, kernel, stride, pad;

  int64_t in_image() const { return height * width * in_channels; }
  int64_t out_image() const { return out_height * out_width * out_channels; }
  int64_t filter() const { return in_channels * kernel * kernel; }
  double flops_of_image() const {
    return 2.0 * static_cast<double>(out_image()) * static_cast<double>(filter());
  }
};

Geometry geometry(const Conv2d& op, const Shape& x, const Shape& y) {
  return {x[0], x[1], x[2], x[3], y[1], y[2], y[3], op.kernel, op.stride, op.pad};
}

// The definition, in plain loops.

/// Calls body(y index, x index, filter index) for every product of image `image` and output channel
/// `channel`.
template <class Body>
void for_products(const Geometry& g, int64_t image, int64_t channel, const Body& body) {
  for (int64_t i = 0; i < g.out_height; ++i)
    for (int64_t j = 0; j < g.out_width; ++j)
      for (int64_t r = 0; r < g.kernel; ++r)
        for (int64_t s = 0; s < g.kernel; ++s) {
          const int64_t row = i * g.stride + r - g.pad, col = j * g.stride + s - g.pad;
          if (row < 0 || row >= g.height || col < 0 || col >= g.width) continue;
          for (int64_t c = 0; c < g.in_channels; ++c)
            body(image * g.out_image() + (i * g.out_width + j) * g.out_channels + channel,
                 image * g.in_image() + (row * g.width + col) * g.in_channels + c,
                 channel * g.filter() + (c * g.kernel + r) * g.kernel + s);
        }
}

void forward_all(CpuStream& stream, const Geometry& g, const double* x, const double* weight,
                 const double* bias, double* y) {
  stream.pool().parallel(g.images, [&](int64_t image, int) {
    double* target = y + image * g.out_image();
    for (int64_t i = 0; i < g.out_image(); ++i) target[i] = bias ? bias[i % g.out_channels] : 0;
    for (int64_t o = 0; o < g.out_channels; ++o)
      for_products(g, image, o, [&](int64_t yi, int64_t xi, int64_t wi) { y[yi] += x[xi] * weight[wi]; });
  });
}

void backward_input(CpuStream& stream, const Geometry& g, const double* weight, const double* dy, double* dx,
                    GradMode mode) {
  stream.pool().parallel(g.images, [&](int64_t image, int) {
    if (mode == GradMode::write) std::fill_n(dx + image * g.in_image(), g.in_image(), 0.0);
    for (int64_t o = 0; o < g.out_channels; ++o)
      for_products(g, image, o, [&](int64_t yi, int64_t xi, int64_t wi) { dx[xi] += dy[yi] * weight[wi]; });
  });
}

void backward_weight(CpuStream& stream, const Geometry& g, const double* x, const double* dy, double* dweight,
                     GradMode mode) {
  stream.pool().parallel(g.out_channels, [&](int64_t o, int) {
    if (mode == GradMode::write) std::fill_n(dweight + o * g.filter(), g.filter(), 0.0);
    for (int64_t image = 0; image < g.images; ++image)
      for_products(g, image, o, [&](int64_t yi, int64_t xi, int64_t wi) { dweight[wi] += x[xi] * dy[yi]; });
  });
}

// The same in f32 by oneDNN. The batch is cut into chunks that depend on the shape only, and each chunk is
// one primitive on one thread, so the bits of the result do not depend on the number of threads.

enum class Pass { forward, input, weight };

/// Images per chunk: enough work that starting a primitive and reading the filters once costs little, few
/// enough that all threads have some. Weight gradients need one partial sum per chunk, so these get fewer
/// chunks.
int64_t chunk_images(Pass pass, const Geometry& g) {
  constexpr double kMinFlops = 2e6;
  constexpr int64_t kMinPixels = 384, kMaxChunks = 64, kMaxPartials = 16, kMaxPartialBytes = 96 << 20;
  const int64_t by_flops = static_cast<int64_t>(kMinFlops / g.flops_of_image()) + 1;
  const int64_t by_pixels = (kMinPixels + g.out_height * g.out_width - 1) / (g.out_height * g.out_width);
  const int64_t filters = g.out_channels * g.filter() * static_cast<int64_t>(sizeof(float));
  const int64_t partials = std::clamp<int64_t>(kMaxPartialBytes / filters, 2, kMaxPartials);
  const int64_t at_most = pass == Pass::weight ? partials : kMaxChunks;
  const int64_t chunks = std::clamp<int64_t>(g.images / std::max(by_flops, by_pixels), 1, at_most);
  return (g.images + chunks - 1) / chunks;
}

/// One convolution primitive with the layouts it wants, and the reorder of its filters from or to [out, in,
/// row, col].
struct Prepared {
  dnnl::primitive convolution;
  dnnl::memory::desc x, weight, y, scratch;
  dnnl::reorder reorder;
};

/// The primitives of one stream: making one takes longer than a small convolution.
class Primitives {
 public:
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};

  /// For `images` images. Filters are packed once per call for all its chunks, so the shorter last chunk
  /// takes them in the layout of the others, `weight`.
  const Prepared& find(Pass pass, const Geometry& g, int64_t images, bool bias,
                       const dnnl::memory::desc* weight) {
    const Key key{static_cast<int64_t>(pass),
                  images,
                  weight ? g.images : 0,
                  g.height,
                  g.width,
                  g.in_channels,
                  g.out_channels,
                  g.kernel,
                  g.stride,
                  g.pad,
                  bias};
    auto found = prepared_.find(key);
    if (found == prepared_.end())
      found = prepared_.emplace(key, prepare(pass, g, images, bias, weight)).first;
    return found->second;
  }

  dnnl::memory::desc plain_filters(const Geometry& g) const {
    return {{g.out_channels, g.in_channels, g.kernel, g.kernel}, Type::f32, Tag::oihw};
  }

 private:
  using Key = std::array<int64_t, 11>;
  using Tag = dnnl::memory::format_tag;
  using Type = dnnl::memory::data_type;

  Prepared prepare(Pass pass, const Geometry& g, int64_t images, bool bias,
                   const dnnl::memory::desc* weight) const {
    const dnnl::memory::desc x({images, g.in_channels, g.height, g.width}, Type::f32, Tag::nhwc);
    const dnnl::memory::desc y({images, g.out_channels, g.out_height, g.out_width}, Type::f32, Tag::nhwc);
    const dnnl::memory::desc b =
        bias ? dnnl::memory::desc({g.out_channels}, Type::f32, Tag::x) : dnnl::memory::desc();
    const dnnl::memory::desc plain = plain_filters(g);
    const dnnl::memory::desc w = weight ? *weight : dnnl::memory::desc(plain.dims(), Type::f32, Tag::any);
    const dnnl::memory::dims strides{g.stride, g.stride}, pads{g.pad, g.pad};
    const auto direct = dnnl::algorithm::convolution_direct;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const auto kind =
        pass == Pass::forward ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
    const dnnl::convolution_forward::primitive_desc forward({kind, direct, x, w, b, y, strides, pads, pads},
                                                            attributes, engine);
    if (pass == Pass::forward)
      return packed(dnnl::convolution_forward(forward), forward, forward.weights_desc(), x, y, plain);
    if (pass == Pass::input) {
      const dnnl::convolution_backward_data::primitive_desc backward({direct, x, w, y, strides, pads, pads},
                                                                     attributes, engine, forward);
      return packed(dnnl::convolution_backward_data(backward), backward, backward.weights_desc(), x, y,
                    plain);
    }
    const dnnl::convolution_backward_weights::primitive_desc backward({direct, x, w, y, strides, pads, pads},
                                                                      attributes, engine, forward);
    const dnnl::memory::desc partial = backward.diff_weights_desc();
    return {dnnl::convolution_backward_weights(backward),   x, partial, y, backward.scratchpad_desc(),
            dnnl::reorder({engine, partial, engine, plain})};
  }

  template <class Desc>
  Prepared packed(dnnl::primitive primitive, const Desc& desc, const dnnl::memory::desc& weight,
                  const dnnl::memory::desc& x, const dnnl::memory::desc& y,
                  const dnnl::memory::desc& plain) const {
    return {primitive, x, weight, y, desc.scratchpad_desc(), dnnl::reorder({engine, plain, engine, weight})};
  }

  std::map<Key, Prepared> prepared_;
};

/// The chunks of one call.
struct Chunks {
  int64_t size, count;
  const Prepared *first, *last;

  Chunks(Primitives& primitives, Pass pass, const Geometry& g, bool bias = false)
      : size(chunk_images(pass, g)), count((g.images + size - 1) / size) {
    first = last = &primitives.find(pass, g, size, bias, nullptr);
    if (const int64_t rest = g.images % size; rest != 0)
      last = &primitives.find(pass, g, rest, bias, &first->weight);
  }
  const Prepared& of(int64_t chunk) const { return chunk + 1 == count ? *last : *first; }
};

/// Filters in the layout of the chunks' primitives, in the stream's shared scratch memory.
dnnl::memory pack_filters(CpuStream& stream, Primitives& primitives, const Geometry& g, const Prepared& p,
                          const float* weight) {
  dnnl::memory plain(primitives.plain_filters(g), primitives.engine, const_cast<float*>(weight));
  dnnl::memory packed(p.weight, primitives.engine, stream.shared_scratch(p.weight.get_size()));
  dnnl::stream queue(primitives.engine);
  p.reorder.execute(queue, plain, packed);
  return packed;
}

void forward_all(CpuStream& stream, const Geometry& g, const float* x, const float* weight, const float* bias,
                 float* y) {
  auto& primitives = stream.cache<Primitives>();
  const dnnl::engine& engine = primitives.engine;
  const Chunks chunks(primitives, Pass::forward, g, bias != nullptr);
  const dnnl::memory filters = pack_filters(stream, primitives, g, *chunks.first, weight);
  stream.pool().parallel(chunks.count, [&](int64_t chunk, int thread) {
    const Prepared& p = chunks.of(chunk);
    const int64_t image = chunk * chunks.size;
    std::unordered_map<int, dnnl::memory> arguments = {
        {DNNL_ARG_SRC, {p.x, engine, const_cast<float*>(x) + image * g.in_image()}},
        {DNNL_ARG_WEIGHTS, filters},
        {DNNL_ARG_DST, {p.y, engine, y + image * g.out_image()}},
        {DNNL_ARG_SCRATCHPAD, {p.scratch, engine, stream.scratch(thread, p.scratch.get_size())}}};
    if (bias)
      arguments[DNNL_ARG_BIAS] = {
          {{g.out_channels}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::x},
          engine,
          const_cast<float*>(bias)};
    dnnl::stream queue(engine);
    p.convolution.execute(queue, arguments);
  });
}

void backward_input(CpuStream& stream, const Geometry& g, const float* weight, const float* dy, float* dx,
                    GradMode mode) {
  auto& primitives = stream.cache<Primitives>();
  const dnnl::engine& engine = primitives.engine;
  const Chunks chunks(primitives, Pass::input, g);
  const dnnl::memory filters = pack_filters(stream, primitives, g, *chunks.first, weight);
  const bool add = mode == GradMode::add;
  stream.pool().parallel(chunks.count, [&](int64_t chunk, int thread) {
    const Prepared& p = chunks.of(chunk);
    const int64_t image = chunk * chunks.size;
    const size_t own = (p.scratch.get_size() + 63) / 64 * 64;
    std::byte* scratch = stream.scratch(thread, own + (add ? p.x.get_size() : 0));
    float* target = dx + image * g.in_image();
    float* result = add ? reinterpret_cast<float*>(scratch + own) : target;
    dnnl::stream queue(engine);
    p.convolution.execute(queue,
                          {{DNNL_ARG_DIFF_SRC, {p.x, engine, result}},
                           {DNNL_ARG_WEIGHTS, filters},
                           {DNNL_ARG_DIFF_DST, {p.y, engine, const_cast<float*>(dy) + image * g.out_image()}},
                           {DNNL_ARG_SCRATCHPAD, {p.scratch, engine, scratch}}});
    if (add) rows::axpy(1.0f, result, target, static_cast<int64_t>(p.x.get_size() / sizeof(float)), true);
  });
}

void backward_weight(CpuStream& stream, const Geometry& g, const float* x, const float* dy, float* dweight,
                     GradMode mode) {
  auto& primitives = stream.cache<Primitives>();
  const dnnl::engine& engine = primitives.engine;
  const Chunks chunks(primitives, Pass::weight, g);
  const dnnl::memory::desc plain = primitives.plain_filters(g);
  const int64_t partial =
      static_cast<int64_t>((chunks.first->weight.get_size() + 63) / 64 * 64 / sizeof(float));
  const int64_t filters = g.out_channels * g.filter();
  float* sums = reinterpret_cast<float*>(
      stream.shared_scratch(static_cast<size_t>(chunks.count * partial + filters) * sizeof(float)));
  stream.pool().parallel(chunks.count, [&](int64_t chunk, int thread) {
    const Prepared& p = chunks.of(chunk);
    const int64_t image = chunk * chunks.size;
    dnnl::stream queue(engine);
    p.convolution.execute(
        queue, {{DNNL_ARG_SRC, {p.x, engine, const_cast<float*>(x) + image * g.in_image()}},
                {DNNL_ARG_DIFF_WEIGHTS, {p.weight, engine, sums + chunk * partial}},
                {DNNL_ARG_DIFF_DST, {p.y, engine, const_cast<float*>(dy) + image * g.out_image()}},
                {DNNL_ARG_SCRATCHPAD, {p.scratch, engine, stream.scratch(thread, p.scratch.get_size())}}});
  });
  stream.pool().for_ranges(partial, 8192, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = 1; chunk < chunks.count; ++chunk)
      rows::axpy(1.0f, sums + chunk * partial + begin, sums + begin, end - begin, true);
  });
  float* result = mode == GradMode::add ? sums + chunks.count * partial : dweight;
  dnnl::memory packed(chunks.first->weight, engine, sums), unpacked(plain, engine, result);
  dnnl::stream queue(engine);
  chunks.first->reorder.execute(queue, packed, unpacked);
  if (mode == GradMode::add) rows::axpy(1.0f, result, dweight, filters, true);
}

/// Runs `body`; what oneDNN throws becomes an Error.
template <class Body>
void with_errors_named(const Body& body) {
  try {
    body();
  } catch (const dnnl::error& error) {
    throw Error(str(Conv2d::kName, ": oneDNN could not run it: ", error.message));
  }
}

Case<Conv2d> conv_case(Conv2d op, Shape x, int64_t out_channels, bool bias = false) {
  return {op, {{x}, {{out_channels, x[3], op.kernel, op.kernel}}, {bias ? Shape{out_channels} : Shape{}}}};
}

}  // namespace

std::vector<Spec> Conv2d::infer(std::span<const Spec> in) const {
  require_float_dtypes<Conv2d>(in);
  check<UsageError>(kernel > 0 && stride > 0 && pad >= 0, kName,
                    ": kernel and stride must be positive, pad not negative; got ", kernel, ", ", stride,
                    ", ", pad);
  const Shape &image = in[x].shape, &filter = in[weight].shape;
  require<Conv2d>(image.rank == 4 && image.count() > 0, "x must be [images, height, width, channels]", in);
  require<Conv2d>(filter.rank == 4 && filter[0] > 0 && filter[1] == image[3] && filter[2] == kernel &&
                      filter[3] == kernel,
                  str("weight must be [out, in, ", kernel, ", ", kernel, "] with in = channels of x"), in);
  require<Conv2d>(!in[bias].defined() || in[bias].shape == Shape{filter[0]}, "bias must be [out]", in);
  require<Conv2d>(image[1] + 2 * pad >= kernel && image[2] + 2 * pad >= kernel,
                  "the filter must fit in the padded image", in);
  const auto extent = [&](int axis) { return (image[axis] + 2 * pad - kernel) / stride + 1; };
  return {{in[x].dtype, {image[0], extent(1), extent(2), filter[0]}}};
}

void Conv2d::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  const Geometry g = geometry(*this, in[x].shape, out[y].shape);
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    with_errors_named(
        [&] { forward_all(stream, g, in[x].as<T>(), in[weight].as<T>(), in[bias].as<T>(), out[y].as<T>()); });
  });
}

void Conv2d::backward(CpuStream& stream, std::span<const View> in, std::span<const View>,
                      std::span<const View> dout, std::span<const Grad> din) const {
  const Geometry g = geometry(*this, in[x].shape, dout[y].shape);
  const Grad &dx = din[x], &dweight = din[weight], &dbias = din[bias];
  with_float(dout[y].dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* dy = dout[y].as<T>();
    with_errors_named([&] {
      if (dx.wanted()) backward_input(stream, g, in[weight].as<T>(), dy, dx.view.as<T>(), dx.mode);
      if (dweight.wanted()) backward_weight(stream, g, in[x].as<T>(), dy, dweight.view.as<T>(), dweight.mode);
    });
    if (dbias.wanted()) column_sums<T>(stream, dout[y], dbias.view.as<T>(), dbias.mode);
  });
}

size_t Conv2d::host_scratch(std::span<const Spec> in) const {
  const Geometry g = geometry(*this, in[x].shape, infer(in)[y].shape);
  const int64_t size = chunk_images(Pass::weight, g), chunks = (g.images + size - 1) / size;
  return static_cast<size_t>((chunks + 1) * in[weight].shape.count()) * sizeof(float);
}

double Conv2d::flops(std::span<const Spec> in) const {
  return 2.0 * static_cast<double>(infer(in)[y].shape.count()) *
         static_cast<double>(in[weight].shape.count() / in[weight].shape[0]);
}

std::vector<Case<Conv2d>> Conv2d::cases(Tiny) {
  return {conv_case({3, 1, 1}, {2, 5, 4, 3}, 2, true), conv_case({3, 2, 1}, {3, 7, 6, 1}, 4),
          conv_case({1, 1, 0}, {2, 3, 3, 5}, 7, true), conv_case({1, 2, 0}, {2, 5, 5, 4}, 3),
          conv_case({7, 2, 3}, {1, 9, 11, 3}, 5),      conv_case({4, 4, 0}, {2, 8, 12, 2}, 3, true),
          conv_case({2, 3, 2}, {1, 4, 3, 2}, 1),       conv_case({3, 1, 1}, {5, 4, 4, 16}, 18),
          conv_case({3, 1, 1}, {5, 16, 16, 16}, 16),   conv_case({5, 1, 2}, {7, 20, 20, 2}, 9, true),
          conv_case({3, 2, 1}, {2, 5, 6, 8}, 8, true), conv_case({3, 2, 1}, {2, 4, 4, 8}, 5)};
}

std::vector<Case<Conv2d>> Conv2d::cases(Real) {
  return {conv_case({3, 2, 1}, {512, 28, 28, 1}, 32),  conv_case({3, 1, 1}, {512, 14, 14, 32}, 32),
          conv_case({3, 2, 1}, {512, 14, 14, 32}, 64), conv_case({3, 1, 1}, {512, 7, 7, 64}, 256),
          conv_case({7, 2, 3}, {8, 224, 224, 3}, 64),  conv_case({3, 1, 1}, {8, 56, 56, 64}, 64),
          conv_case({1, 1, 0}, {8, 56, 56, 64}, 256),  conv_case({1, 2, 0}, {8, 56, 56, 256}, 512),
          conv_case({3, 1, 1}, {8, 28, 28, 128}, 128), conv_case({1, 1, 0}, {32, 7, 7, 512}, 2048),
          conv_case({3, 1, 1}, {32, 7, 7, 512}, 512)};
}

}  // namespace dino
