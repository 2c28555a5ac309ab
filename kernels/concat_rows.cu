#include "kernels/concat_rows.h"

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

// Stacking is copying. Gradients that are added to others: one pack of 16 bytes per thread.
namespace dino {
inline namespace concat_rows_cu {

using namespace cuda;

constexpr int kThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) add_to(const T* from, T* to, int64_t packs) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  float value[N];
  load(from + i * N, value);
  store(to + i * N, value, true);
}

void add(CudaStream& stream, const View& from, const View& to) {
  with_dtype(to.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kPack = 16 / sizeof(T);
    const auto start = [&](auto kernel, int64_t packs) {
      launch(stream, "concat_rows backward", kernel, {blocks_for(packs, kThreads), kThreads}, from.as<T>(),
             to.as<T>(), packs);
    };
    if (fits_packs<T, kPack>(from) && fits_packs<T, kPack>(to))
      start(add_to<T, kPack>, to.count() / kPack);
    else
      start(add_to<T, 1>, to.count());
  });
}

/// The rows of `y` that `shape` fills from row `first` on.
View part(const View& y, int64_t first, const Shape& shape) {
  std::byte* begin = y.as<std::byte>() + static_cast<size_t>(first * y.cols()) * bytes_of(y.dtype);
  return View(begin, y.dtype, shape, 0, y.device);
}

size_t bytes_in(const View& view) { return static_cast<size_t>(view.count()) * bytes_of(view.dtype); }

}  // namespace concat_rows_cu

void ConcatRows::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  int64_t first = 0;
  for (const View& x : in) {
    if (!x.defined()) continue;
    stream.copy(part(out[y], first, x.shape).data, x.data, bytes_in(x));
    first += x.rows();
  }
}

void ConcatRows::backward(CudaStream& stream, std::span<const View> in, std::span<const View>,
                          std::span<const View> dout, std::span<const Grad> din) const {
  int64_t first = 0;
  for (size_t i = 0; i < din.size(); ++i) {
    const View& dx = din[i].view;
    const View dy = part(dout[y], first, in[i].shape);
    if (din[i].mode == GradMode::write) stream.copy(dx.data, dy.data, bytes_in(dy));
    if (din[i].mode == GradMode::add) add(stream, dy, dx);
    first += in[i].rows();
  }
}

}  // namespace dino
