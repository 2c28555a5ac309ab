#include "kernels/attention.h"

#include "kernels/attention_kernels.cuh"

// Which kernels run: tensor cores for bf16 with heads of 64 whose rows can be moved in 16 bytes,
// matrix-vector products for single queries, plain ones for everything else. One or two launches per group of
// equal sequences.
namespace dino {
inline namespace attention_cu {

using namespace cuda;

constexpr int64_t kLargestHeadDim = 256;

/// The sequences of group `g`, without their places in the pack.
EqualSequences group_shape(const Attention& op, int g, int64_t dim) {
  const Sequences::Group& group = op.sequences.group[static_cast<size_t>(g)];
  EqualSequences shape;
  shape.count = group.count;
  shape.keys = static_cast<int>(group.length());
  shape.queries = op.cls_only ? 1 : shape.keys;
  shape.heads = static_cast<int>(op.heads);
  shape.head_dim = static_cast<int>(dim / op.heads);
  shape.scale = static_cast<float>(op.scale);
  return shape;
}

/// Calls body(shape) for every group of the pack.
template <class F>
void for_groups(const Attention& op, const View& q, const F& body) {
  check(q.cols() / op.heads <= kLargestHeadDim, "attention: CUDA takes heads of at most ", kLargestHeadDim,
        " columns; got ", q.cols() / op.heads);
  int64_t query = 0, key = 0;
  for (int g = 0; g < op.sequences.groups; ++g) {
    EqualSequences shape = group_shape(op, g, q.cols());
    shape.first_query = query;
    shape.first_key = key;
    query += shape.count * shape.queries;
    key += shape.count * shape.keys;
    body(shape);
  }
}

/// Whether the rows of every head of all views can be moved in 16 bytes.
template <class T>
bool fits_head_packs(int64_t head_dim, std::initializer_list<View> views) {
  constexpr int kPack = 16 / sizeof(T);
  for (const View& view : views)
    if (head_dim % kPack != 0 || !fits_packs<T, kPack>(view)) return false;
  return true;
}

template <class T>
constexpr bool fits_tensor_cores(int64_t head_dim, bool packs) {
  return sizeof(T) == 2 && head_dim == kTensorHeadDim && packs;
}

/// The largest scratch that the groups need for `AttentionBackward::delta`, in floats.
int64_t delta_count(const Attention& op) {
  int64_t largest = 0;
  for (int g = 0; g < op.sequences.groups; ++g) {
    const Sequences::Group& group = op.sequences.group[static_cast<size_t>(g)];
    largest = std::max(largest, group.count * op.heads * group.length());
  }
  return largest;
}

void set_zero(CudaStream& stream, const Grad& grad) {
  if (grad.mode != GradMode::write) return;
  const size_t element = bytes_of(grad.view.dtype);
  cuda::check(cudaMemset2DAsync(grad.view.data, static_cast<size_t>(grad.view.row_stride) * element, 0,
                                static_cast<size_t>(grad.view.cols()) * element,
                                static_cast<size_t>(grad.view.rows()), stream.handle()),
              "attention backward");
}

}  // namespace attention_cu

void Attention::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_dtype(in[q].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_groups(*this, in[q], [&](const EqualSequences& shape) {
      const bool packs = fits_head_packs<T>(shape.head_dim, {in[q], in[k], in[v], out[o]});
      const AttentionForward<T> task{shape,
                                     HeadRows<const T>(in[q]),
                                     HeadRows<const T>(in[k]),
                                     HeadRows<const T>(in[v]),
                                     HeadRows<T>(out[o]),
                                     out[lse].as<float>()};
      if (cls_only) return cls_attention_forward(stream, task, packs);
      if constexpr (sizeof(T) == 2)
        if (fits_tensor_cores<T>(shape.head_dim, packs)) return tensor_attention_forward(stream, task);
      plain_attention_forward(stream, task);
    });
  });
}

void Attention::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  if (!dout[o].defined()) {
    for (const Grad& grad : din) set_zero(stream, grad);
    return;
  }
  float* delta =
      cls_only
          ? nullptr
          : reinterpret_cast<float*>(stream.scratch(static_cast<size_t>(delta_count(*this)) * sizeof(float)));
  with_dtype(in[q].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_groups(*this, in[q], [&](const EqualSequences& shape) {
      const bool packs = fits_head_packs<T>(
          shape.head_dim, {in[q], in[k], in[v], out[o], dout[o], din[q].view, din[k].view, din[v].view});
      const AttentionBackward<T> task{shape,
                                      HeadRows<const T>(in[q]),
                                      HeadRows<const T>(in[k]),
                                      HeadRows<const T>(in[v]),
                                      HeadRows<const T>(out[o]),
                                      HeadRows<const T>(dout[o]),
                                      out[lse].as<float>(),
                                      HeadGradient<T>(din[q]),
                                      HeadGradient<T>(din[k]),
                                      HeadGradient<T>(din[v]),
                                      delta};
      if (cls_only) return cls_attention_backward(stream, task, packs);
      if constexpr (sizeof(T) == 2)
        if (fits_tensor_cores<T>(shape.head_dim, packs)) return tensor_attention_backward(stream, task);
      plain_attention_backward(stream, task);
    });
  });
}

}  // namespace dino
