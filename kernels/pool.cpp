#include "kernels/pool.h"

#include <algorithm>
#include <limits>

#include "kernels/channels.h"
#include "kernels/rows.h"

namespace dino {
namespace {

/// First input row (or column) of bin `i` of `bins`, and the first one after it.
int64_t bin_begin(int64_t i, int64_t extent, int64_t bins) { return i * extent / bins; }
int64_t bin_end(int64_t i, int64_t extent, int64_t bins) { return ((i + 1) * extent + bins - 1) / bins; }

/// Calls body(bin, pixel, 1 / pixels of the bin) for all pixels of all bins of one image.
template <class Body>
void for_bins(const Shape& x, const AveragePool& op, const Body& body) {
  for (int64_t i = 0; i < op.rows; ++i)
    for (int64_t j = 0; j < op.cols; ++j) {
      const int64_t top = bin_begin(i, x[1], op.rows), bottom = bin_end(i, x[1], op.rows);
      const int64_t left = bin_begin(j, x[2], op.cols), right = bin_end(j, x[2], op.cols);
      const double weight = 1.0 / static_cast<double>((bottom - top) * (right - left));
      for (int64_t row = top; row < bottom; ++row)
        for (int64_t col = left; col < right; ++col)
          body(i * op.cols + j, row * x[2] + col, weight, row == top && col == left);
    }
}

template <class T>
void average_forward(const AveragePool& op, CpuStream& stream, const View& x, const View& y) {
  const int64_t channels = x.cols();
  stream.pool().parallel(x.shape[0], [&](int64_t image, int) {
    const T* source = x.row<T>(image * x.shape[1] * x.shape[2]);
    T* target = y.row<T>(image * op.rows * op.cols);
    for_bins(x.shape, op, [&](int64_t bin, int64_t pixel, double weight, bool first) {
      rows::axpy(static_cast<T>(weight), source + pixel * channels, target + bin * channels, channels,
                 !first);
    });
  });
}

template <class T>
void average_backward(const AveragePool& op, CpuStream& stream, const View& dy, const Grad& dx) {
  const Shape& shape = dx.view.shape;
  const int64_t channels = shape.cols(), pixels = shape[1] * shape[2];
  stream.pool().parallel(shape[0], [&](int64_t image, int) {
    const T* source = dy.row<T>(image * op.rows * op.cols);
    T* target = dx.view.row<T>(image * pixels);
    if (dx.mode == GradMode::write) std::fill_n(target, pixels * channels, T{0});
    for_bins(shape, op, [&](int64_t bin, int64_t pixel, double weight, bool) {
      rows::axpy(static_cast<T>(weight), source + bin * channels, target + pixel * channels, channels, true);
    });
  });
}

template <class T>
void max_forward(const MaxPool& op, CpuStream& stream, const View& x, const View& y, const View& index) {
  const int64_t height = x.shape[1], width = x.shape[2], channels = x.cols(), out_width = y.shape[2];
  // One row of the output is one piece of work.
  stream.pool().parallel(y.shape[0] * y.shape[1], [&](int64_t piece, int) {
    const T* source = x.row<T>(piece / y.shape[1] * height * width);
    const int64_t top = piece % y.shape[1] * op.stride - op.pad;
    const int64_t bottom = std::min(height, top + op.kernel);
    for (int64_t j = 0; j < out_width; ++j) {
      T* best = y.row<T>(piece * out_width + j);
      int32_t* winner = index.row<int32_t>(piece * out_width + j);
      const int64_t left = j * op.stride - op.pad, right = std::min(width, left + op.kernel);
      const int64_t first = std::max<int64_t>(0, top) * width + std::max<int64_t>(0, left);
      std::copy_n(source + first * channels, channels, best);
      std::fill_n(winner, channels, static_cast<int32_t>(first));
      for (int64_t row = std::max<int64_t>(0, top); row < bottom; ++row)
        for (int64_t col = std::max<int64_t>(0, left); col < right; ++col)
          channels::keep_max(source + (row * width + col) * channels, static_cast<int32_t>(row * width + col),
                             channels, best, winner);
    }
  });
}

template <class T>
void max_backward(CpuStream& stream, const View& index, const View& dy, const Grad& dx) {
  const int64_t channels = dy.cols(), pixels = dx.view.shape[1] * dx.view.shape[2];
  const int64_t out_pixels = dy.shape[1] * dy.shape[2];
  stream.pool().parallel(dy.shape[0], [&](int64_t image, int) {
    T* target = dx.view.row<T>(image * pixels);
    if (dx.mode == GradMode::write) std::fill_n(target, pixels * channels, T{0});
    for (int64_t pixel = image * out_pixels; pixel < (image + 1) * out_pixels; ++pixel) {
      const int32_t* winner = index.row<int32_t>(pixel);
      const T* source = dy.row<T>(pixel);
      for (int64_t c = 0; c < channels; ++c) target[winner[c] * channels + c] += source[c];
    }
  });
}

}  // namespace

std::vector<Spec> AveragePool::infer(std::span<const Spec> in) const {
  require_float_dtypes<AveragePool>(in);
  const Shape& image = in[x].shape;
  check<UsageError>(rows > 0 && cols > 0, kName, ": rows and cols must be positive; got ", rows, ", ", cols);
  require<AveragePool>(image.rank == 4 && image.count() > 0, "x must be [images, height, width, channels]",
                       in);
  return {{in[x].dtype, {image[0], rows, cols, image[3]}}};
}

void AveragePool::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) { average_forward<decltype(zero)>(*this, stream, in[x], out[y]); });
}

void AveragePool::backward(CpuStream& stream, std::span<const View>, std::span<const View>,
                           std::span<const View> dout, std::span<const Grad> din) const {
  if (!din[x].wanted()) return;
  with_float(dout[y].dtype,
             [&](auto zero) { average_backward<decltype(zero)>(*this, stream, dout[y], din[x]); });
}

std::vector<Case<AveragePool>> AveragePool::cases(Tiny) {
  return {{{1, 1}, {{{2, 3, 4, 5}}}},
          {{2, 3}, {{{3, 5, 7, 3}}}},
          {{4, 4}, {{{1, 3, 2, 17}}}},
          {{2, 2}, {{{2, 4, 4, 1}}}},
          {{2, 3}, {{{2, 5, 4, 8}}}}};
}

std::vector<Case<AveragePool>> AveragePool::cases(Real) {
  return {{{1, 1}, {{{64, 7, 7, 2048}}}}, {{1, 1}, {{{512, 7, 7, 256}}}}};
}

std::vector<Spec> MaxPool::infer(std::span<const Spec> in) const {
  require_float_dtypes<MaxPool>(in);
  const Shape& image = in[x].shape;
  check<UsageError>(kernel > 0 && stride > 0 && pad >= 0 && 2 * pad <= kernel, kName,
                    ": kernel and stride must be positive, pad at most half of kernel; got ", kernel, ", ",
                    stride, ", ", pad);
  require<MaxPool>(image.rank == 4 && image.count() > 0, "x must be [images, height, width, channels]", in);
  require<MaxPool>(image[1] + 2 * pad >= kernel && image[2] + 2 * pad >= kernel,
                   "the window must fit in the padded image", in);
  require<MaxPool>(image[1] * image[2] <= std::numeric_limits<int32_t>::max(),
                   "an image must have less than 2^31 pixels", in);
  const auto extent = [&](int axis) { return (image[axis] + 2 * pad - kernel) / stride + 1; };
  const Shape pooled{image[0], extent(1), extent(2), image[3]};
  return {{in[x].dtype, pooled}, {Dtype::i32, pooled}};
}

void MaxPool::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype,
             [&](auto zero) { max_forward<decltype(zero)>(*this, stream, in[x], out[y], out[index]); });
}

void MaxPool::backward(CpuStream& stream, std::span<const View>, std::span<const View> out,
                       std::span<const View> dout, std::span<const Grad> din) const {
  if (!din[x].wanted()) return;
  with_float(dout[y].dtype,
             [&](auto zero) { max_backward<decltype(zero)>(stream, out[index], dout[y], din[x]); });
}

std::vector<Case<MaxPool>> MaxPool::cases(Tiny) {
  return {{{3, 2, 1}, {{{2, 6, 5, 3}}}},
          {{2, 2, 0}, {{{3, 4, 7, 17}}}},
          {{3, 1, 1}, {{{1, 1, 2, 4}}}},
          {{2, 3, 1}, {{{2, 5, 5, 2}}}},
          {{3, 2, 1}, {{{2, 5, 4, 8}}}}};
}

std::vector<Case<MaxPool>> MaxPool::cases(Real) {
  return {{{3, 2, 1}, {{{8, 112, 112, 64}}}}, {{2, 2, 0}, {{{512, 28, 28, 32}}}}};
}

}  // namespace dino
