#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

/// What the kernels of attention share, and the functions that start them. A launch works on all sequences,
/// whatever their length: a block finds the group that its sequences belong to.
namespace dino::cuda {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

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
};

/// The sequences of one launch, group by group, the longest usually first: its blocks are dealt out in that
/// order.
struct SequenceGroups {
  static constexpr int kMost = Sequences::kMaxGroups;

  EqualSequences group[kMost];
  unsigned first_block[kMost];  ///< of each group; no block has the number of absent ones
  int groups = 0;

  /// The groups that `chosen` chooses.
  template <class Chosen>
  SequenceGroups where(const Chosen& chosen) const {
    SequenceGroups result;
    for (int g = 0; g < groups; ++g)
      if (chosen(group[g])) result.group[result.groups++] = group[g];
    return result;
  }

  /// Gives each group as many blocks as `blocks_of` says. Returns their sum.
  template <class BlocksOf>
  unsigned deal_blocks(const BlocksOf& blocks_of) {
    int64_t blocks = 0;
    for (int g = 0; g < kMost; ++g) {
      first_block[g] = g < groups ? static_cast<unsigned>(blocks) : UINT32_MAX;
      if (g < groups) blocks = blocks_for(blocks + blocks_of(group[g]), 1);
    }
    return static_cast<unsigned>(blocks);
  }

  int longest() const {
    int keys = 0;
    for (int g = 0; g < groups; ++g) keys = std::max(keys, group[g].keys);
    return keys;
  }
};

/// The group that a block works on, and the block's number in it.
struct BlockGroup : EqualSequences {
  unsigned block;

  __device__ explicit BlockGroup(const SequenceGroups& all) : EqualSequences(all.group[0]), block(blockIdx.x) {
#pragma unroll
    for (int g = 1; g < SequenceGroups::kMost; ++g) {
      if (blockIdx.x < all.first_block[g]) continue;
      static_cast<EqualSequences&>(*this) = all.group[g];
      block = blockIdx.x - all.first_block[g];
    }
  }
};

/// How the columns of the matrices divide, and what scores are multiplied by.
struct Heads {
  int heads = 0, head_dim = 0;
  float scale = 1;
  float factor = kLog2E * scale;  ///< for scores in powers of 2 instead of e
};

/// One head of one sequence.
struct HeadPlace {
  int64_t query, key;  ///< first rows
  int queries, keys;   ///< numbers of rows
  int head;
  int col;  ///< first column

  HeadPlace() = default;
  __device__ HeadPlace(const EqualSequences& sequences, const Heads& heads, unsigned piece)
      : query(sequences.first_query + int64_t{piece / static_cast<unsigned>(heads.heads)} * sequences.queries),
        key(sequences.first_key + int64_t{piece / static_cast<unsigned>(heads.heads)} * sequences.keys),
        queries(sequences.queries),
        keys(sequences.keys),
        head(static_cast<int>(piece % static_cast<unsigned>(heads.heads))),
        col(head * heads.head_dim) {}
};

template <class T>
struct AttentionForward {
  SequenceGroups sequences;
  Heads heads;
  HeadRows<const T> q, k, v;
  HeadRows<T> o;
  float* lse;  ///< [rows of q, heads]
};

template <class T>
struct AttentionBackward {
  SequenceGroups sequences;
  Heads heads;
  HeadRows<const T> q, k, v, o, grad_o;
  const float* lse;  ///< [rows of q, heads]
  HeadGradient<T> dq, dk, dv;
  float* delta;  ///< scratch [sequences, heads, queries]: Σ_col o · ∂o, which backward subtracts from ∂p

  /// The rows of `delta` of one head of one sequence.
  __device__ float* delta_of(const HeadPlace& place) const {
    return delta + place.query * heads.heads + int64_t{place.head} * place.queries;
  }
};

/// `task`, an AttentionForward or AttentionBackward, for the groups that `chosen` chooses.
template <class Task, class Chosen>
Task task_where(Task task, const Chosen& chosen) {
  task.sequences = task.sequences.where(chosen);
  return task;
}

/// Any head dim up to 256, f32 or bf16.
template <class T>
void plain_attention_forward(CudaStream& stream, AttentionForward<T> task);
template <class T>
void plain_attention_backward(CudaStream& stream, AttentionBackward<T> task);

/// One query per sequence.
template <class T>
void cls_attention_forward(CudaStream& stream, AttentionForward<T> task, bool packs);
template <class T>
void cls_attention_backward(CudaStream& stream, AttentionBackward<T> task, bool packs);

/// Tensor cores; heads of kTensorHeadDim columns, rows that start on multiples of 16 bytes.
constexpr int kTensorHeadDim = 64;
void tensor_attention_forward(CudaStream& stream, const AttentionForward<bf16>& task);
void tensor_attention_backward(CudaStream& stream, const AttentionBackward<bf16>& task);

}  // namespace dino::cuda
