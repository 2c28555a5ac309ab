#include "kernels/normalize.h"

#include "kernels/row_packs.cuh"

// A warp per row. Rows of up to 1024 elements stay in registers between the sum and its use, so everything is
// read or written once; others, or those that packs do not fit, are read a second time.
namespace dino {
inline namespace normalize_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

/// Elements of a row by columns: those of this lane's packs, held between two walks over them.
template <int Count>
struct Held {
  static constexpr int kWidth = kPack;
  template <class F>
  static __device__ void walk(int dim, const F& f) {
    for_packs<Count>(dim / kPack, f);
  }
};

/// The same one by one; nothing is held, and a second walk loads again.
struct Loaded {
  static constexpr int kWidth = 1;
  template <class F>
  static __device__ void walk(int dim, const F& f) {
    for (int col = static_cast<int>(threadIdx.x) % 32; col < dim; col += 32) f(0, col);
  }
};

template <class Rows>
constexpr int kSlots = 1;
template <int Count>
constexpr int kSlots<Held<Count>> = Count;

/// Storage for the walks over one row of one matrix.
template <class Rows, class T>
struct Row {
  const T* data;
  float value[kSlots<Rows>][Rows::kWidth];

  explicit __device__ Row(const T* data) : data(data) {}
  __device__ float (&first(int i, int col))[Rows::kWidth] {
    load(data + col, value[i]);
    return value[i];
  }
  __device__ float (&again(int i, int col))[Rows::kWidth] {
    if constexpr (Rows::kWidth == 1) load(data + col, value[i]);
    return value[i];
  }
};

template <class Rows, class T>
__device__ float squared_norm(Row<Rows, T>& row, int dim) {
  float sum = 0;
  Rows::walk(dim, [&](int i, int col) {
    for (float v : row.first(i, col)) sum += v * v;
  });
  return warp_sum(sum);
}

/// Σ a · b over a row.
template <class Rows, class A, class B>
__device__ float dot(Row<Rows, A>& a, Row<Rows, B>& b, int dim) {
  float sum = 0;
  Rows::walk(dim, [&](int i, int col) {
    const auto &x = a.first(i, col), &y = b.first(i, col);
#pragma unroll
    for (int e = 0; e < Rows::kWidth; ++e) sum += x[e] * y[e];
  });
  return warp_sum(sum);
}

/// target = or += a · x + b · y over a row.
template <class Rows, class X, class Y, class T>
__device__ void combine(float a, Row<Rows, X>& x, float b, Row<Rows, Y>& y, T* target, int dim, bool add) {
  Rows::walk(dim, [&](int i, int col) {
    const auto &u = x.again(i, col), &v = y.again(i, col);
    float sum[Rows::kWidth];
#pragma unroll
    for (int e = 0; e < Rows::kWidth; ++e) sum[e] = a * u[e] + b * v[e];
    store(target + col, sum, add);
  });
}

/// y = x · factor / max(‖x‖, eps) with one factor per row, or 1 for all; stores the divisor.
template <class Rows, class X, class Y>
__global__ void __launch_bounds__(kThreads)
    normalize(const X* x, const float* factors, Y* y, float* norms, float eps, int64_t rows, int dim) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  Row<Rows, X> source(x + row * dim);
  const float length = sqrtf(squared_norm(source, dim)), norm = length < eps ? eps : length;  // NaN stays NaN
  const float factor = (factors ? factors[row] : 1.0f) / norm;
  Rows::walk(dim, [&](int i, int col) {
    float scaled[Rows::kWidth];
    const auto& value = source.again(i, col);
#pragma unroll
    for (int e = 0; e < Rows::kWidth; ++e) scaled[e] = value[e] * factor;
    store(y + row * dim + col, scaled);
  });
  if (threadIdx.x % 32 == 0) norms[row] = norm;
}

template <class Rows, class T>
__global__ void __launch_bounds__(kThreads)
    normalize_backward(const T* y, const T* dy, const float* norms, T* dx, bool add, float eps, int64_t rows,
                       int dim) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  Row<Rows, T> unit(y + row * dim), gradient(dy + row * dim);
  const float norm = norms[row];
  // A row at the floor eps is divided by a constant; its gradient has no projection.
  const float product = dot(unit, gradient, dim), along = norm > eps ? product : 0;
  combine(1 / norm, gradient, -along / norm, unit, dx + row * dim, dim, add);
}

/// Gradients of g and v, each of which is null if it is not wanted.
template <class Rows>
__global__ void __launch_bounds__(kThreads)
    weight_norm_backward(const float* g, const float* v, const float* dw, const float* norms, float* dg,
                         bool add_dg, float* dv, bool add_dv, int64_t rows, int dim) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  Row<Rows, float> direction(v + row * dim), gradient(dw + row * dim);
  const float norm = norms[row], along = dot(direction, gradient, dim) / norm;
  if (dg && threadIdx.x % 32 == 0) dg[row] = add_dg ? dg[row] + along : along;
  if (!dv) return;
  const float factor = g[row] / norm;
  combine(factor, gradient, -factor * along / norm, direction, dv + row * dim, dim, add_dv);
}

/// Calls f with the way in which these views' rows are walked over.
template <class F>
void with_rows(std::initializer_list<View> views, int64_t dim, const F& f) {
  if (!fits_registers(views)) return f(Loaded{});
  dim <= 2 * 32 * kPack ? f(Held<2>{}) : f(Held<8>{});
}

}  // namespace normalize_cu

void L2Normalize::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t rows = in[x].rows(), dim = in[x].cols();
  with_dtype(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    with_rows({in[x], out[y]}, dim, [&](auto walk) {
      launch(stream, "l2_normalize", normalize<decltype(walk), T, T>, {blocks_for(rows, kWarps), kThreads},
             in[x].as<T>(), nullptr, out[y].as<T>(), out[norm].as<float>(), eps, rows, dim);
    });
  });
}

void L2Normalize::backward(CudaStream& stream, std::span<const View>, std::span<const View> out,
                           std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& dx = din[x];
  if (!dx.wanted()) return;
  const int64_t rows = out[y].rows(), dim = out[y].cols();
  with_dtype(out[y].dtype, [&](auto zero) {
    using T = decltype(zero);
    with_rows({out[y], dout[y], dx.view}, dim, [&](auto walk) {
      launch(stream, "l2_normalize backward", normalize_backward<decltype(walk), T>,
             {blocks_for(rows, kWarps), kThreads}, out[y].as<T>(), dout[y].as<T>(), out[norm].as<float>(),
             dx.view.as<T>(), dx.mode == GradMode::add, eps, rows, dim);
    });
  });
}

void WeightNorm::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t rows = in[v].rows(), dim = in[v].cols();
  with_dtype(out[w].dtype, [&](auto zero) {
    using W = decltype(zero);
    with_rows({in[v], out[w]}, dim, [&](auto walk) {
      launch(stream, "weight_norm", normalize<decltype(walk), float, W>, {blocks_for(rows, kWarps), kThreads},
             in[v].as<float>(), in[g].as<float>(), out[w].as<W>(), out[norm].as<float>(), 0.0f, rows, dim);
    });
  });
}

void WeightNorm::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                          std::span<const View> dout, std::span<const Grad> din) const {
  const Grad &dg = din[g], &dv = din[v];
  if (!dg.wanted() && !dv.wanted()) return;
  const int64_t rows = in[v].rows(), dim = in[v].cols();
  with_rows({in[v], dout[w], dv.view}, dim, [&](auto walk) {
    launch(stream, "weight_norm backward", weight_norm_backward<decltype(walk)>,
           {blocks_for(rows, kWarps), kThreads}, in[g].as<float>(), in[v].as<float>(), dout[w].as<float>(),
           out[norm].as<float>(), dg.wanted() ? dg.view.as<float>() : nullptr, dg.mode == GradMode::add,
           dv.wanted() ? dv.view.as<float>() : nullptr, dv.mode == GradMode::add, rows, dim);
  });
}

}  // namespace dino
