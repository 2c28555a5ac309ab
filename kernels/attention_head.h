#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/bfloat16.h"
#include "kernels/op.h"

/// Softmax attention of one head of one sequence on one thread, for values in f32 or bf16 with arithmetic in f32: what
/// `Attention` is made of on the CPU. A head's rows are slices of wider matrices.
namespace dino::attention_head {

template <class T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;  ///< elements between the starts of two rows
  T* row(int64_t index) const { return data + index * stride; }
};

struct Size {
  int64_t queries, keys, dim;
};

template <class T>
struct Forward {
  Size size;
  float scale;
  Rows<const T> q;     ///< [queries, dim]
  Rows<const T> k, v;  ///< [keys, dim]
  Rows<T> o;           ///< [queries, dim]
  Rows<float> lse;     ///< [queries, 1]
};

template <class T>
struct Gradient {
  Rows<T> rows;
  GradMode mode = GradMode::skip;
  bool wanted() const { return mode != GradMode::skip; }
};

template <class T>
struct Backward {
  Size size;
  float scale;
  Rows<const T> q, k, v, o, d_o;
  Rows<const float> lse;
  Gradient<T> dq, dk, dv;
};

/// Bytes of 64-byte aligned scratch memory that `forward` and `backward` need.
size_t forward_scratch_bytes(const Size& size);
size_t backward_scratch_bytes(const Size& size);

/// o = softmax(q kᵀ · scale) v and the logarithms of the softmax's denominators.
void forward(const Forward<float>& head, std::byte* scratch);
void forward(const Forward<BFloat16>& head, std::byte* scratch);

/// Gradients; those in bf16 are rounded once, also where they are added to.
void backward(const Backward<float>& head, std::byte* scratch);
void backward(const Backward<BFloat16>& head, std::byte* scratch);

}  // namespace dino::attention_head
