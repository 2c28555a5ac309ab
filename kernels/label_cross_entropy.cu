#include "kernels/label_cross_entropy.h"

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

// A block, or with few classes a warp, per row and head: it reads the logits once, keeping a maximum and a
// sum of exponentials that is scaled down whenever the maximum grows. Losses of rows are added in a second
// launch, in a fixed order. Backward reads the logits and writes their gradient: 4 bytes per element forward,
// 8 backward. A label that is no class gives a NaN, because the device cannot throw.
namespace dino {
inline namespace label_cross_entropy_cu {

using namespace cuda;

constexpr int kThreads = 128;
constexpr int kFewClasses = 256;  // up to here a warp is enough

/// The logits of one row and head, seen by the threads of a warp or block.
template <int Threads>
struct Segment {
  int64_t number;  ///< row · heads + head
  int thread;

  __device__ Segment()
      : number(int64_t{blockIdx.x} * (kThreads / Threads) + threadIdx.x / Threads), thread(threadIdx.x % Threads) {}
  __device__ static float sum(float x) {
    if constexpr (Threads == 32)
      return warp_sum(x);
    else
      return block_sum<Threads>(x);
  }
  __device__ static float max(float x) {
    if constexpr (Threads == 32)
      return warp_max(x);
    else
      return block_max<Threads>(x);
  }
};

/// lse [rows, heads], and row_losses [heads, rows].
template <int Threads, int N>
__global__ void __launch_bounds__(kThreads) row_losses(const float* logits, const int64_t* labels, int64_t rows,
                                                       int heads, int classes, float* lse, float* losses) {
  const Segment<Threads> segment;
  if (segment.number >= rows * heads) return;
  const float* x = logits + segment.number * classes;
  float largest = -INFINITY, sum = 0;
#pragma unroll 2
  for (int c = segment.thread * N; c < classes; c += Threads * N) {
    float value[N];
    load(x + c, value);
    float top = largest;
#pragma unroll
    for (int i = 0; i < N; ++i) top = fmaxf(top, value[i]);
    sum *= largest == top ? 1 : expf(largest - top);
    const float shift = top == -INFINITY ? 0 : top;  // so far there is nothing but zeros
#pragma unroll
    for (int i = 0; i < N; ++i) sum += expf(value[i] - shift);
    largest = top;
  }
  const float top = segment.max(largest);
  const float normalizer = top + logf(segment.sum(largest == top ? sum : sum * expf(largest - top)));
  if (segment.thread != 0) return;
  const int64_t row = segment.number / heads, head = segment.number % heads, label = labels[row];
  const bool exists = label >= 0 && label < classes;
  lse[segment.number] = normalizer;
  losses[head * rows + row] = exists ? normalizer - x[label] : NAN;
}

/// A warp per head adds up its rows; the block then adds up the heads.
__global__ void __launch_bounds__(1024)
    finish_losses(const float* row_losses, int64_t rows, int heads, float* losses, float* loss) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int head = warp; head < heads; head += 32) {
    double sum = 0;
#pragma unroll 4
    for (int64_t row = lane; row < rows; row += 32) sum += static_cast<double>(row_losses[head * rows + row]);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
    if (lane == 0) losses[head] = static_cast<float>(sum / static_cast<double>(rows));
  }
  __syncthreads();
  if (warp > 0) return;
  float total = 0;
  for (int head = lane; head < heads; head += 32) total += losses[head];
  total = warp_sum(total);
  if (lane == 0) *loss = total;
}

/// dx = dloss / rows · (softmax − 1 at the label).
template <int Threads, int N>
__global__ void __launch_bounds__(kThreads)
    logit_gradient(const float* logits, const int64_t* labels, const float* lse, const float* dloss, int64_t rows,
                   int heads, int classes, float* dlogits, bool add) {
  const Segment<Threads> segment;
  if (segment.number >= rows * heads) return;
  const int64_t label = labels[segment.number / heads], begin = segment.number * classes;
  const float normalizer = lse[segment.number], factor = dloss ? *dloss / static_cast<float>(rows) : 0.0f;
#pragma unroll 2
  for (int c = segment.thread * N; c < classes; c += Threads * N) {
    float value[N];
    load(logits + begin + c, value);
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] = factor * (expf(value[i] - normalizer) - (c + i == label ? 1.0f : 0.0f));
    store(dlogits + begin + c, value, add);
  }
}

/// Calls f(threads per segment, elements in a pack), both as constants.
template <class F>
void with_kernel(const View& a, const View& b, int64_t classes, const F& f) {
  const auto with_pack = [&](auto threads) {
    if (classes % 4 == 0 && fits_packs<float, 4>(a) && fits_packs<float, 4>(b))
      f(threads, std::integral_constant<int, 4>());
    else
      f(threads, std::integral_constant<int, 1>());
  };
  if (classes <= kFewClasses)
    with_pack(std::integral_constant<int, 32>());
  else
    with_pack(std::integral_constant<int, kThreads>());
}

Grid grid_of(int64_t segments, int threads) { return {blocks_for(segments, kThreads / threads), kThreads}; }

}  // namespace label_cross_entropy_cu

void LabelCrossEntropy::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t rows = in[logits].rows(), classes = in[logits].cols() / heads;
  float* losses_of_rows = reinterpret_cast<float*>(stream.scratch(static_cast<size_t>(rows * heads) * sizeof(float)));
  with_kernel(in[logits], {}, classes, [&](auto threads, auto pack) {
    constexpr int kSegmentThreads = decltype(threads)::value, kPack = decltype(pack)::value;
    launch(stream, "label_cross_entropy", row_losses<kSegmentThreads, kPack>, grid_of(rows * heads, kSegmentThreads),
           in[logits].as<float>(), in[labels].as<int64_t>(), rows, heads, classes, out[lse].as<float>(),
           losses_of_rows);
  });
  launch(stream, "label_cross_entropy: sums", finish_losses, {1, 1024}, losses_of_rows, rows, heads,
         out[losses].as<float>(), out[loss].as<float>());
}

void LabelCrossEntropy::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                                 std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& grad = din[logits];
  if (!grad.wanted()) return;
  const int64_t rows = in[logits].rows(), classes = in[logits].cols() / heads;
  with_kernel(in[logits], grad.view, classes, [&](auto threads, auto pack) {
    constexpr int kSegmentThreads = decltype(threads)::value, kPack = decltype(pack)::value;
    launch(stream, "label_cross_entropy backward", logit_gradient<kSegmentThreads, kPack>,
           grid_of(rows * heads, kSegmentThreads), in[logits].as<float>(), in[labels].as<int64_t>(),
           out[lse].as<float>(), dout[loss].as<float>(), rows, heads, classes, grad.view.as<float>(),
           grad.mode == GradMode::add);
  });
}

}  // namespace dino
