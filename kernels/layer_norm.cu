#include "kernels/layer_norm.h"

#include "kernels/layer_norm.cuh"

namespace dino {
using namespace cuda;

void LayerNorm::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const View& source = in[x];
  const NormParameters p{in[gamma].as<float>(),          in[beta].as<float>(),    out[mean].as<float>(),
                         out[rstd].as<float>(),          static_cast<float>(eps), source.rows(),
                         static_cast<int>(source.cols())};
  with_dtype(out[y].dtype, [&](auto zero) {
    using Y = decltype(zero);
    start_normalize<true>(stream, "layer_norm", PlainRows{source.as<float>()}, p, out[y].as<Y>(),
                          fits_registers({source, out[y]}));
  });
}

void LayerNorm::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  const View &source = in[x], &dy = dout[y];
  const Grad& dx = din[x];
  const PlainGradients target{dx.wanted() ? dx.view.as<float>() : nullptr, dx.mode == GradMode::add};
  with_dtype(dy.dtype, [&](auto zero) {
    using Y = decltype(zero);
    const NormBackward<Y> n{
        source.as<float>(), out[mean].as<float>(), out[rstd].as<float>(),          in[gamma].as<float>(),
        dy.as<Y>(),         source.rows(),         static_cast<int>(source.cols())};
    start_normalize_backward<true>(stream, "layer_norm backward", target, dx.wanted(), n, din[gamma],
                                   din[beta], fits_registers({source, dy, dx.view}));
  });
}

}  // namespace dino
