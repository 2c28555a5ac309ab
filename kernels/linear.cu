#include "kernels/linear.h"

#include "kernels/column_sums.cuh"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/matmul.cuh"

// Three products through cuBLASLt: it adds the bias as it stores y, and sums dy for the bias as it reads it for the
// weight. Beside bf16 inputs, a bias of an f32 result and an f32 dy are converted first: 6 bytes per element of dy,
// once.
namespace dino {
inline namespace linear_cu {

using namespace cuda;

constexpr int kThreads = 256;

/// Converts, or adds to what is there, N elements per thread.
template <class From, class To, int N>
__global__ void __launch_bounds__(kThreads) convert(const From* from, int64_t from_stride, To* to, int64_t to_stride,
                                                    int64_t packs, int64_t packs_of_row, bool add) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  const int64_t row = i / packs_of_row, col = i % packs_of_row * N;
  float value[N];
  load(from + row * from_stride + col, value);
  store(to + row * to_stride + col, value, add);
}

void convert_view(CudaStream& stream, const View& from, const View& to, bool add = false) {
  with_dtype(from.dtype, [&](auto f) {
    with_dtype(to.dtype, [&](auto t) {
      using From = decltype(f);
      using To = decltype(t);
      const auto start = [&](auto kernel, int64_t pack) {
        const int64_t packs = from.count() / pack;
        launch(stream, "linear convert", kernel, {blocks_for(packs, kThreads), kThreads}, from.as<From>(),
               from.row_stride, to.as<To>(), to.row_stride, packs, from.cols() / pack, add);
      };
      if (fits_packs<From, 4>(from) && fits_packs<To, 4>(to))
        start(convert<From, To, 4>, 4);
      else
        start(convert<From, To, 1>, 1);
    });
  });
}

/// Scratch memory that is asked for part by part, before it is there.
struct Parts {
  size_t bytes = 0;
  size_t add(size_t part) {
    const size_t offset = bytes;
    bytes += (part + 255) / 256 * 256;
    return offset;
  }
};

float beta(const Grad& grad) { return grad.mode == GradMode::add ? 1.0f : 0.0f; }

View vector(void* data, int64_t length) { return View(data, Dtype::f32, {1, length}, 0, Device::cuda); }

/// The gradients of weight and bias; `dy` has the dtype of x, `given_dy` is as it came. `sums` and `partials` are
/// scratch.
void parameter_gradients(CudaStream& stream, const View& x, const View& dy, const View& given_dy, const Grad& dweight,
                         const Grad& dbias, float* sums, void* partials) {
  const int64_t rows = dy.rows(), out = dy.cols(), inner = x.cols();
  bool has_sums = false;
  if (dweight.wanted()) {
    const Matrix left(dy, true), right(x);
    const Target target(dweight.view);
    // The library sums what it multiplies, into what has the type of the product.
    if (dbias.wanted() && target.dtype == Dtype::f32 && given_dy.dtype == dy.dtype) {
      const bool in_place = dbias.mode == GradMode::write && dbias.view.dtype == Dtype::f32;
      float* place = in_place ? dbias.view.as<float>() : sums;
      has_sums = matmul_with_sums(stream, out, inner, rows, 1, left, right, beta(dweight), target, place);
      if (has_sums && !in_place)
        convert_view(stream, vector(sums, out), View(dbias.view.data, dbias.view.dtype, {1, out}),
                     dbias.mode == GradMode::add);
    }
    if (!has_sums) matmul(stream, out, inner, rows, 1, left, right, beta(dweight), target);
  }
  if (dbias.wanted() && !has_sums) column_sums(stream, given_dy, dbias.view, dbias.mode, partials);
}

}  // namespace linear_cu

void Linear::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  const View& y = out[Linear::y];
  View added = in[bias];
  if (added.defined() && added.dtype != y.dtype) {
    const View converted = vector(stream.scratch(static_cast<size_t>(y.cols()) * sizeof(float)), y.cols());
    convert_view(stream, View(added.data, added.dtype, {1, y.cols()}), converted);
    added = converted;
  }
  matmul(stream, y.rows(), y.cols(), in[weight].cols(), 1, Matrix(in[x]), Matrix(in[weight], true), 0, Target(y),
         added.data);
}

void Linear::backward(CudaStream& stream, std::span<const View> in, std::span<const View>, std::span<const View> dout,
                      std::span<const Grad> din) const {
  const Grad &dx = din[x], &dweight = din[weight], &dbias = din[bias];
  const View given_dy = dout[y];
  const Dtype dtype = in[x].dtype;
  const int64_t rows = given_dy.rows(), cols = given_dy.cols(), dense_stride = (cols + 7) / 8 * 8;
  const bool converts = given_dy.dtype != dtype && (dx.wanted() || dweight.wanted());

  Parts parts;
  const size_t dy_part = parts.add(converts ? static_cast<size_t>(rows * dense_stride) * bytes_of(dtype) : 0);
  const size_t sums_part = parts.add(dbias.wanted() ? static_cast<size_t>(cols) * sizeof(float) : 0);
  const size_t partials_part = parts.add(dbias.wanted() ? column_sums_scratch(given_dy) : 0);
  std::byte* scratch = parts.bytes ? stream.scratch(parts.bytes) : nullptr;

  View dy = given_dy;
  if (converts) {
    dy = View(scratch + dy_part, dtype, given_dy.shape, dense_stride, Device::cuda);
    convert_view(stream, given_dy, dy);
  }
  if (dx.wanted())
    matmul(stream, rows, in[weight].cols(), cols, 1, Matrix(dy), Matrix(in[weight]), beta(dx), Target(dx.view));
  parameter_gradients(stream, in[x], dy, given_dy, dweight, dbias, reinterpret_cast<float*>(scratch + sums_part),
                      scratch + partials_part);
}

}  // namespace dino
