#pragma once

#include "kernels/block_sum_f64.cuh"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/optimizer.h"
#include "kernels/store_whole.cuh"

/// How kernels find their way in a flat buffer of many tensors. The table of the tensors lies in device memory, so
/// blocks take chunks of the buffer, whatever lies in them: the shape of a launch depends on the size of the buffer
/// alone.
namespace dino::cuda {

/// A row of the segment table.
struct Tensor {
  int index;
  int64_t begin, end;
  int64_t next;  ///< where the next tensor begins
  bool regularized, active;
  double rate;  ///< what the learning rate is multiplied with
};

/// The segment table of one op.
struct SegmentTable {
  static constexpr int64_t kNowhere = int64_t{1} << 62;
  const int64_t* rows;
  int tensors;

  explicit SegmentTable(const View& view) : rows(view.as<int64_t>()), tensors(static_cast<int>(view.rows())) {}

  __device__ int64_t begin(int tensor) const { return rows[tensor * kSegmentColumns + kBegin]; }
  __device__ Tensor at(int tensor) const {
    const int64_t* row = rows + tensor * kSegmentColumns;
    return {.index = tensor,
            .begin = row[kBegin],
            .end = row[kBegin] + row[kCount],
            .next = tensor + 1 < tensors ? begin(tensor + 1) : kNowhere,
            .regularized = row[kRegularized] != 0,
            .active = row[kActive] != 0,
            .rate = __longlong_as_double(row[kRate])};
  }
  /// The last tensor that begins at or before `element`, or else the first: the one that holds the element, if any
  /// does.
  __device__ int find(int64_t element) const {
    int low = 0, high = tensors - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (begin(middle) <= element)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }
  /// The tensor that `find` finds, or an empty one before all others of a table without rows.
  __device__ Tensor holder(int64_t element) const {
    return tensors > 0
               ? at(find(element))
               : Tensor{.index = -1, .begin = 0, .end = 0, .next = kNowhere, .regularized = false, .active = false, .rate = 0};
  }
  /// Walks on from `tensor`, which must not lie behind, to the one that `find(element)` finds. Whether that is another.
  __device__ bool advance(Tensor& tensor, int64_t element) const {
    bool moved = false;
    for (; tensor.next <= element; moved = true) tensor = at(tensor.index + 1);
    return moved;
  }
};

/// Elements that a block of kernels below takes.
constexpr int kSegmentThreads = 256;
constexpr int kUpdateChunk = kSegmentThreads * 4 * 8;
constexpr int kSumChunk = kSegmentThreads * 4 * 16;

/// Runs `update.at<N>(first element, whether they are updated)` over all elements of a flat buffer, in packs of N = 4
/// where these lie in one tensor, else N = 1. Elements of no tensor, or of one that is not active, are not updated.
/// `update.start()` comes first, `update.enter(tensor)` before elements of a tensor, and `update.splits(i)` says that
/// the four elements from i must not be a pack.
template <class Update>
__global__ void __launch_bounds__(kSegmentThreads)
    update_elements(Update update, SegmentTable table, int64_t elements, bool packed) {
  __shared__ Tensor first;
  const int64_t chunk = int64_t{blockIdx.x} * kUpdateChunk;
  if (threadIdx.x == 0) first = table.holder(chunk);
  __syncthreads();
  Tensor tensor = first;
  update.start();
  if (tensor.index >= 0) update.enter(tensor);
#pragma unroll 1
  for (int64_t i = chunk + threadIdx.x * 4; i < min(chunk + kUpdateChunk, elements); i += kSegmentThreads * 4) {
    if (table.advance(tensor, i)) update.enter(tensor);
    if (packed && i >= tensor.begin && i + 4 <= tensor.end && !update.splits(i)) {
      update.template at<4>(i, tensor.active);
      continue;
    }
#pragma unroll 1
    for (int64_t e = i; e < min(i + 4, elements); ++e) {
      if (table.advance(tensor, e)) update.enter(tensor);
      update.template at<1>(e, tensor.active && e >= tensor.begin && e < tensor.end);
    }
  }
}

/// Whether all flat buffers begin where packs of 4 floats may.
inline bool aligned_to_packs(std::initializer_list<View> views) {
  for (const View& view : views)
    if (reinterpret_cast<uintptr_t>(view.data) % 16 != 0) return false;
  return true;
}

/// Where sums over parts of tensors lie until they are added up: that of tensor t in chunk c at c + t. No two meet
/// there, since whoever goes through a flat buffer leaves either a chunk or a tensor behind with each step.
struct TensorPartials {
  double* sums;
  int64_t stride;  ///< between the sums of one kind and the next

  static int64_t chunks(int64_t elements) { return (elements + kSumChunk - 1) / kSumChunk; }
  /// Room for `kinds` sums behind `before` bytes of scratch memory.
  static TensorPartials in_scratch(CudaStream& stream, int64_t elements, int64_t tensors, int kinds,
                                   size_t before = 0) {
    const int64_t stride = chunks(elements) + tensors;
    std::byte* memory = stream.scratch(before + static_cast<size_t>(kinds * stride) * sizeof(double));
    return {reinterpret_cast<double*>(memory + before), stride};
  }

  /// The sum over every `step`th part of a tensor from part `first` on.
  __device__ double sum(const Tensor& tensor, int kind, int first, int step) const {
    double sum = 0;
    if (tensor.end > tensor.begin)
      for (int64_t chunk = tensor.begin / kSumChunk + first; chunk <= (tensor.end - 1) / kSumChunk; chunk += step)
        sum += sums[kind * stride + chunk + tensor.index];
    return sum;
  }
  /// The sum over all of a tensor, by a whole block, in every thread.
  __device__ double total(const Tensor& tensor, int kind) const {
    return block_sum_f64<kSegmentThreads>(sum(tensor, kind, static_cast<int>(threadIdx.x), kSegmentThreads));
  }
};

/// A block's sums over the part of one tensor that lies between two elements.
template <class Term>
__device__ void sum_tensor(Term& term, const Tensor& tensor, int64_t chunk_begin, int64_t chunk_end, bool packed,
                           const TensorPartials& partials) {
  const int64_t from = max(tensor.begin, chunk_begin), to = min(tensor.end, chunk_end);
  if (from >= to || !term.prepare(tensor)) return;
  float sums[Term::kKinds] = {};
  const int64_t packs_from = packed ? min((from + 3) / 4 * 4, to) : to;
  const int64_t packs_to = packed ? max(packs_from, to / 4 * 4) : to;
  for (int64_t i = from + threadIdx.x; i < packs_from; i += kSegmentThreads) term.template add<1>(i, sums);
#pragma unroll 4
  for (int64_t i = packs_from + threadIdx.x * 4; i < packs_to; i += kSegmentThreads * 4) term.template add<4>(i, sums);
  for (int64_t i = packs_to + threadIdx.x; i < to; i += kSegmentThreads) term.template add<1>(i, sums);
#pragma unroll
  for (int kind = 0; kind < Term::kKinds; ++kind) {
    const double sum = block_sum_f64<kSegmentThreads>(sums[kind]);
    if (threadIdx.x == 0) partials.sums[kind * partials.stride + blockIdx.x + tensor.index] = sum;
  }
}

/// Sums over the parts of all tensors that a chunk of a flat buffer holds. `term.prepare(tensor)` says whether a tensor
/// is wanted, and `term.add<N>(element, sums)` adds N elements to `Term::kKinds` sums. A thread adds up 64 elements in
/// f32, and everything after that is f64.
template <class Term>
__device__ void sum_chunk(Term term, const SegmentTable& table, int64_t elements, bool packed, const TensorPartials& partials) {
  __shared__ Tensor shared;
  const int64_t chunk_begin = int64_t{blockIdx.x} * kSumChunk, chunk_end = min(chunk_begin + kSumChunk, elements);
  if (threadIdx.x == 0) shared = table.holder(chunk_begin);
  while (true) {
    __syncthreads();
    const Tensor tensor = shared;
    if (tensor.begin >= chunk_end) return;
    __syncthreads();
    if (threadIdx.x == 0 && tensor.next < chunk_end) shared = table.at(tensor.index + 1);
    sum_tensor(term, tensor, chunk_begin, chunk_end, packed, partials);
    if (tensor.next >= chunk_end) return;
  }
}

}  // namespace dino::cuda
