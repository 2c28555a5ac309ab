#include "kernels/attention.h"

#include "kernels/attention_kernels.cuh"

// Which kernels run: tensor cores for bf16 with heads of 64 whose rows can be moved in 16 bytes,
// matrix-vector products for single queries, plain ones for everything else. One or two launches for all
// sequences, unless some of them are too long for what the others take.
namespace dino {
inline namespace attention_cu {

using namespace cuda;

constexpr int64_t kLargestHeadDim = 256;

/// Where the sequences of the pack lie.
SequenceGroups groups_of(const Attention& op) {
  SequenceGroups result;
  int64_t query = 0, key = 0;
  for (int g = 0; g < op.sequences.groups; ++g) {
    const Sequences::Group& group = op.sequences.group[static_cast<size_t>(g)];
    const int keys = static_cast<int>(group.length()), queries = op.cls_only ? 1 : keys;
    result.group[result.groups++] = {group.count, query, key, queries, keys};
    query += group.count * queries;
    key += group.count * keys;
  }
  return result;
}

Heads heads_of(const Attention& op, const View& q) {
  const int64_t head_dim = q.cols() / op.heads;
  check(head_dim <= kLargestHeadDim, "attention: CUDA takes heads of at most ", kLargestHeadDim, " columns; got ", head_dim);
  return {static_cast<int>(op.heads), static_cast<int>(head_dim), static_cast<float>(op.scale)};
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
    const AttentionForward<T> task{groups_of(*this),          heads_of(*this, in[q]),    HeadRows<const T>(in[q]),
                                   HeadRows<const T>(in[k]), HeadRows<const T>(in[v]), HeadRows<T>(out[o]),
                                   out[lse].as<float>()};
    const bool packs = fits_head_packs<T>(task.heads.head_dim, {in[q], in[k], in[v], out[o]});
    if (cls_only) return cls_attention_forward(stream, task, packs);
    if constexpr (sizeof(T) == 2)
      if (fits_tensor_cores<T>(task.heads.head_dim, packs)) return tensor_attention_forward(stream, task);
    plain_attention_forward(stream, task);
  });
}

void Attention::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  if (!dout[o].defined()) {
    for (const Grad& grad : din) set_zero(stream, grad);
    return;
  }
  const auto delta_count = static_cast<size_t>(in[q].rows() * heads);
  float* delta = cls_only ? nullptr : reinterpret_cast<float*>(stream.scratch(delta_count * sizeof(float)));
  with_dtype(in[q].dtype, [&](auto zero) {
    using T = decltype(zero);
    const AttentionBackward<T> task{groups_of(*this),
                                    heads_of(*this, in[q]),
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
    const bool packs = fits_head_packs<T>(
        task.heads.head_dim, {in[q], in[k], in[v], out[o], dout[o], din[q].view, din[k].view, din[v].view});
    if (cls_only) return cls_attention_backward(stream, task, packs);
    if constexpr (sizeof(T) == 2)
      if (fits_tensor_cores<T>(task.heads.head_dim, packs)) return tensor_attention_backward(stream, task);
    plain_attention_backward(stream, task);
  });
}

}  // namespace dino
