#include "kernels/column_sums.cuh"

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

// A block sums up to 32 packs of columns over a chunk of rows: its threads are groups, one pack each, of which each
// takes every so-manieth row; the groups' sums are added in order. Sums of chunks, in f32, are summed by the same
// kernel in one more launch. x is read once; the partial sums are 1/64 of it or less.
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

  Cut(int64_t rows, int64_t cols, int pack, bool in_one_chunk) {
    const int64_t packs = cols / pack;
    while (1 << width_log2 < kWidest && 1 << width_log2 < packs) ++width_log2;
    col_blocks = blocks_for(packs, int64_t{1} << width_log2);
    const int64_t groups = kThreads >> width_log2;
    const int64_t most = in_one_chunk ? 1 : std::max<int64_t>(1, kBlocks / col_blocks);
    const int64_t wanted = std::clamp<int64_t>(rows / (groups * kFewestRows), 1, most);
    chunk_rows = std::max<int64_t>(1, (rows + wanted - 1) / wanted);
    chunks = std::max<int64_t>(1, (rows + chunk_rows - 1) / chunk_rows);
  }
};

template <class In, class Out, int N>
__global__ void __launch_bounds__(kThreads) sum_rows(const In* x, int64_t row_stride, int64_t rows, int64_t cols,
                                                     int64_t chunk_rows, int width_log2, Out* sums, bool add) {
  constexpr int kPitch = kThreads + 32 / N;  // so that a warp that sums N · 32/N columns below reads from all banks
  __shared__ float group_sums[N * kPitch];
  const int width = 1 << width_log2, groups = kThreads >> width_log2;
  const int pack = static_cast<int>(threadIdx.x) & (width - 1), group = static_cast<int>(threadIdx.x) >> width_log2;
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
  const int64_t own_col = first_col + threadIdx.x;
  if (threadIdx.x >= width * N || own_col >= cols) return;
  const float* own_sums = group_sums + threadIdx.x % N * kPitch + threadIdx.x / N;
  float total = 0;
  for (int g = 0; g < groups; ++g) total += own_sums[g << width_log2];
  Out& target = sums[blockIdx.y * cols + own_col];
  target = from_float<Out>(add ? to_float(target) + total : total);
}

template <class In>
int pack_of(const View& x) {
  constexpr int kPack = 16 / sizeof(In);
  return fits_packs<In, kPack>(x) ? kPack : 1;
}

/// One launch: sums of every chunk of `cut`, each a row of `sums`.
template <class In, class Out>
void start(CudaStream& stream, const View& x, const Cut& cut, Out* sums, bool add) {
  constexpr int kPack = 16 / sizeof(In);
  const auto run = [&](auto kernel) {
    dino::check(cut.chunks < 65536, "column sums: too many chunks");
    launch(stream, "column sums", kernel, {{cut.col_blocks, static_cast<unsigned>(cut.chunks)}, kThreads}, x.as<In>(),
           x.row_stride, x.rows(), x.cols(), cut.chunk_rows, cut.width_log2, sums, add);
  };
  if (pack_of<In>(x) == kPack)
    run(sum_rows<In, Out, kPack>);
  else
    run(sum_rows<In, Out, 1>);
}

Cut cut_of(const View& x) {
  return with_dtype(x.dtype, [&](auto in) { return Cut(x.rows(), x.cols(), pack_of<decltype(in)>(x), false); });
}

template <class In, class Out>
void sum(CudaStream& stream, const View& x, Out* sums, bool add, float* partial) {
  const Cut cut = cut_of(x);
  if (cut.chunks == 1) return start<In, Out>(stream, x, cut, sums, add);
  start<In, float>(stream, x, cut, partial, false);
  const View partials(partial, Dtype::f32, {cut.chunks, x.cols()}, 0, Device::cuda);
  start<float, Out>(stream, partials, Cut(cut.chunks, x.cols(), pack_of<float>(partials), true), sums, add);
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
