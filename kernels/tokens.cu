#include "kernels/tokens.h"

#include "kernels/last_block.cuh"
#include "kernels/row_packs.cuh"
#include "kernels/token_rows.cuh"

// Tokens: a thread has one pack of one position of a group and goes through up to 32 of its images, so that
// positions are read, and gradients of positions summed, once for all of these. The last block of a stretch
// of positions adds up the sums of all, in order. One launch is enough for all groups. SelectCls: a warp per
// row. PatchMean: a thread per pack of the result.
namespace dino {
inline namespace tokens_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

/// One group of images: `images` sequences of `length` tokens, `per_chunk` images of which a thread takes.
/// Blocks of the table of positions follow each other, and these of chunks.
struct GroupCut {
  int64_t images, length, dim, per_chunk;
  int64_t first_sequence, first_token, first_position;
  int64_t first_partial;  ///< row of the partial sums
  unsigned chunks, table_blocks, first_block;
  unsigned first_stretch;  ///< number of the stretch of positions that is the first block's

  __device__ bool contributes() const { return first_block != ~0u && chunks > 0; }

  /// What a block has to do in its group.
  struct Place {
    int64_t element, begin, end;  ///< of the table; first image and the one behind the last
    unsigned chunk, stretch;
  };
  template <int N>
  __device__ Place place() const {
    const unsigned block = blockIdx.x - first_block, chunk = block / table_blocks,
                   stretch = block % table_blocks;
    const int64_t begin = chunk * per_chunk;
    return {(int64_t{stretch} * kThreads + threadIdx.x) * N, begin, min(begin + per_chunk, images), chunk,
            stretch};
  }
};

struct GroupCuts : GroupBlocks<GroupCut> {
  int64_t partials = 0;  ///< elements
  unsigned stretches = 0;

  GroupCuts(const Sequences& sequences, int64_t dim, int pack) {
    int64_t sequence = 0, token = 0, position = 0;
    for (int g = 0; g < sequences.groups; ++g) {
      const Sequences::Group& from = sequences.group[static_cast<size_t>(g)];
      const int64_t per_chunk = std::clamp<int64_t>(from.count, 1, 32), length = from.length();
      const unsigned chunks = blocks_for(from.count, per_chunk),
                     table_blocks = blocks_for(length * dim / pack, kThreads);
      add(g,
          {from.count, length, dim, per_chunk, sequence, token, position, partials, chunks, table_blocks, 0,
           stretches},
          int64_t{chunks} * table_blocks);
      sequence += from.count;
      token += from.count * length;
      position += length;
      partials += chunks * length * dim;
      stretches += table_blocks;
    }
  }
};

template <class P, int N>
__global__ void __launch_bounds__(kThreads)
    build_tokens(GroupBlocks<GroupCut> groups, const P* __restrict__ patches, const float* __restrict__ cls,
                 const float* __restrict__ positions, float* __restrict__ x) {
  const GroupCut cut = groups.of(blockIdx.x);
  const auto [e, begin, end, chunk, stretch] = cut.template place<N>();
  const int64_t table = cut.length * cut.dim;
  if (e >= table) return;
  float position[N];
  load(positions + cut.first_position * cut.dim + e, position);
  x += cut.first_token * cut.dim + begin * table + e;
  if (e < cut.dim) {
    float value[N];
    load(cls + e, value);
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] += position[i];
    for (int64_t image = begin; image < end; ++image, x += table) store(x, value);
    return;
  }
  patches += (cut.first_token - cut.first_sequence) * cut.dim + begin * (table - cut.dim) + e - cut.dim;
#pragma unroll 4
  for (int64_t image = begin; image < end; ++image, x += table, patches += table - cut.dim) {
    float value[N];
    load(patches, value);
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] += position[i];
    store(x, value);
  }
}

/// Where gradients of positions and CLS go. The sums of every chunk of images, if there are several, come
/// first: [chunks, length, dim] of each group.
struct PositionSums {
  float* partial;            ///< null: nothing is wanted
  float *dpositions, *dcls;  ///< null: not wanted
  bool add_positions, add_cls;
  unsigned* counters;  ///< of the stretches of all groups, and then of those of the CLS token
};

/// Adds up the chunks of a stretch of positions if this block, whose sums are `sum`, is the last there, and
/// then the groups for CLS. Position 0 is that of CLS.
template <int N>
__device__ void add_chunks(const PositionSums& sums, const GroupBlocks<GroupCut>& groups, const GroupCut& cut,
                           const GroupCut::Place& place, unsigned stretches, float (&sum)[N]) {
  const int64_t table = cut.length * cut.dim, e = place.element;
  float* partial = sums.partial + cut.first_partial + e;
  if (cut.chunks > 1) {
    if (e < table) store(partial + place.chunk * table, sum);
    if (!is_last_block(sums.counters + cut.first_stretch + place.stretch, cut.chunks)) return;
#pragma unroll
    for (float& s : sum) s = 0;
#pragma unroll 4
    for (unsigned chunk = 0; chunk < (e < table ? cut.chunks : 0); ++chunk) {
      float value[N];
      load(partial + chunk * table, value);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += value[i];
    }
  }
  if (sums.dcls && e < cut.dim) store(partial, sum);
  if (sums.dpositions && e < table)
    store(sums.dpositions + cut.first_position * cut.dim + e, sum, sums.add_positions);
  if (!sums.dcls || place.stretch * int64_t{kThreads * N} >= cut.dim) return;
  unsigned present = 0;
#pragma unroll
  for (int g = 0; g < GroupCuts::kGroups; ++g) present += groups.group[g].contributes();
  if (!is_last_block(sums.counters + stretches + place.stretch, present) || e >= cut.dim) return;
  float total[N] = {};
#pragma unroll
  for (int g = 0; g < GroupCuts::kGroups; ++g) {
    if (!groups.group[g].contributes()) continue;
    float value[N];
    load(sums.partial + groups.group[g].first_partial + e, value);
#pragma unroll
    for (int i = 0; i < N; ++i) total[i] += value[i];
  }
  store(sums.dcls + e, total, sums.add_cls);
}

/// Gradients of patches, of positions and of CLS, if wanted.
template <class P, int N>
__global__ void __launch_bounds__(kThreads)
    build_tokens_backward(GroupBlocks<GroupCut> groups, const float* __restrict__ dx,
                          P* __restrict__ dpatches, bool add, PositionSums sums, unsigned stretches) {
  const GroupCut cut = groups.of(blockIdx.x);
  const GroupCut::Place place = cut.template place<N>();
  const int64_t table = cut.length * cut.dim, e = place.element;
  float sum[N] = {};
  if (e < table) {
    dx += cut.first_token * cut.dim + place.begin * table +
          e;  // pointers advance: nvcc splits packs stored through an index
    if (e < cut.dim) dpatches = nullptr;
    if (dpatches)
      dpatches +=
          (cut.first_token - cut.first_sequence) * cut.dim + place.begin * (table - cut.dim) + e - cut.dim;
#pragma unroll 4
    for (int64_t image = place.begin; image < place.end; ++image, dx += table) {
      float value[N];
      load(dx, value);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += value[i];
      if (!dpatches) continue;
      store(dpatches, value, add);
      dpatches += table - cut.dim;
    }
  }
  if (sums.partial) add_chunks(sums, groups, cut, place, stretches, sum);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    take_cls(TokenRows rows, const T* x, T* y, int64_t sequences, int64_t dim) {
  const int64_t sequence = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (sequence >= sequences) return;
  const T* source = x + rows.span(sequence).cls_row * dim;
  for (int64_t col = threadIdx.x % 32 * N; col < dim; col += 32 * N) {
    float value[N];
    load(source + col, value);
    store(y + sequence * dim + col, value);
  }
}

/// The gradient of all tokens: that of the CLS token comes from `dy`, others have none.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    take_cls_backward(TokenRows rows, const T* dy, T* dx, bool add, int64_t tokens, int64_t dim) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= tokens) return;
  const TokenRows::Place place = rows.place(row);
  const bool is_cls = place.token == 0;
  if (add && !is_cls) return;
  for (int64_t col = threadIdx.x % 32 * N; col < dim; col += 32 * N) {
    float value[N] = {};
    if (is_cls) load(dy + int64_t{place.sequence} * dim + col, value);
    store(dx + row * dim + col, value, add);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    average_patches(TokenRows rows, const T* x, T* y, int64_t sequences, int64_t dim) {
  const int64_t packs = dim / N, item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= sequences * packs) return;
  const int64_t sequence = item / packs, col = item % packs * N;
  const TokenRows::Span span = rows.span(sequence);
  const T* source = x + span.cls_row * dim + col;
  float sum[N] = {};
#pragma unroll 4
  for (uint32_t token = 1; token < span.tokens; ++token) {
    float value[N];
    load(source + token * dim, value);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += value[i];
  }
#pragma unroll
  for (float& s : sum) s *= 1.0f / static_cast<float>(span.tokens - 1);
  store(y + sequence * dim + col, sum);
}

/// Calls f(zero of the views' type, elements of a pack of 16 bytes or 1).
template <class F>
void with_packs(const View& a, const View& b, const F& f) {
  with_dtype(a.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kWidest = 16 / sizeof(T);
    if (fits_packs<T, kWidest>(a) && fits_packs<T, kWidest>(b))
      f(zero, std::integral_constant<int, kWidest>{});
    else
      f(zero, std::integral_constant<int, 1>{});
  });
}

}  // namespace tokens_cu

void Tokens::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t dim = out[x].cols();
  with_dtype(in[patches].dtype, [&](auto zero) {
    using P = decltype(zero);
    const bool packed = fits_packs<P, kPack>(in[patches]) && fits_packs<float, kPack>(in[cls]) &&
                        fits_packs<float, kPack>(in[positions]) && fits_packs<float, kPack>(out[x]);
    const GroupCuts groups(sequences, dim, packed ? kPack : 1);
    launch(stream, "tokens", packed ? build_tokens<P, kPack> : build_tokens<P, 1>, {groups.blocks, kThreads},
           groups, in[patches].as<P>(), in[cls].as<float>(), in[positions].as<float>(), out[x].as<float>());
  });
}

void Tokens::backward(CudaStream& stream, std::span<const View> in, std::span<const View>,
                      std::span<const View> dout, std::span<const Grad> din) const {
  const View& dx = dout[x];
  const Grad &dpatches = din[patches], &dcls = din[cls], &dpositions = din[positions];
  const bool wants_sums = dcls.wanted() || dpositions.wanted();
  if (!wants_sums && !dpatches.wanted()) return;
  with_dtype(in[patches].dtype, [&](auto zero) {
    using P = decltype(zero);
    const bool packed = fits_packs<P, kPack>(dpatches.view) && fits_packs<float, kPack>(dx) &&
                        fits_packs<float, kPack>(dcls.view) && fits_packs<float, kPack>(dpositions.view);
    const int pack = packed ? kPack : 1;
    const GroupCuts groups(sequences, dx.cols(), pack);
    PositionSums sums{};
    if (wants_sums)
      sums = {reinterpret_cast<float*>(stream.scratch(static_cast<size_t>(groups.partials) * sizeof(float))),
              dpositions.wanted() ? dpositions.view.as<float>() : nullptr,
              dcls.wanted() ? dcls.view.as<float>() : nullptr,
              dpositions.mode == GradMode::add,
              dcls.mode == GradMode::add,
              tickets(stream, groups.stretches + blocks_for(dx.cols() / pack, kThreads))};
    launch(stream, "tokens backward", packed ? build_tokens_backward<P, kPack> : build_tokens_backward<P, 1>,
           {groups.blocks, kThreads}, groups, dx.as<float>(),
           dpatches.wanted() ? dpatches.view.as<P>() : nullptr, dpatches.mode == GradMode::add, sums,
           groups.stretches);
  });
}

void SelectCls::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_packs(in[x], out[y], [&](auto zero, auto pack) {
    using T = decltype(zero);
    launch(stream, "select_cls", take_cls<T, pack>, {blocks_for(out[y].rows(), kWarps), kThreads},
           TokenRows(sequences), in[x].as<T>(), out[y].as<T>(), out[y].rows(), out[y].cols());
  });
}

void SelectCls::backward(CudaStream& stream, std::span<const View>, std::span<const View>,
                         std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& dx = din[x];
  if (!dx.wanted()) return;
  with_packs(dout[y], dx.view, [&](auto zero, auto pack) {
    using T = decltype(zero);
    launch(stream, "select_cls backward", take_cls_backward<T, pack>,
           {blocks_for(dx.view.rows(), kWarps), kThreads}, TokenRows(sequences), dout[y].as<T>(),
           dx.view.as<T>(), dx.mode == GradMode::add, dx.view.rows(), dx.view.cols());
  });
}

void PatchMean::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_packs(in[x], out[y], [&](auto zero, auto pack) {
    using T = decltype(zero);
    launch(stream, "patch_mean", average_patches<T, pack>,
           {blocks_for(out[y].count() / pack, kThreads), kThreads}, TokenRows(sequences), in[x].as<T>(),
           out[y].as<T>(), out[y].rows(), out[y].cols());
  });
}

}  // namespace dino
