#include "kernels/residual_layer_norm.h"

#include "kernels/layer_norm.cuh"
#include "kernels/token_rows.cuh"

// The kernels of layer_norm.cuh with another source of rows: forward reads x and branch and writes sum and y,
// backward reads sum, dy and dsum and writes dx and dbranch, each once.
namespace dino {
inline namespace residual_layer_norm_cu {

using namespace cuda;

/// Rows that are x + factor · branch; what is read again is the sum that the same thread stored.
template <class B>
struct ResidualRows {
  const float* x;
  const B* branch;
  float* sum;
  RowScale scale;

  __device__ float factor(int64_t row) const { return scale.of(row); }
  template <int N>
  __device__ void first(int64_t offset, float factor, float (&value)[N]) const {
    float added[N];
    load(x + offset, value);
    load(branch + offset, added);
#pragma unroll
    for (int e = 0; e < N; ++e) value[e] += factor * added[e];
    store(sum + offset, value);
  }
  __device__ float again(int64_t offset) const { return sum[offset]; }
};

/// Adds the gradient that comes to the sum past the norm, and passes the total on to x and branch.
template <class B>
struct ResidualGradients {
  const float* dsum;  ///< null: zero
  float* dx;          ///< null: not wanted
  B* dbranch;         ///< null: not wanted
  bool add_dx, add_dbranch;
  RowScale scale;

  __device__ bool wanted() const { return dx || dbranch; }
  __device__ float factor(int64_t row) const { return scale.of(row); }
  template <int N>
  __device__ void take(int64_t offset, float factor, float (&d)[N]) const {
    if (dsum) {
      float past[N];
      load(dsum + offset, past);
#pragma unroll
      for (int e = 0; e < N; ++e) d[e] += past[e];
    }
    float scaled[N];
#pragma unroll
    for (int e = 0; e < N; ++e) scaled[e] = factor * d[e];
    if (dx) store(dx + offset, d, add_dx);
    if (dbranch) store(dbranch + offset, scaled, add_dbranch);
  }
};

/// Calls f with a value of the branch's type and one of y's. Kernels that hold rows exist only for equal
/// types: no network has others.
template <class F>
void with_types(Dtype branch, Dtype y, const F& f) {
  with_dtype(branch, [&](auto b) { with_dtype(y, [&](auto value) { f(b, value); }); });
}

}  // namespace residual_layer_norm_cu

void ResidualLayerNorm::forward(CudaStream& stream, std::span<const View> in,
                                std::span<const View> out) const {
  const NormParameters p{in[gamma].as<float>(),         in[beta].as<float>(),    out[mean].as<float>(),
                         out[rstd].as<float>(),         static_cast<float>(eps), in[x].rows(),
                         static_cast<int>(in[x].cols())};
  with_types(in[branch].dtype, out[y].dtype, [&](auto b, auto value) {
    using B = decltype(b);
    using Y = decltype(value);
    const ResidualRows<B> source{in[x].as<float>(), in[branch].as<B>(), out[sum].as<float>(),
                                 RowScale(in[scale], sequences, cls_only)};
    start_normalize<std::is_same_v<B, Y>>(stream, "residual_layer_norm", source, p, out[y].as<Y>(),
                                          fits_registers({in[x], in[branch], out[sum], out[y]}));
  });
}

void ResidualLayerNorm::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                                 std::span<const View> dout, std::span<const Grad> din) const {
  const View &source = out[sum], &dsum = dout[sum], &dy = dout[y];
  const Grad &dx = din[x], &dbranch = din[branch];
  const bool held = fits_registers({source, dsum, dy, dx.view, dbranch.view});
  with_types(in[branch].dtype, dy.defined() ? dy.dtype : in[branch].dtype, [&](auto b, auto value) {
    using B = decltype(b);
    using Y = decltype(value);
    const ResidualGradients<B> target{dsum.as<float>(),
                                      dx.wanted() ? dx.view.as<float>() : nullptr,
                                      dbranch.wanted() ? dbranch.view.as<B>() : nullptr,
                                      dx.mode == GradMode::add,
                                      dbranch.mode == GradMode::add,
                                      RowScale(in[scale], sequences, cls_only)};
    const NormBackward<Y> n{
        source.as<float>(), out[mean].as<float>(), out[rstd].as<float>(),          in[gamma].as<float>(),
        dy.as<Y>(),         source.rows(),         static_cast<int>(source.cols())};
    start_normalize_backward<std::is_same_v<B, Y>>(stream, "residual_layer_norm backward", target,
                                                   dx.wanted() || dbranch.wanted(), n, din[gamma], din[beta],
                                                   held);
  });
}

}  // namespace dino
