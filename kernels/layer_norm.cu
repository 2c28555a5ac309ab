#include "kernels/layer_norm.h"

#include "kernels/layer_norm.cuh"

namespace dino {
namespace cuda {
inline namespace layer_norm_cu {

constexpr int kTailColumns = 32, kTailGroups = 32;

/// target[col] = or += Σ over blocks; columns of dgamma, then those of dbeta. Each of 32 groups of threads
/// adds up every 32nd block, and the groups are added in order.
__global__ void __launch_bounds__(kTailColumns* kTailGroups)
    add_partials(const float* partial, int64_t blocks, int dim, float* dgamma, bool add_gamma, float* dbeta,
                 bool add_beta) {
  __shared__ float group_sums[kTailGroups][kTailColumns];
  const int col = static_cast<int>(blockIdx.x * kTailColumns + threadIdx.x);
  float sum = 0;
  if (col < 2 * dim)
#pragma unroll 4
    for (int64_t block = threadIdx.y; block < blocks; block += kTailGroups)
      sum += partial[block * 2 * dim + col];
  group_sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || col >= 2 * dim) return;
  float total = 0;
#pragma unroll
  for (int group = 0; group < kTailGroups; ++group) total += group_sums[group][threadIdx.x];
  float* target = col < dim ? dgamma : dbeta;
  if (!target) return;
  float& element = target[col < dim ? col : col - dim];
  element = (col < dim ? add_gamma : add_beta) ? element + total : total;
}

}  // namespace layer_norm_cu

void finish_norm_parameters(CudaStream& stream, const float* partial, int64_t blocks, int dim,
                            const Grad& dgamma, const Grad& dbeta) {
  const auto target = [](const Grad& grad) { return grad.wanted() ? grad.view.as<float>() : nullptr; };
  launch(stream, "layer_norm parameters", add_partials,
         {blocks_for(2 * dim, kTailColumns), {kTailColumns, kTailGroups}}, partial, blocks, dim,
         target(dgamma), dgamma.mode == GradMode::add, target(dbeta), dbeta.mode == GradMode::add);
}

}  // namespace cuda

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
    const NormBackward<Y> n{source.as<float>(),
                            out[mean].as<float>(),
                            out[rstd].as<float>(),
                            in[gamma].as<float>(),
                            dy.as<Y>(),
                            nullptr,
                            source.rows(),
                            static_cast<int>(source.cols())};
    start_normalize_backward<true>(stream, "layer_norm backward", target, dx.wanted(), n, din[gamma],
                                   din[beta], fits_registers({source, dy, dx.view}));
  });
}

}  // namespace dino
