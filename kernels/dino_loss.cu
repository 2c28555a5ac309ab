#include "kernels/dino_loss.h"

#include "kernels/block_sum_f64.cuh"
#include "kernels/device_math.cuh"
#include "kernels/last_block.cuh"

// Both losses in the same way. A block takes a chunk of the prototypes of one sample, holds its part of both targets in
// registers, and walks over the sample's crops: student and targets are read once, 4 bytes per element. The last block of
// a sample joins the parts of its rows (12 bytes per 2048 elements), and the last one of all adds up rows, in a fixed
// order. Backward walks in the same way and writes 4 bytes more per element of student.
namespace dino {
inline namespace dino_loss_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPerThread = 8;  // elements of each row
constexpr int kChunk = kThreads * kPerThread;

enum class Loss { cross_entropy, squares };

/// What the loss needs of a part of one row.
struct Part {
  float max;  ///< of the logits
  float sum;  ///< Σ exp((z − max) / temperature); squares: Σ (z − q)² over one or both targets
  float dot;  ///< Σ z · (sum of the targets that this crop is compared with)
};

struct Rows {
  const float *student, *targets;
  int64_t batch, crops, dim, chunks;
};

/// The chunk of one sample's prototypes that this block takes, in packs of N.
template <int N>
struct Chunk {
  static constexpr int kPacks = kPerThread / N;
  const Rows& rows;
  int64_t sample, part, begin;

  __device__ explicit Chunk(const Rows& rows)
      : rows(rows), sample(blockIdx.x / rows.chunks), part(blockIdx.x % rows.chunks) {
    begin = part * kChunk + threadIdx.x * N;
  }
  __device__ int64_t column(int pack) const { return begin + pack * (kThreads * N); }
  __device__ bool holds(int pack) const { return column(pack) < rows.dim; }
  /// Elements of a row of this sample; 0 beyond its end.
  __device__ void read(const float* matrix, int64_t crop, float (&to)[kPacks][N]) const {
    const float* row = matrix + (crop * rows.batch + sample) * rows.dim;
#pragma unroll
    for (int pack = 0; pack < kPacks; ++pack) {
      if (holds(pack)) {
        load(row + column(pack), to[pack]);
      } else {
#pragma unroll
        for (int e = 0; e < N; ++e) to[pack][e] = 0;
      }
    }
  }
};

/// The sum of the targets that a crop is compared with: the other one for the two that the teacher sees too, else both.
__device__ float target_of(int64_t crop, float q0, float q1) { return crop == 0 ? q1 : crop == 1 ? q0 : q0 + q1; }

__device__ float square_of(int64_t crop, float z, float q0, float q1) {
  return (crop == 0 ? 0 : (z - q0) * (z - q0)) + (crop == 1 ? 0 : (z - q1) * (z - q1));
}

/// The part that a warp has of one row, in all lanes.
template <Loss kLoss, int N>
__device__ Part part_of(const Chunk<N>& chunk, int64_t crop, const float (&z)[kPerThread / N][N],
                        const float (&q0)[kPerThread / N][N], const float (&q1)[kPerThread / N][N], float sharpen) {
  Part part{-INFINITY, 0, 0};
#pragma unroll
  for (int pack = 0; pack < kPerThread / N; ++pack)
#pragma unroll
    for (int e = 0; e < N; ++e) {
      if (kLoss == Loss::squares) {
        part.sum += square_of(crop, z[pack][e], q0[pack][e], q1[pack][e]);
      } else {
        if (chunk.holds(pack)) part.max = fmaxf(part.max, z[pack][e]);
        part.dot = fmaf(z[pack][e], target_of(crop, q0[pack][e], q1[pack][e]), part.dot);
      }
    }
  if (kLoss == Loss::cross_entropy) {
    part.max = warp_max(part.max);
    part.dot = warp_sum(part.dot);
#pragma unroll
    for (int pack = 0; pack < kPerThread / N; ++pack)
#pragma unroll
      for (int e = 0; e < N; ++e)
        if (chunk.holds(pack)) part.sum += expf((z[pack][e] - part.max) * sharpen);
  }
  part.sum = warp_sum(part.sum);
  return part;
}

/// `other` becomes part of `part`.
__device__ void join(Part& part, const Part& other, float sharpen) {
  const float max = fmaxf(part.max, other.max);
  // Nothing is lost where a maximum is −∞: nothing was in that part.
  const float mine = part.max == max ? 1 : expf((part.max - max) * sharpen);
  const float its = other.max == max ? 1 : expf((other.max - max) * sharpen);
  part = {max, part.sum * mine + other.sum * its, part.dot + other.dot};
}

/// Where parts go, and what becomes of them.
struct Results {
  Part* parts;  ///< [crops · batch, chunks], rows as those of student
  float* lse;   ///< cross entropy only
  float *row_loss, *loss;
  double factor;       ///< of the loss
  unsigned* counters;  ///< of all samples, and of the batch
};

/// The parts of a row become its loss and, for the cross entropy, its normalizer. For a whole warp.
template <Loss kLoss>
__device__ void finish_row(const Rows& rows, float sharpen, const Results& results, int64_t row) {
  Part part{-INFINITY, 0, 0};
  for (int64_t i = threadIdx.x % 32; i < rows.chunks; i += 32)
    join(part, results.parts[row * rows.chunks + i], sharpen);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Part other{__shfl_xor_sync(0xFFFFFFFFu, part.max, offset), __shfl_xor_sync(0xFFFFFFFFu, part.sum, offset),
                     __shfl_xor_sync(0xFFFFFFFFu, part.dot, offset)};
    join(part, other, sharpen);
  }
  if (threadIdx.x % 32 != 0) return;
  if (kLoss == Loss::squares) {
    results.row_loss[row] = part.sum;
    return;
  }
  const float normalizer = part.max * sharpen + logf(part.sum);
  results.lse[row] = normalizer;
  results.row_loss[row] = (row < 2 * rows.batch ? 1.0f : 2.0f) * normalizer - sharpen * part.dot;
}

/// One part of every crop of a sample, and in the last blocks, all of the rest.
template <Loss kLoss, int N>
__global__ void __launch_bounds__(kThreads) sum_parts(Rows rows, float sharpen, Results results) {
  extern __shared__ Part of_warps[];  // [warps, crops]
  const Chunk<N> chunk(rows);
  float q0[kPerThread / N][N], q1[kPerThread / N][N], z[kPerThread / N][N];
  chunk.read(rows.targets, 0, q0);
  chunk.read(rows.targets, 1, q1);
  for (int64_t crop = 0; crop < rows.crops; ++crop) {
    chunk.read(rows.student, crop, z);
    const Part part = part_of<kLoss, N>(chunk, crop, z, q0, q1, sharpen);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32 * rows.crops + crop] = part;
  }
  __syncthreads();
  for (int64_t crop = threadIdx.x; crop < rows.crops; crop += kThreads) {
    Part part = of_warps[crop];
    for (int warp = 1; warp < kWarps; ++warp) join(part, of_warps[warp * rows.crops + crop], sharpen);
    results.parts[(crop * rows.batch + chunk.sample) * rows.chunks + chunk.part] = part;
  }
  if (!is_last_block(results.counters + chunk.sample, static_cast<unsigned>(rows.chunks))) return;
  for (int64_t crop = threadIdx.x / 32; crop < rows.crops; crop += kWarps)
    finish_row<kLoss>(rows, sharpen, results, crop * rows.batch + chunk.sample);
  if (!is_last_block(results.counters + rows.batch, static_cast<unsigned>(rows.batch))) return;
  double sum = 0;
  for (int64_t row = threadIdx.x; row < rows.crops * rows.batch; row += kThreads)
    sum += static_cast<double>(results.row_loss[row]);
  sum = block_sum_f64<kThreads>(sum);
  if (threadIdx.x == 0) *results.loss = static_cast<float>(sum * results.factor);
}

/// dz = factor · dloss · (n · a − T), n targets with sum T, and a = softmax(z / temperature), or z itself for squares.
template <Loss kLoss, int N>
__global__ void __launch_bounds__(kThreads) student_gradient(Rows rows, float sharpen, float factor, const float* dloss,
                                                             const float* lse, float* dstudent, bool add) {
  const Chunk<N> chunk(rows);
  float q0[kPerThread / N][N], q1[kPerThread / N][N], z[kPerThread / N][N];
  chunk.read(rows.targets, 0, q0);
  chunk.read(rows.targets, 1, q1);
  const float scale = dloss ? factor * *dloss : 0.0f;
  for (int64_t crop = 0; crop < rows.crops; ++crop) {
    chunk.read(rows.student, crop, z);
    const int64_t row = crop * rows.batch + chunk.sample;
    const float pairs = crop < 2 ? 1.0f : 2.0f, normalizer = kLoss == Loss::cross_entropy ? lse[row] : 0.0f;
#pragma unroll
    for (int pack = 0; pack < kPerThread / N; ++pack) {
      if (!chunk.holds(pack)) continue;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float a = kLoss == Loss::cross_entropy ? expf(fmaf(z[pack][e], sharpen, -normalizer)) : z[pack][e];
        z[pack][e] = scale * fmaf(pairs, a, -target_of(crop, q0[pack][e], q1[pack][e]));
      }
      store(dstudent + row * rows.dim + chunk.column(pack), z[pack], add);
    }
  }
}

Rows rows_of(std::span<const View> in, int64_t crops) {
  const int64_t dim = in[0].cols();
  return {in[0].as<float>(), in[1].as<float>(), in[0].rows() / crops, crops, dim, (dim + kChunk - 1) / kChunk};
}

/// 1 / (number of pairs · batch).
double mean_factor(const Rows& rows) { return 1.0 / static_cast<double>(2 * (rows.crops - 1) * rows.batch); }

template <Loss kLoss>
void run_forward(CudaStream& stream, const char* name, const Rows& rows, std::span<const View> in, double sharpen,
                 float* lse, float* loss) {
  const int64_t count = rows.crops * rows.batch;
  auto* parts = reinterpret_cast<Part*>(
      stream.scratch(static_cast<size_t>(count) * (static_cast<size_t>(rows.chunks) * sizeof(Part) + sizeof(float))));
  const Results results{parts,
                        lse,
                        reinterpret_cast<float*>(parts + count * rows.chunks),
                        loss,
                        mean_factor(rows),
                        tickets(stream, static_cast<size_t>(rows.batch) + 1)};
  const Grid grid{blocks_for(rows.batch * rows.chunks, 1), kThreads,
                  static_cast<size_t>(rows.crops) * kWarps * sizeof(Part)};
  const bool packed = fits_packs<float, 4>(in[0]) && fits_packs<float, 4>(in[1]);
  launch(stream, name, packed ? sum_parts<kLoss, 4> : sum_parts<kLoss, 1>, grid, rows, sharpen, results);
}

template <Loss kLoss>
void run_backward(CudaStream& stream, const char* name, const Rows& rows, std::span<const View> in, double sharpen,
                  double factor, const View& dloss, const float* lse, const Grad& grad) {
  if (!grad.wanted()) return;
  const bool packed = fits_packs<float, 4>(in[0]) && fits_packs<float, 4>(in[1]) && fits_packs<float, 4>(grad.view);
  launch(stream, name, packed ? student_gradient<kLoss, 4> : student_gradient<kLoss, 1>,
         {blocks_for(rows.batch * rows.chunks, 1), kThreads}, rows, sharpen, factor * mean_factor(rows),
         dloss.as<float>(), lse, grad.view.as<float>(), grad.mode == GradMode::add);
}

}  // namespace dino_loss_cu

void DinoCrossEntropy::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  run_forward<Loss::cross_entropy>(stream, "dino cross entropy", rows_of(in, crops), in, 1 / student_temp,
                                   out[lse].as<float>(), out[loss].as<float>());
}

void DinoCrossEntropy::backward(CudaStream& stream, std::span<const View> in, std::span<const View> out,
                                std::span<const View> dout, std::span<const Grad> din) const {
  run_backward<Loss::cross_entropy>(stream, "dino cross entropy backward", rows_of(in, crops), in, 1 / student_temp,
                                    1 / student_temp, dout[loss], out[lse].as<float>(), din[student]);
}

void CropsMse::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  run_forward<Loss::squares>(stream, "crops mse", rows_of(in, crops), in, 1, nullptr, out[loss].as<float>());
}

void CropsMse::backward(CudaStream& stream, std::span<const View> in, std::span<const View>, std::span<const View> dout,
                        std::span<const Grad> din) const {
  run_backward<Loss::squares>(stream, "crops mse backward", rows_of(in, crops), in, 1, 2, dout[loss], nullptr,
                              din[student]);
}

}  // namespace dino
