#include "cudnn/convolution.h"

#include <algorithm>
#include <cstring>

#include "cublas/matmul.h"

// Image by image as products of matrices: a row of `patches` holds all that one pixel of y depends on, [r, s, c].
namespace emulator::dnn {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

const char* element(const Volume& volume, const void* host, std::int64_t offset) {
  return static_cast<const char*>(host) + offset * static_cast<std::int64_t>(blas::bytes_of(volume.type));
}

/// Calls visit(offset of (i, 0, h, w) in the volume, place of it in [h, w, c]) for all pixels of image, or filter, i.
template <class Visit>
void each_pixel(const Volume& volume, std::int64_t i, Visit visit) {
  for (std::int64_t h = 0; h < volume.extent[2]; ++h)
    for (std::int64_t w = 0; w < volume.extent[3]; ++w)
      visit(i * volume.stride[0] + h * volume.stride[2] + w * volume.stride[3],
            (h * volume.extent[3] + w) * volume.extent[1]);
}

/// to[h, w, c] = image, or filter, i.
void read(const Volume& volume, const void* host, std::int64_t i, float* to) {
  each_pixel(volume, i, [&](std::int64_t offset, std::int64_t place) {
    blas::load(volume.type, element(volume, host, offset), volume.stride[1], volume.extent[1], to + place);
  });
}

/// Image, or filter, i = alpha * from[h, w, c] + beta * what was there.
void write(const Convolution& convolution, const Volume& volume, void* host, std::int64_t i, const double* from) {
  const auto channels = static_cast<std::size_t>(volume.extent[1]);
  Doubles line(channels), before(channels);
  const double alpha = static_cast<double>(convolution.alpha), beta = static_cast<double>(convolution.beta);
  each_pixel(volume, i, [&](std::int64_t offset, std::int64_t place) {
    char* to = const_cast<char*>(element(volume, host, offset));
    if (beta != 0) blas::load(volume.type, to, volume.stride[1], volume.extent[1], before.data());
    for (std::size_t c = 0; c < channels; ++c)
      line[c] = alpha * from[static_cast<std::size_t>(place) + c] + beta * before[c];
    blas::store(volume.type, to, volume.stride[1], volume.extent[1], line.data());
  });
}

/// Calls visit(place in the patches, place in the image) for every stretch of channels that lies inside of the image.
template <class Visit>
void each_stretch(const Convolution& convolution, Visit visit) {
  const Volume &x = convolution.x, &w = convolution.w, &y = convolution.y;
  const std::int64_t channels = x.extent[1];
  std::int64_t place = 0;
  for (std::int64_t i = 0; i < y.extent[2]; ++i)
    for (std::int64_t j = 0; j < y.extent[3]; ++j)
      for (std::int64_t r = 0; r < w.extent[2]; ++r)
        for (std::int64_t s = 0; s < w.extent[3]; ++s, place += channels) {
          const std::int64_t h = i * convolution.stride[0] - convolution.pad[0] + r * convolution.dilation[0];
          const std::int64_t v = j * convolution.stride[1] - convolution.pad[1] + s * convolution.dilation[1];
          if (h >= 0 && h < x.extent[2] && v >= 0 && v < x.extent[3]) visit(place, (h * x.extent[3] + v) * channels);
        }
}

/// All host memory of one call, and room for one image.
struct Work {
  const Convolution& convolution;
  void *x, *w, *y;
  std::int64_t rows, patch, filters, channels, images;
  Floats image, patches, result, weights;

  Work(const Convolution& c, void* x, void* w, void* y)
      : convolution(c),
        x(x),
        w(w),
        y(y),
        rows(c.rows()),
        patch(c.patch()),
        filters(c.w.extent[0]),
        channels(c.x.extent[1]),
        images(c.x.extent[0]),
        image(size(c.x.count() / images)),
        patches(size(rows * patch)),
        result(size(rows * filters)),
        weights(size(filters * patch)) {}

  static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

  void read_weights() {
    for (std::int64_t k = 0; k < filters; ++k) read(convolution.w, w, k, weights.data() + k * patch);
  }
  void read_patches(std::int64_t i) {
    read(convolution.x, x, i, image.data());
    std::fill(patches.begin(), patches.end(), 0.0f);
    each_stretch(convolution, [&](std::int64_t place, std::int64_t from) {
      std::copy_n(image.data() + from, channels, patches.data() + place);
    });
  }
};

blas::Operand operand(const Floats& from, std::int64_t outer_stride, std::int64_t inner_stride) {
  return {from.data(), blas::Type::f32, outer_stride, inner_stride};
}

/// to[i, j] += the product, [m, n].
void add_product(const blas::Product& product, Doubles& to) {
  blas::multiply(product, blas::noise_seed(), [&](const blas::Tile& tile) {
    for (std::int64_t j = 0; j < tile.columns; ++j)
      for (std::int64_t i = 0; i < tile.rows; ++i)
        to[static_cast<std::size_t>((tile.row + i) * product.n + tile.column + j)] += tile.sums[j * tile.stride + i];
  });
}

void run_forward(Work& work) {
  work.read_weights();
  Doubles sums(work.result.size());
  for (std::int64_t i = 0; i < work.images; ++i) {
    work.read_patches(i);
    std::fill(sums.begin(), sums.end(), 0.0);
    add_product({.m = work.rows,
                 .n = work.filters,
                 .k = work.patch,
                 .a = operand(work.patches, work.patch, 1),
                 .b = operand(work.weights, work.patch, 1)},
                sums);
    write(work.convolution, work.convolution.y, work.y, i, sums.data());
  }
}

void run_data(Work& work) {
  work.read_weights();
  Doubles patches(work.patches.size()), image(work.image.size());
  for (std::int64_t i = 0; i < work.images; ++i) {
    read(work.convolution.y, work.y, i, work.result.data());
    std::fill(patches.begin(), patches.end(), 0.0);
    add_product({.m = work.rows,
                 .n = work.patch,
                 .k = work.filters,
                 .a = operand(work.result, work.filters, 1),
                 .b = operand(work.weights, 1, work.patch)},
                patches);
    std::fill(image.begin(), image.end(), 0.0);
    each_stretch(work.convolution, [&](std::int64_t place, std::int64_t to) {
      for (std::int64_t c = 0; c < work.channels; ++c) image[Work::size(to + c)] += patches[Work::size(place + c)];
    });
    write(work.convolution, work.convolution.x, work.x, i, image.data());
  }
}

void run_filter(Work& work) {
  Doubles sums(work.weights.size());
  for (std::int64_t i = 0; i < work.images; ++i) {
    work.read_patches(i);
    read(work.convolution.y, work.y, i, work.result.data());
    add_product({.m = work.filters,
                 .n = work.patch,
                 .k = work.rows,
                 .a = operand(work.result, 1, work.filters),
                 .b = operand(work.patches, 1, work.patch)},
                sums);
  }
  for (std::int64_t k = 0; k < work.filters; ++k)
    write(work.convolution, work.convolution.w, work.w, k, sums.data() + k * work.patch);
}

void* backing(const char* call, const Volume& volume) {
  void* host = host::device_range(volume.address, volume.bytes());
  if (host == nullptr)
    report(call, text(volume.name, ": ", volume.bytes(), " bytes at ", volume.address,
                      " were live at the call but not when the work ran"));
  return host;
}

void check_initialized(const char* call, const Volume& volume) {
  if (host::is_initialized(volume.address, volume.bytes())) return;
  host::poison_unwritten(volume.address, volume.bytes());
  report(call,
         text(volume.name, ": reads bytes that nobody wrote, in the ", volume.bytes(), " bytes at ", volume.address));
}

/// Programs must not rely on the workspace across calls.
void poison_workspace(const Convolution& convolution) {
  constexpr std::size_t kMost = std::size_t{1} << 20;
  const std::size_t bytes = std::min(convolution.workspace_bytes, kMost);
  if (bytes == 0) return;
  if (void* host = host::device_range(convolution.workspace, bytes)) std::memset(host, 0xFF, bytes);
}

}  // namespace

void run(const Convolution& convolution) {
  void* x = backing(convolution.call, convolution.x);
  void* w = backing(convolution.call, convolution.w);
  void* y = backing(convolution.call, convolution.y);
  if (x == nullptr || w == nullptr || y == nullptr) return;
  for (const Volume& input : convolution.inputs()) check_initialized(convolution.call, input);
  const Volume& output = convolution.output();
  if (convolution.beta != 0) check_initialized(convolution.call, output);
  poison_workspace(convolution);
  Work work(convolution, x, w, y);
  if (convolution.pass == Pass::forward) run_forward(work);
  if (convolution.pass == Pass::data) run_data(work);
  if (convolution.pass == Pass::filter) run_filter(work);
  host::mark_initialized(output.address, output.bytes());
}

}  // namespace emulator::dnn
