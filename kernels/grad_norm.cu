#include "kernels/last_block.cuh"
#include "kernels/segments.cuh"

// GradNorm reads every gradient once, 4 bytes per element: blocks sum chunks of the flat buffer, and the last of them adds up the
// parts of tensors in order, a warp for each.
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

__global__ void __launch_bounds__(kSegmentThreads, 8)
    sum_squares(Squares squares, SegmentTable table, int64_t elements, bool packed, TensorPartials partials, float* norms,
                unsigned* counter) {
  sum_chunk(squares, table, elements, packed, partials);
  if (!is_last_block(counter, gridDim.x)) return;
  const int lane = threadIdx.x % 32;
  for (int i = static_cast<int>(threadIdx.x) / 32; i < table.tensors; i += kSegmentThreads / 32) {
    const Tensor tensor = table.at(i);
    double sum = tensor.active ? partials.sum(tensor, 0, lane, 32) : 0;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
    if (lane == 0) norms[i] = static_cast<float>(sqrt(sum));
  }
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
  launch(stream, "grad norm", sum_squares, {blocks_for(table.tensors ? elements : 0, kSumChunk), kSegmentThreads},
         Squares{in[grad].as<float>()}, table, elements, aligned_to_packs({in[grad]}), partials, out[norms].as<float>(),
         tickets(stream, 1));
}

void Health::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  launch(stream, "health", all_finite, {1, kSegmentThreads}, in[loss].as<float>(), in[norms].as<float>(),
         SegmentTable(in[segments]), out[healthy].as<float>());
}

}  // namespace dino
