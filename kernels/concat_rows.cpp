#include "kernels/concat_rows.h"

#include <algorithm>

#include "kernels/pieces.h"
#include "kernels/rows.h"

namespace dino {

std::vector<Spec> ConcatRows::infer(std::span<const Spec> in) const {
  require_float_dtypes<ConcatRows>(in);
  int64_t rows = 0;
  for (const Spec& x : in) {
    if (!x.defined()) continue;
    require<ConcatRows>(x.shape.cols() == in[0].shape.cols(), "all inputs must have equal width", in);
    rows += x.shape.rows();
  }
  return {{in[0].dtype, Shape{rows, in[0].shape.cols()}}};
}

void ConcatRows::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(out[y].dtype, [&](auto zero) {
    using T = decltype(zero);
    int64_t first = 0;
    for (const View& x : in) {
      if (!x.defined()) continue;
      stream.pool().for_ranges(x.rows(), rows_per_piece(x.cols()), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) std::copy_n(x.row<T>(row), x.cols(), out[y].row<T>(first + row));
      });
      first += x.rows();
    }
  });
}

void ConcatRows::backward(CpuStream& stream, std::span<const View> in, std::span<const View>,
                          std::span<const View> dout, std::span<const Grad> din) const {
  with_float(dout[y].dtype, [&](auto zero) {
    using T = decltype(zero);
    int64_t first = 0;
    for (size_t i = 0; i < din.size(); ++i) {
      const View& dx = din[i].view;
      if (din[i].wanted())
        stream.pool().for_ranges(dx.rows(), rows_per_piece(dx.cols()), [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row)
            rows::axpy(T{1}, dout[y].row<T>(first + row), dx.row<T>(row), dx.cols(), din[i].mode == GradMode::add);
        });
      first += in[i].rows();
    }
  });
}

std::vector<Case<ConcatRows>> ConcatRows::cases(Tiny) {
  return {{{}, {{{3, 5}}, {{2, 5}}, {{}}, {{}}}}, {{}, {{{3, 5}}, {{2, 5}}, {{1, 5}}, {{4, 5}}}}, {{}, {{{3, 8}}, {{2, 8}}, {{}}, {{}}}}};
}

std::vector<Case<ConcatRows>> ConcatRows::cases(Real) { return {{{}, {{{256, 1024}}, {{512, 1024}}, {{}}, {{}}}}}; }

}  // namespace dino
