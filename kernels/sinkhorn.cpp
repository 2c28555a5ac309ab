#include "kernels/sinkhorn.h"

#include <algorithm>

#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace dino {

std::vector<Spec> Sinkhorn::infer(std::span<const Spec> in) const {
  require_float_dtypes<Sinkhorn>(in);
  require<Sinkhorn>(in[logits].shape.rank == 2, "logits must be [rows, prototypes]", in);
  require<Sinkhorn>(iterations >= 1, "needs at least one iteration", in);
  return {in[logits]};
}

void Sinkhorn::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  const View &x = in[logits], &q = out[p];
  const int64_t count = x.rows(), dim = x.cols();
  with_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T sharpen = static_cast<T>(1 / stream.step().teacher_temp);
    // A factor of all entries cancels, so the largest logit may be subtracted from all.
    T largest = x.as<T>()[0];
    for (int64_t row = 0; row < count; ++row) largest = std::max(largest, rows::max(x.row<T>(row), dim));
    stream.pool().parallel(count, [&](int64_t row, int) {
      rows::exp_sum(x.row<T>(row), sharpen, largest * sharpen, q.row<T>(row), dim);
    });
    std::vector<T> mass(static_cast<size_t>(dim));
    for (int i = 0; i < iterations; ++i) {
      column_sums<T>(stream, q, mass.data(), GradMode::write);
      // A prototype that nobody comes near has mass 0 in this precision; it stays empty.
      for (T& m : mass) m = m > 0 ? T{1} / m : T{0};
      stream.pool().parallel(count, [&](int64_t row, int) {
        T* target = q.row<T>(row);
        for (int64_t k = 0; k < dim; ++k) target[k] *= mass[static_cast<size_t>(k)];
        rows::axpy(T{1} / rows::sum(target, dim), target, target, dim, false);
      });
    }
  });
}

std::vector<Case<Sinkhorn>> Sinkhorn::cases(Tiny) {
  return {{{}, {{{6, 5}}}}, {{.iterations = 1}, {{{3, 8}}}}, {{.iterations = 2}, {{{11, 2052}}}}, {{.iterations = 2}, {{{70, 516}}}}};
}

std::vector<Case<Sinkhorn>> Sinkhorn::cases(Real) { return {{{}, {{{256, 4096}}}}}; }

}  // namespace dino
