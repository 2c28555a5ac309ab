#include "kernels/drop_path.h"

#include "kernels/philox.h"
#include "kernels/row_packs.cuh"
#include "kernels/token_rows.cuh"

// ResidualAdd: a warp per row, in packs of 4 elements per lane; everything is read or written once.
namespace dino {
inline namespace drop_path_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

/// One draw per thread, in the same arithmetic as on the CPU, so that both drop the same branches.
__global__ void __launch_bounds__(kThreads)
    draw_mask(DropPathMask op, const StepScalars* step, float* scale) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= 2 * op.depth * op.sequences) return;
  const int64_t branch = i / op.sequences, s = i % op.sequences;
  const double rate = op.depth > 1
                          ? op.max_rate * static_cast<double>(branch / 2) / static_cast<double>(op.depth - 1)
                          : op.max_rate;
  const double keep = 1 - rate;
  const int64_t identity = s / op.crops_of * op.batch + op.first + s % op.crops_of;
  const Philox philox(step->seed, Purpose::drop_path);
  const float u = uniform_from(
      philox(step->step, static_cast<uint32_t>(branch), static_cast<uint32_t>(identity)).word[0]);
  scale[i] = static_cast<float>(floor(keep + static_cast<double>(u)) / keep);
}

template <class B, int N>
__global__ void __launch_bounds__(kThreads)
    add_scaled(const float* x, const B* branch, RowScale scale, float* y, int64_t rows, int64_t dim) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const float factor = scale.of(row);
  for (int64_t col = threadIdx.x % 32 * N; col < dim; col += 32 * N) {
    float value[N], added[N];
    load(x + row * dim + col, value);
    load(branch + row * dim + col, added);
#pragma unroll
    for (int e = 0; e < N; ++e) value[e] += factor * added[e];
    store(y + row * dim + col, value);
  }
}

/// Gradients of x and branch, each of which is null if it is not wanted.
template <class B, int N>
__global__ void __launch_bounds__(kThreads)
    add_scaled_backward(const float* dy, RowScale scale, float* dx, bool add_dx, B* dbranch, bool add_dbranch,
                        int64_t rows, int64_t dim) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const float factor = scale.of(row);
  for (int64_t col = threadIdx.x % 32 * N; col < dim; col += 32 * N) {
    float value[N], scaled[N];
    load(dy + row * dim + col, value);
#pragma unroll
    for (int e = 0; e < N; ++e) scaled[e] = factor * value[e];
    if (dx) store(dx + row * dim + col, value, add_dx);
    if (dbranch) store(dbranch + row * dim + col, scaled, add_dbranch);
  }
}

template <class B>
bool packable(const View& branch, std::initializer_list<View> wide) {
  for (const View& view : wide)
    if (!fits_packs<float, kPack>(view)) return false;
  return fits_packs<B, kPack>(branch);
}

}  // namespace drop_path_cu

void DropPathMask::forward(CudaStream& stream, std::span<const View>, std::span<const View> out) const {
  launch(stream, "drop_path_mask", draw_mask, {blocks_for(out[scale].count(), kThreads), kThreads}, *this,
         stream.step(), out[scale].as<float>());
}

void ResidualAdd::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_dtype(in[branch].dtype, [&](auto zero) {
    using B = decltype(zero);
    const auto start = [&](auto kernel) {
      launch(stream, "residual_add", kernel, {blocks_for(in[x].rows(), kWarps), kThreads}, in[x].as<float>(),
             in[branch].as<B>(), RowScale(in[scale], sequences, cls_only), out[y].as<float>(), in[x].rows(),
             in[x].cols());
    };
    packable<B>(in[branch], {in[x], out[y]}) ? start(add_scaled<B, kPack>) : start(add_scaled<B, 1>);
  });
}

void ResidualAdd::backward(CudaStream& stream, std::span<const View> in, std::span<const View>,
                           std::span<const View> dout, std::span<const Grad> din) const {
  const View& dy = dout[y];
  const Grad &dx = din[x], &dbranch = din[branch];
  if (!dx.wanted() && !dbranch.wanted()) return;
  with_dtype(in[branch].dtype, [&](auto zero) {
    using B = decltype(zero);
    const auto start = [&](auto kernel) {
      launch(stream, "residual_add backward", kernel, {blocks_for(dy.rows(), kWarps), kThreads},
             dy.as<float>(), RowScale(in[scale], sequences, cls_only),
             dx.wanted() ? dx.view.as<float>() : nullptr, dx.mode == GradMode::add,
             dbranch.wanted() ? dbranch.view.as<B>() : nullptr, dbranch.mode == GradMode::add, dy.rows(),
             dy.cols());
    };
    packable<B>(dbranch.view, {dy, dx.view}) ? start(add_scaled_backward<B, kPack>)
                                             : start(add_scaled_backward<B, 1>);
  });
}

}  // namespace dino
