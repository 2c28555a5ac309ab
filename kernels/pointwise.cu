#include "kernels/pointwise.h"

#include "kernels/device_math.cuh"
#include "kernels/gelu.cuh"
#include "kernels/launch.cuh"

// One pack of up to 16 bytes per thread: 2 accesses of 16 bytes forward, 3 backward, nothing read twice.
namespace dino {
inline namespace pointwise_cu {

using namespace cuda;

constexpr int kThreads = 256;

struct GeluForward {
  static __device__ float of(float x) { return gelu(x); }
};
struct GeluTanhForward {
  static __device__ float of(float x) { return gelu_tanh(x); }
};
struct ReluForward {
  static __device__ float of(float x) { return x < 0 ? 0 : x; }  // NaN stays NaN
};
/// Gradients of x from what forward kept and dy.
struct GeluBackward {
  static __device__ float of(float x, float dy) { return dy * gelu_slope(x); }
};
struct GeluTanhBackward {
  static __device__ float of(float x, float dy) { return dy * gelu_tanh_slope(x); }
};
struct ReluBackward {
  static __device__ float of(float y, float dy) { return y > 0 ? dy : 0; }
};

template <class F, class T, int N>
__global__ void __launch_bounds__(kThreads) map(const T* x, T* y, int64_t packs) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  float value[N];
  load(x + i * N, value);
#pragma unroll
  for (float& v : value) v = F::of(v);
  store(y + i * N, value);
}

template <class F, class T, int N>
__global__ void __launch_bounds__(kThreads) map_gradient(const T* kept, const T* dy, T* dx, int64_t packs, bool add) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  float value[N], gradient[N];
  load(kept + i * N, value);
  load(dy + i * N, gradient);
#pragma unroll
  for (int e = 0; e < N; ++e) gradient[e] = F::of(value[e], gradient[e]);
  store(dx + i * N, gradient, add);
}

/// Elements that a pack of all these dense views can have: 16 bytes' worth, or 1.
template <class T>
bool packable(std::initializer_list<View> views) {
  for (const View& view : views)
    if (view.count() % (16 / sizeof(T)) != 0 || reinterpret_cast<uintptr_t>(view.data) % 16 != 0) return false;
  return true;
}

template <class F>
void run_forward(CudaStream& stream, const char* name, const View& x, const View& y) {
  with_dtype(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kPack = 16 / sizeof(T);
    const auto start = [&](auto kernel, int64_t packs) {
      launch(stream, name, kernel, {blocks_for(packs, kThreads), kThreads}, x.as<T>(), y.as<T>(), packs);
    };
    if (packable<T>({x, y}))
      start(map<F, T, kPack>, x.count() / kPack);
    else
      start(map<F, T, 1>, x.count());
  });
}

template <class F>
void run_backward(CudaStream& stream, const char* name, const View& kept, const View& dy, const Grad& dx) {
  if (!dx.wanted()) return;
  with_dtype(dy.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kPack = 16 / sizeof(T);
    const auto start = [&](auto kernel, int64_t packs) {
      launch(stream, name, kernel, {blocks_for(packs, kThreads), kThreads}, kept.as<T>(), dy.as<T>(), dx.view.as<T>(), packs,
             dx.mode == GradMode::add);
    };
    if (packable<T>({kept, dy, dx.view}))
      start(map_gradient<F, T, kPack>, dy.count() / kPack);
    else
      start(map_gradient<F, T, 1>, dy.count());
  });
}

}  // namespace pointwise_cu

void Gelu::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  if (form == Activation::gelu) return run_forward<GeluForward>(stream, "gelu", in[x], out[y]);
  run_forward<GeluTanhForward>(stream, "gelu", in[x], out[y]);
}

void Gelu::backward(CudaStream& stream, std::span<const View> in, std::span<const View>, std::span<const View> dout,
                    std::span<const Grad> din) const {
  if (form == Activation::gelu) return run_backward<GeluBackward>(stream, "gelu backward", in[x], dout[y], din[x]);
  run_backward<GeluTanhBackward>(stream, "gelu backward", in[x], dout[y], din[x]);
}

void Relu::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  run_forward<ReluForward>(stream, "relu", in[x], out[y]);
}

void Relu::backward(CudaStream& stream, std::span<const View>, std::span<const View> out, std::span<const View> dout,
                    std::span<const Grad> din) const {
  run_backward<ReluBackward>(stream, "relu backward", out[y], dout[y], din[x]);
}

}  // namespace dino
