#include "kernels/column_sums.cuh"

#include "kernels/device_math.cuh"
#include "kernels/last_block.cuh"

// A block sums up to 32 packs of columns over a chunk of rows: its threads are groups, one pack each, of
// which each takes every so-manieth row; the groups' sums are added in order. Sums of chunks, in f32, are
// added up by the last blocks. x is read once; the partial sums are 1/64 of it or less.
namespace dino::cuda {
inline namespace column_sums_cu {

constexpr int kThreads = 256;
constexpr int kWidest = 32;          // packs of columns per block
constexpr int64_t kBlocks = 1024;    // some for every multiprocessor, whatever the machine
constexpr int64_t kFewestRows = 16;  // per thread

/// How the sum of `rows` × `cols` elements in packs of `pack` is cut up.
struct Cut {
  int width_log2 = 0;  ///< packs of columns per block are a power of two
  unsigned col_blocks = 1;
  int64_t chunk_rows = 1, chunks = 1;

  Cut(int64_t rows, int64_t cols, int pack) {
    const int64_t packs = cols / pack;
    while (1 << width_log2 < kWidest && 1 << width_log2 < packs) ++width_log2;
    col_blocks = blocks_for(packs, int64_t{1} << width_log2);
    const int64_t groups = kThreads >> width_log2;
    const int64_t most = std::max<int64_t>(1, kBlocks / col_blocks);
    const int64_t wanted = std::clamp<int64_t>(rows / (groups * kFewestRows), 1, most);
    chunk_rows = std::max<int64_t>(1, (rows + wanted - 1) / wanted);
    chunks = std::max<int64_t>(1, (rows + chunk_rows - 1) / chunk_rows);
  }
};

template <class In, class Out, int N>
__global__ void __launch_bounds__(kThreads, 5)
    sum_rows(const In* x, int64_t row_stride, int64_t rows, int64_t cols, int64_t chunk_rows, int width_log2,
             Out* sums, bool add, PartialRows partial) {
  constexpr int kPitch = kThreads + 32 / N;  // a warp that sums N · 32/N columns below reads from all banks
  __shared__ float group_sums[N * kPitch];
  const int width = 1 << width_log2, groups = kThreads >> width_log2;
  const int pack = static_cast<int>(threadIdx.x) & (width - 1),
            group = static_cast<int>(threadIdx.x) >> width_log2;
  const int64_t first_col = static_cast<int64_t>(blockIdx.x) * width * N, col = first_col + pack * N;
  const int64_t begin = blockIdx.y * chunk_rows, end = min(begin + chunk_rows, rows);
  float sum[N] = {};
  if (col < cols) {
#pragma unroll 4
    for (int64_t row = begin + group; row < end; row += groups) {
      float value[N];
      load(x + row * row_stride + col, value);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += value[i];
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) group_sums[i * kPitch + threadIdx.x] = sum[i];
  __syncthreads();
  const int own_cols = static_cast<int>(min(int64_t{width} * N, cols - first_col));
  float total = 0;
  if (threadIdx.x < own_cols) {
    const float* own_sums = group_sums + threadIdx.x % N * kPitch + threadIdx.x / N;
    for (int g = 0; g < groups; ++g) total += own_sums[g << width_log2];
  }
  const auto take = [&](int64_t own_col, float sum) {
    Out& target = sums[first_col + own_col];
    target = from_float<Out>(add ? to_float(target) + sum : sum);
  };
  if (gridDim.y == 1) {
    if (threadIdx.x < own_cols) take(threadIdx.x, total);
    return;
  }
  partial.rows += first_col;
  partial.cols = own_cols;
  partial.counters += blockIdx.x * PartialRows::counters_for(partial.blocks);
  if (threadIdx.x < own_cols) partial.row(blockIdx.y)[threadIdx.x] = total;
  partial.add_up<kThreads>(blockIdx.y, take);
}

template <class In>
int pack_of(const View& x) {
  constexpr int kPack = 16 / sizeof(In);
  return fits_packs<In, kPack>(x) ? kPack : 1;
}

Cut cut_of(const View& x) {
  return with_dtype(x.dtype, [&](auto in) { return Cut(x.rows(), x.cols(), pack_of<decltype(in)>(x)); });
}

template <class In, class Out>
void sum(CudaStream& stream, const View& x, Out* sums, bool add, float* scratch) {
  constexpr int kPack = 16 / sizeof(In);
  const Cut cut = cut_of(x);
  dino::check(cut.chunks < 65536, "column sums: too many chunks");
  const unsigned chunks = static_cast<unsigned>(cut.chunks);
  PartialRows partial{scratch, 0, x.cols(), chunks, nullptr};
  if (chunks > 1) partial.counters = tickets(stream, cut.col_blocks * PartialRows::counters_for(chunks));
  launch(stream, "column sums", pack_of<In>(x) == kPack ? sum_rows<In, Out, kPack> : sum_rows<In, Out, 1>,
         {{cut.col_blocks, chunks}, kThreads}, x.as<In>(), x.row_stride, x.rows(), x.cols(), cut.chunk_rows,
         cut.width_log2, sums, add, partial);
}

}  // namespace column_sums_cu

size_t column_sums_scratch(const View& x) {
  const Cut cut = cut_of(x);
  return cut.chunks == 1 ? 0 : static_cast<size_t>(cut.chunks * x.cols()) * sizeof(float);
}

void column_sums(CudaStream& stream, const View& x, const View& sums, GradMode mode, void* scratch) {
  if (mode == GradMode::skip || x.cols() == 0) return;
  with_dtype(x.dtype, [&](auto in) {
    with_dtype(sums.dtype, [&](auto out) {
      using Out = decltype(out);
      sum<decltype(in), Out>(stream, x, sums.as<Out>(), mode == GradMode::add, static_cast<float*>(scratch));
    });
  });
}

}  // namespace dino::cuda
