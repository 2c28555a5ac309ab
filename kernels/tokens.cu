#include "kernels/tokens.h"

#include "kernels/row_packs.cuh"
#include "kernels/token_rows.cuh"

// Tokens: a thread has one pack of one position of a group and goes through up to 64 of its images, so that
// positions are read, and gradients of positions summed, once for all of these. Their sums are added in order
// by a second kernel. SelectCls: a warp per row. PatchMean: a thread per pack of the result.
namespace dino {
inline namespace tokens_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

/// One group of images: `images` sequences of `length` tokens, `per_chunk` images of which a thread takes.
struct GroupCut {
  int64_t images, length, dim, per_chunk;
  unsigned chunks;

  GroupCut(const Sequences::Group& group, int64_t dim)
      : images(group.count),
        length(group.length()),
        dim(dim),
        per_chunk(std::clamp<int64_t>((group.count + 7) / 8, 1, 64)),
        chunks(blocks_for(group.count, per_chunk)) {
    dino::check(chunks < 65536, "tokens: too many images");
  }
  int64_t table() const { return length * dim; }  ///< elements of the table of positions
  Grid grid(int pack) const { return {{blocks_for(table() / pack, kThreads), chunks}, kThreads}; }
};

/// Calls f(cut, first sequence, first token, first position) for every group.
template <class F>
void for_groups(const Sequences& sequences, int64_t dim, const F& f) {
  int64_t sequence = 0, token = 0, position = 0;
  for (int g = 0; g < sequences.groups; ++g) {
    const Sequences::Group& group = sequences.group[static_cast<size_t>(g)];
    f(GroupCut(group, dim), sequence, token, position);
    sequence += group.count;
    token += group.count * group.length();
    position += group.length();
  }
}

template <class P, int N>
__global__ void __launch_bounds__(kThreads)
    build_tokens(GroupCut cut, const P* __restrict__ patches, const float* __restrict__ cls,
                 const float* __restrict__ positions, float* __restrict__ x) {
  const int64_t table = cut.length * cut.dim, e = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (e >= table) return;
  const int64_t begin = blockIdx.y * cut.per_chunk, end = min(begin + cut.per_chunk, cut.images);
  float position[N];
  load(positions + e, position);
  x += begin * table + e;
  if (e < cut.dim) {
    float value[N];
    load(cls + e, value);
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] += position[i];
    for (int64_t image = begin; image < end; ++image, x += table) store(x, value);
    return;
  }
  patches += begin * (table - cut.dim) + e - cut.dim;
#pragma unroll 4
  for (int64_t image = begin; image < end; ++image, x += table, patches += table - cut.dim) {
    float value[N];
    load(patches, value);
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] += position[i];
    store(x, value);
  }
}

/// Gradients of patches, and the sums over the images of a chunk, which are gradients of positions and cls:
/// [chunks, length, dim]. Either may be null.
template <class P, int N>
__global__ void __launch_bounds__(kThreads)
    build_tokens_backward(GroupCut cut, const float* __restrict__ dx, P* __restrict__ dpatches, bool add,
                          float* __restrict__ partial) {
  const int64_t table = cut.length * cut.dim, e = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (e >= table) return;
  const int64_t begin = blockIdx.y * cut.per_chunk, end = min(begin + cut.per_chunk, cut.images);
  dx += begin * table + e;  // pointers advance, because nvcc splits packs that are stored through an index
  if (e < cut.dim) dpatches = nullptr;
  if (dpatches) dpatches += begin * (table - cut.dim) + e - cut.dim;
  if (partial) partial += blockIdx.y * table + e;
  float sum[N] = {};
#pragma unroll 4
  for (int64_t image = begin; image < end; ++image, dx += table) {
    float value[N];
    load(dx, value);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += value[i];
    if (!dpatches) continue;
    store(dpatches, value, add);
    dpatches += table - cut.dim;
  }
  if (partial) store(partial, sum);
}

/// Adds up the chunks of one group for its positions; those of position 0 are also part of the gradient of
/// cls.
__global__ void __launch_bounds__(kThreads)
    add_chunks(const float* partial, unsigned chunks, int64_t table, int64_t dim, float* dpositions,
               bool add_positions, float* dcls, bool add_cls) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e >= table) return;
  float sum = 0;
#pragma unroll 8
  for (unsigned chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * table + e];
  if (dpositions) dpositions[e] = add_positions ? dpositions[e] + sum : sum;
  if (dcls && e < dim) dcls[e] = add_cls ? dcls[e] + sum : sum;
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
    for_groups(sequences, dim, [&](const GroupCut& cut, int64_t sequence, int64_t token, int64_t position) {
      launch(stream, "tokens", packed ? build_tokens<P, kPack> : build_tokens<P, 1>,
             cut.grid(packed ? kPack : 1), cut, in[patches].row<P>(token - sequence), in[cls].as<float>(),
             in[positions].row<float>(position), out[x].row<float>(token));
    });
  });
}

void Tokens::backward(CudaStream& stream, std::span<const View> in, std::span<const View>,
                      std::span<const View> dout, std::span<const Grad> din) const {
  const View& dx = dout[x];
  const Grad &dpatches = din[patches], &dcls = din[cls], &dpositions = din[positions];
  const bool sums = dcls.wanted() || dpositions.wanted();
  if (!sums && !dpatches.wanted()) return;
  int64_t most = 0;  // groups come one after the other and use the same scratch memory
  for_groups(sequences, dx.cols(), [&](const GroupCut& cut, int64_t, int64_t, int64_t) {
    most = std::max(most, cut.chunks * cut.table());
  });
  float* partial =
      sums ? reinterpret_cast<float*>(stream.scratch(static_cast<size_t>(most) * sizeof(float))) : nullptr;
  with_dtype(in[patches].dtype, [&](auto zero) {
    using P = decltype(zero);
    const bool packed = fits_packs<P, kPack>(dpatches.view) && fits_packs<float, kPack>(dx);
    for_groups(sequences, dx.cols(),
               [&](const GroupCut& cut, int64_t sequence, int64_t token, int64_t position) {
                 launch(stream, "tokens backward",
                        packed ? build_tokens_backward<P, kPack> : build_tokens_backward<P, 1>,
                        cut.grid(packed ? kPack : 1), cut, dx.row<float>(token),
                        dpatches.wanted() ? dpatches.view.row<P>(token - sequence) : nullptr,
                        dpatches.mode == GradMode::add, partial);
                 if (sums)
                   launch(stream, "tokens backward sums", add_chunks,
                          {blocks_for(cut.table(), kThreads), kThreads}, partial, cut.chunks, cut.table(),
                          cut.dim, dpositions.wanted() ? dpositions.view.row<float>(position) : nullptr,
                          dpositions.mode == GradMode::add, dcls.wanted() ? dcls.view.as<float>() : nullptr,
                          token > 0 || dcls.mode == GradMode::add);
               });
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
