#pragma once

#include <cmath>

#include "kernels/attention.h"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

/// What the kernels of attention share, and the functions that start them. All work on the sequences of one
/// length.
namespace dino::cuda {

/// A matrix whose columns hold the heads one after the other.
template <class T>
struct HeadRows {
  T* data = nullptr;
  int64_t stride = 0;

  HeadRows() = default;
  explicit HeadRows(const View& view) : data(view.as<T>()), stride(view.row_stride) {}
  __device__ T* at(int64_t row, int col) const { return data + row * stride + col; }
};

/// The gradient of one input; no data if nobody wants it.
template <class T>
struct HeadGradient : HeadRows<T> {
  bool add = false;

  HeadGradient() = default;
  explicit HeadGradient(const Grad& grad)
      : HeadRows<T>(grad.wanted() ? grad.view : View()), add(grad.mode == GradMode::add) {}
  DINO_HOST_DEVICE bool wanted() const { return this->data != nullptr; }
};

/// Sequences of one length.
struct EqualSequences {
  int64_t count = 0;
  int64_t first_query = 0, first_key = 0;  ///< rows of q, and of k and v, of the first sequence
  int queries = 0, keys = 0;               ///< rows per sequence
  int heads = 0, head_dim = 0;
  float scale = 1;

  int64_t pieces() const { return count * heads; }
};

/// One head of one sequence.
struct HeadPlace {
  int64_t query, key;  ///< first rows
  int head;
  int col;  ///< first column

  __device__ HeadPlace(const EqualSequences& shape, unsigned piece)
      : query(shape.first_query + int64_t{piece / static_cast<unsigned>(shape.heads)} * shape.queries),
        key(shape.first_key + int64_t{piece / static_cast<unsigned>(shape.heads)} * shape.keys),
        head(static_cast<int>(piece % static_cast<unsigned>(shape.heads))),
        col(head * shape.head_dim) {}
};

template <class T>
struct AttentionForward {
  EqualSequences shape;
  HeadRows<const T> q, k, v;
  HeadRows<T> o;
  float* lse;  ///< [rows of q, heads]
};

template <class T>
struct AttentionBackward {
  EqualSequences shape;
  HeadRows<const T> q, k, v, o, grad_o;
  const float* lse;  ///< [rows of q, heads]
  HeadGradient<T> dq, dk, dv;
  float* delta;  ///< scratch [sequences, heads, queries]: Σ_col o · ∂o, which backward subtracts from ∂p
};

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

/// Any head dim up to 256, f32 or bf16.
template <class T>
void plain_attention_forward(CudaStream& stream, const AttentionForward<T>& task);
template <class T>
void plain_attention_backward(CudaStream& stream, const AttentionBackward<T>& task);

/// One query per sequence.
template <class T>
void cls_attention_forward(CudaStream& stream, const AttentionForward<T>& task, bool packs);
template <class T>
void cls_attention_backward(CudaStream& stream, const AttentionBackward<T>& task, bool packs);

/// Tensor cores; heads of kTensorHeadDim columns, rows that start on multiples of 16 bytes.
constexpr int kTensorHeadDim = 64;
void tensor_attention_forward(CudaStream& stream, const AttentionForward<bf16>& task);
void tensor_attention_backward(CudaStream& stream, const AttentionBackward<bf16>& task);

}  // namespace dino::cuda
