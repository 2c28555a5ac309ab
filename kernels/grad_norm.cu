#include "kernels/segments.cuh"

// GradNorm reads every gradient once, 4 bytes per element: blocks sum chunks of the flat buffer, and then one block per
// tensor adds up its parts in order.
namespace dino {
inline namespace grad_norm_cu {

using namespace cuda;

struct Squares {
  static constexpr int kKinds = 1;
  const float* x;

  __device__ bool prepare(const Tensor& tensor) { return tensor.active; }
  template <int N>
  __device__ void add(int64_t i, float (&sums)[1]) const {
    float value[N];
    load(x + i, value);
#pragma unroll
    for (const float v : value) sums[0] = fmaf(v, v, sums[0]);
  }
};

__global__ void __launch_bounds__(kSegmentThreads)
    finish_norms(SegmentTable table, TensorPartials partials, float* norms) {
  const Tensor tensor = table.at(static_cast<int>(blockIdx.x));
  const double sum = tensor.active ? partials.total(tensor, 0) : 0;
  if (threadIdx.x == 0) norms[tensor.index] = static_cast<float>(sqrt(sum));
}

__global__ void __launch_bounds__(kSegmentThreads)
    all_finite(const float* loss, const float* norms, SegmentTable table, float* healthy) {
  bool finite = isfinite(*loss);
  for (int tensor = static_cast<int>(threadIdx.x); tensor < table.tensors; tensor += kSegmentThreads)
    if (table.at(tensor).active) finite = finite && isfinite(norms[tensor]);
  finite = __syncthreads_and(finite);
  if (threadIdx.x == 0) *healthy = finite ? 1.0f : 0.0f;
}

}  // namespace grad_norm_cu

void GradNorm::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const SegmentTable table(in[segments]);
  const int64_t elements = in[grad].count();
  const TensorPartials partials = TensorPartials::in_scratch(stream, elements, table.tensors, 1);
  launch(stream, "grad norm", sum_chunks<Squares>,
         {blocks_for(table.tensors ? elements : 0, kSumChunk), kSegmentThreads}, Squares{in[grad].as<float>()}, table,
         elements, aligned_to_packs({in[grad]}), partials);
  launch(stream, "grad norm: tensors", finish_norms, {blocks_for(table.tensors, 1), kSegmentThreads}, table, partials,
         out[norms].as<float>());
}

void Health::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  launch(stream, "health", all_finite, {1, kSegmentThreads}, in[loss].as<float>(), in[norms].as<float>(),
         SegmentTable(in[segments]), out[healthy].as<float>());
}

}  // namespace dino
