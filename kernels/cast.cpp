#include "kernels/cast.h"

#include <algorithm>

#include "kernels/pieces.h"
#include "kernels/rows.h"

namespace dino {

std::vector<Spec> Cast::infer(std::span<const Spec> in) const {
  require_float_dtypes<Cast>(in);
  return {{output == Dtype::none ? in[x].dtype : output, in[x].shape}};
}

void Cast::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    stream.pool().for_ranges(in[x].rows(), rows_per_piece(in[x].cols()), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        if (out[y].dtype == in[x].dtype) std::copy_n(in[x].row<T>(row), in[x].cols(), out[y].row<T>(row));
        if constexpr (std::is_same_v<T, float>)
          if (out[y].dtype == Dtype::bf16) rows::convert(in[x].row<T>(row), out[y].row<BFloat16>(row), in[x].cols());
      }
    });
  });
}

void Cast::backward(CpuStream& stream, std::span<const View>, std::span<const View>,
                    std::span<const View> dout, std::span<const Grad> din) const {
  const View& dy = dout[y];
  const Grad& dx = din[x];
  if (!dx.wanted()) return;
  with_real(dy.dtype, [&](auto zero) {
    using Y = decltype(zero);
    using T = std::conditional_t<std::is_same_v<Y, BFloat16>, float, Y>;
    stream.pool().for_ranges(dy.rows(), rows_per_piece(dy.cols()), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        rows::axpy(T{1}, dy.row<Y>(row), dx.view.row<T>(row), dy.cols(), dx.mode == GradMode::add);
    });
  });
}

std::vector<Case<Cast>> Cast::cases(Tiny) { return {{{}, {{{3, 8}}}}, {{}, {{{5, 7}}}}}; }

std::vector<Case<Cast>> Cast::cases(Real) { return {{{}, {{{14848, 192}}}}}; }

}  // namespace dino
