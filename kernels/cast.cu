#include "kernels/cast.h"

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

// One pack of 4 elements per thread: one access of up to 16 bytes each to read and to write.
namespace dino {
inline namespace cast_cu {

using namespace cuda;

constexpr int kThreads = 256;

template <class From, class To, int N>
__global__ void __launch_bounds__(kThreads) convert(const From* from, To* to, int64_t packs, bool add) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  float value[N];
  load(from + i * N, value);
  store(to + i * N, value, add);
}

void run(CudaStream& stream, const char* name, const View& from, const View& to, bool add) {
  const auto aligned = [](const View& view) {
    return reinterpret_cast<uintptr_t>(view.data) % (4 * bytes_of(view.dtype)) == 0;
  };
  with_dtype(from.dtype, [&](auto from_zero) {
    with_dtype(to.dtype, [&](auto to_zero) {
      using From = decltype(from_zero);
      using To = decltype(to_zero);
      const auto start = [&](auto kernel, int64_t packs) {
        launch(stream, name, kernel, {blocks_for(packs, kThreads), kThreads}, from.as<From>(), to.as<To>(),
               packs, add);
      };
      if (from.count() % 4 == 0 && aligned(from) && aligned(to))
        start(convert<From, To, 4>, from.count() / 4);
      else
        start(convert<From, To, 1>, from.count());
    });
  });
}

}  // namespace cast_cu

void Cast::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  run(stream, "cast", in[x], out[y], false);
}

void Cast::backward(CudaStream& stream, std::span<const View>, std::span<const View>,
                    std::span<const View> dout, std::span<const Grad> din) const {
  if (din[x].wanted()) run(stream, "cast backward", dout[y], din[x].view, din[x].mode == GradMode::add);
}

}  // namespace dino
