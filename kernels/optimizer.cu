#include "kernels/segments.cuh"

// A small kernel works out what is the same for all elements of a tensor, and one pass over the flat buffers does the
// rest, each element by one thread. Bytes per element: AdamW 28, and with a teacher and bf16 copies 40; Sgd 20; Lars
// 28, since its norms take a pass of their own; Ema 12.
namespace dino {
inline namespace optimizer_cu {

using namespace cuda;

/// What one tensor is multiplied with.
struct alignas(16) TensorScalars {
  float clip;      ///< of its gradient
  float decay;     ///< AdamW: what is kept of its weights; Sgd and Lars: of weights in its gradient
  float rate;      ///< its learning rate; AdamW: / (1 − beta1^t)
  float factor;    ///< AdamW: 1 / √(1 − beta2^t), of the root of v; Sgd and Lars: of its gradient
};

/// The factor that clips a gradient of this norm. A NaN norm leaves the gradient as it is.
__device__ float clip_factor(double clip, float norm) {
  if (clip <= 0) return 1;
  const float factor = static_cast<float>(clip) / (norm + 1e-6f);
  return factor < 1 ? factor : 1;
}

/// to = from for N elements, unless they are one.
template <int N>
__device__ void copy_elements(const float* from, float* to, int64_t i) {
  if (from == to) return;
  float value[N];
  load(from + i, value);
  store_whole(to + i, value);
}

__global__ void __launch_bounds__(kSegmentThreads)
    prepare_adamw(AdamW op, SegmentTable table, const float* norms, const float* healthy, const StepScalars* step,
                  const float* steps, float* new_steps, TensorScalars* scalars) {
  const int t = static_cast<int>(blockIdx.x * kSegmentThreads + threadIdx.x);
  if (t >= table.tensors) return;
  const Tensor tensor = table.at(t);
  const float count = steps[t] + (tensor.active && *healthy != 0 ? 1.0f : 0.0f);
  new_steps[t] = count;
  const double rate = step->learning_rate * tensor.rate;
  scalars[t] = {clip_factor(op.clip, norms[t]),
                static_cast<float>(tensor.regularized ? 1 - rate * step->weight_decay : 1),
                static_cast<float>(rate / (1 - pow(op.beta1, static_cast<double>(count)))),
                static_cast<float>(1 / sqrt(1 - pow(op.beta2, static_cast<double>(count))))};
}

/// Reads weight, grad, m, v and teacher once, and writes what comes of them once.
struct AdamWUpdate {
  const float *weight, *grad, *m, *v, *teacher;
  float *new_weight, *new_m, *new_v, *new_teacher;
  bf16 *weight_copy, *teacher_copy;  // null where not wanted
  int64_t teacher_elements;
  float beta1, rest1, beta2, rest2, eps;
  const TensorScalars* scalars;
  const float* healthy;
  const StepScalars* step;
  bool is_healthy = false;
  float keep = 0, rest = 0;  // of the teacher's average
  TensorScalars now{};

  __device__ void start() {
    is_healthy = *healthy != 0;
    keep = static_cast<float>(step->teacher_momentum);
    rest = static_cast<float>(1 - step->teacher_momentum);
  }
  __device__ void enter(const Tensor& tensor) { now = scalars[tensor.index]; }
  __device__ bool splits(int64_t i) const { return i < teacher_elements && i + 4 > teacher_elements; }

  template <int N>
  __device__ void at(int64_t i, bool active) const {
    const bool has_teacher = i < teacher_elements;
    float w[N];
    if (active && is_healthy) {
      update<N>(i, w);
    } else {
      copy_elements<N>(m, new_m, i);
      copy_elements<N>(v, new_v, i);
      if (weight == new_weight && !has_teacher && !weight_copy) return;
      load(weight + i, w);
      if (weight != new_weight) store_whole(new_weight + i, w);
    }
    if (weight_copy) store_whole(weight_copy + i, w);
    if (has_teacher) follow<N>(i, w);
  }

 private:
  /// The decay comes first, as in PyTorch.
  template <int N>
  __device__ void update(int64_t i, float (&w)[N]) const {
    float g[N], m1[N], v1[N];
    load(weight + i, w);
    load(grad + i, g);
    load(m + i, m1);
    load(v + i, v1);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      g[e] *= now.clip;
      m1[e] = fmaf(beta1, m1[e], rest1 * g[e]);
      v1[e] = fmaf(beta2, v1[e], rest2 * (g[e] * g[e]));
      w[e] = fmaf(-now.rate, m1[e] / fmaf(sqrtf(v1[e]), now.factor, eps), w[e] * now.decay);
    }
    store_whole(new_weight + i, w);
    store_whole(new_m + i, m1);
    store_whole(new_v + i, v1);
  }

  template <int N>
  __device__ void follow(int64_t i, const float (&w)[N]) const {
    if (!is_healthy && teacher == new_teacher && !teacher_copy) return;
    float value[N];
    load(teacher + i, value);
    if (is_healthy) {
#pragma unroll
      for (int e = 0; e < N; ++e) value[e] = fmaf(keep, value[e], rest * w[e]);
    }
    if (is_healthy || teacher != new_teacher) store_whole(new_teacher + i, value);
    if (teacher_copy) store_whole(teacher_copy + i, value);
  }
};

__global__ void __launch_bounds__(kSegmentThreads) prepare_momentum(double clip, SegmentTable table, const float* norms,
                                                                    const StepScalars* step, TensorScalars* scalars) {
  const int t = static_cast<int>(blockIdx.x * kSegmentThreads + threadIdx.x);
  if (t >= table.tensors) return;
  const Tensor tensor = table.at(t);
  scalars[t] = {clip_factor(clip, norms[t]), tensor.regularized ? static_cast<float>(step->weight_decay) : 0.0f,
                static_cast<float>(step->learning_rate * tensor.rate), 1.0f};
}

/// Sgd, and Lars with its own factors.
struct MomentumUpdate {
  const float *weight, *grad, *buffer;
  float *new_weight, *new_buffer;
  float momentum;
  const TensorScalars* scalars;
  const float* healthy;
  bool is_healthy = false;
  TensorScalars now{};

  __device__ void start() { is_healthy = *healthy != 0; }
  __device__ void enter(const Tensor& tensor) { now = scalars[tensor.index]; }
  __device__ bool splits(int64_t) const { return false; }

  template <int N>
  __device__ void at(int64_t i, bool active) const {
    if (!active || !is_healthy) {
      copy_elements<N>(weight, new_weight, i);
      copy_elements<N>(buffer, new_buffer, i);
      return;
    }
    float w[N], g[N], b[N];
    load(weight + i, w);
    load(grad + i, g);
    load(buffer + i, b);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      b[e] = fmaf(momentum, b[e], now.factor * fmaf(now.clip, g[e], now.decay * w[e]));
      w[e] = fmaf(-now.rate, b[e], w[e]);
    }
    store_whole(new_weight + i, w);
    store_whole(new_buffer + i, b);
  }
};

/// Squares of weights, and of gradients with decay, of the tensors that Lars scales.
struct LarsSquares {
  static constexpr int kKinds = 2;
  const float *weight, *grad;
  const TensorScalars* scalars;
  TensorScalars now{};

  __device__ bool prepare(const Tensor& tensor) {
    now = scalars[tensor.index];
    return tensor.active && tensor.regularized;
  }
  template <int N>
  __device__ void add(int64_t i, float (&sums)[2]) const {
    float w[N], g[N];
    load(weight + i, w);
    load(grad + i, g);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float decayed = fmaf(now.clip, g[e], now.decay * w[e]);
      sums[0] = fmaf(w[e], w[e], sums[0]);
      sums[1] = fmaf(decayed, decayed, sums[1]);
    }
  }
};

__global__ void __launch_bounds__(kSegmentThreads)
    sum_lars_squares(LarsSquares squares, SegmentTable table, int64_t elements, bool packed, TensorPartials partials) {
  sum_chunk(squares, table, elements, packed, partials);
}

/// trust · ‖w‖ / ‖clip · g + decay · w‖ if both norms are positive, else 1.
__global__ void __launch_bounds__(kSegmentThreads)
    trust_ratios(double trust, SegmentTable table, TensorPartials partials, TensorScalars* scalars) {
  const Tensor tensor = table.at(static_cast<int>(blockIdx.x));
  if (!tensor.active || !tensor.regularized) return;
  const double weight_norm = sqrt(partials.total(tensor, 0)), grad_norm = sqrt(partials.total(tensor, 1));
  if (threadIdx.x == 0 && weight_norm > 0 && grad_norm > 0)
    scalars[tensor.index].factor = static_cast<float>(trust * weight_norm / grad_norm);
}

template <int N>
__device__ void ema_elements(const float* teacher, const float* student, bool is_healthy, double momentum,
                             float* updated, int64_t i) {
  if (!is_healthy) return copy_elements<N>(teacher, updated, i);
  float source[N], target[N] = {};
  load(student + i, source);
  if (momentum != 0) load(teacher + i, target);
  const float keep = static_cast<float>(momentum), rest = static_cast<float>(1 - momentum);
#pragma unroll
  for (int e = 0; e < N; ++e) target[e] = fmaf(keep, target[e], rest * source[e]);
  store_whole(updated + i, target);
}

__global__ void __launch_bounds__(kSegmentThreads)
    ema_kernel(const float* teacher, const float* student, const float* healthy, const StepScalars* step, bool copy,
               bool packed, int64_t elements, float* updated) {
  const int64_t chunk = int64_t{blockIdx.x} * kUpdateChunk;
  const bool is_healthy = *healthy != 0;
  const double momentum = copy ? 0 : step->teacher_momentum;
  for (int64_t i = chunk + threadIdx.x * 4; i < min(chunk + kUpdateChunk, elements); i += kSegmentThreads * 4) {
    if (packed && i + 4 <= elements) {
      ema_elements<4>(teacher, student, is_healthy, momentum, updated, i);
      continue;
    }
    for (int64_t e = i; e < min(i + 4, elements); ++e)
      ema_elements<1>(teacher, student, is_healthy, momentum, updated, e);
  }
}

template <class Update>
void run_update(CudaStream& stream, const char* name, const Update& update, const SegmentTable& table, int64_t elements,
                bool packed) {
  launch(stream, name, update_elements<Update>, {blocks_for(elements, kUpdateChunk), kSegmentThreads}, update, table,
         elements, packed);
}

size_t bytes_of_scalars(int tensors) {
  return (static_cast<size_t>(tensors) * sizeof(TensorScalars) + 255) / 256 * 256;
}

/// Views in the order of Sgd's and Lars' inputs and outputs.
void run_momentum(CudaStream& stream, const char* name, std::span<const View> in, std::span<const View> out,
                  double momentum, const TensorScalars* scalars, const SegmentTable& table) {
  const MomentumUpdate update{.weight = in[Sgd::weight].as<float>(),
                              .grad = in[Sgd::grad].as<float>(),
                              .buffer = in[Sgd::momentum_buffer].as<float>(),
                              .new_weight = out[Sgd::new_weight].as<float>(),
                              .new_buffer = out[Sgd::new_buffer].as<float>(),
                              .momentum = static_cast<float>(momentum),
                              .scalars = scalars,
                              .healthy = in[Sgd::healthy].as<float>()};
  const bool packed = aligned_to_packs(
      {in[Sgd::weight], in[Sgd::grad], in[Sgd::momentum_buffer], out[Sgd::new_weight], out[Sgd::new_buffer]});
  run_update(stream, name, update, table, in[Sgd::weight].count(), packed);
}

}  // namespace optimizer_cu

void AdamW::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const SegmentTable table(in[segments]);
  auto* scalars = reinterpret_cast<TensorScalars*>(stream.scratch(bytes_of_scalars(table.tensors)));
  launch(stream, "adamw: scalars", prepare_adamw, {blocks_for(table.tensors, kSegmentThreads), kSegmentThreads}, *this,
         table, in[norms].as<float>(), in[healthy].as<float>(), stream.step(), in[steps].as<float>(),
         out[new_steps].as<float>(), scalars);
  const AdamWUpdate update{.weight = in[weight].as<float>(),
                           .grad = in[grad].as<float>(),
                           .m = in[m].as<float>(),
                           .v = in[v].as<float>(),
                           .teacher = in[teacher].as<float>(),
                           .new_weight = out[new_weight].as<float>(),
                           .new_m = out[new_m].as<float>(),
                           .new_v = out[new_v].as<float>(),
                           .new_teacher = out[new_teacher].as<float>(),
                           .weight_copy = out[weight_copy].as<bf16>(),
                           .teacher_copy = out[teacher_copy].as<bf16>(),
                           .teacher_elements = in[teacher].count(),
                           .beta1 = static_cast<float>(beta1),
                           .rest1 = static_cast<float>(1 - beta1),
                           .beta2 = static_cast<float>(beta2),
                           .rest2 = static_cast<float>(1 - beta2),
                           .eps = static_cast<float>(eps),
                           .scalars = scalars,
                           .healthy = in[healthy].as<float>(),
                           .step = stream.step()};
  const bool packed = aligned_to_packs({in[weight], in[grad], in[m], in[v], in[teacher], out[new_weight], out[new_m],
                                        out[new_v], out[new_teacher], out[weight_copy], out[teacher_copy]});
  run_update(stream, "adamw", update, table, in[weight].count(), packed);
}

void Sgd::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const SegmentTable table(in[segments]);
  auto* scalars = reinterpret_cast<TensorScalars*>(stream.scratch(bytes_of_scalars(table.tensors)));
  launch(stream, "sgd: scalars", prepare_momentum, {blocks_for(table.tensors, kSegmentThreads), kSegmentThreads}, clip,
         table, in[norms].as<float>(), stream.step(), scalars);
  run_momentum(stream, "sgd", in, out, momentum, scalars, table);
}

void Lars::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const SegmentTable table(in[segments]);
  const int64_t elements = in[weight].count();
  const size_t scalars_bytes = bytes_of_scalars(table.tensors);
  TensorPartials partials =
      TensorPartials::in_scratch(stream, elements, table.tensors, LarsSquares::kKinds, scalars_bytes);
  auto* scalars = reinterpret_cast<TensorScalars*>(stream.scratch(scalars_bytes));
  launch(stream, "lars: scalars", prepare_momentum, {blocks_for(table.tensors, kSegmentThreads), kSegmentThreads}, clip,
         table, in[norms].as<float>(), stream.step(), scalars);
  launch(stream, "lars: norms", sum_lars_squares, {blocks_for(elements, kSumChunk), kSegmentThreads},
         LarsSquares{in[weight].as<float>(), in[grad].as<float>(), scalars}, table, elements,
         aligned_to_packs({in[weight], in[grad]}), partials);
  launch(stream, "lars: ratios", trust_ratios, {blocks_for(table.tensors, 1), kSegmentThreads}, trust, table, partials,
         scalars);
  run_momentum(stream, "lars", in, out, momentum, scalars, table);
}

void Ema::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  launch(stream, "ema", ema_kernel, {blocks_for(in[teacher].count(), kUpdateChunk), kSegmentThreads},
         in[teacher].as<float>(), in[student].as<float>(), in[healthy].as<float>(), stream.step(), copy,
         aligned_to_packs({in[teacher], in[student], out[updated]}), in[teacher].count(), out[updated].as<float>());
}

}  // namespace dino
