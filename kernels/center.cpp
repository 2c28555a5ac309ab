#include "kernels/center.h"

#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace dino {

std::vector<Spec> ColumnSums::infer(std::span<const Spec> in) const {
  require_float_dtypes<ColumnSums>(in);
  const Shape row{1, in[x].shape.cols()};
  require<ColumnSums>(!in[before].defined() || in[before].shape == row, "before must be [1, cols]", in);
  return {{in[x].dtype, row}};
}

void ColumnSums::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    T* target = out[sums].as<T>();
    if (in[before].defined() && in[before].data != target)
      rows::axpy(T{1}, in[before].as<T>(), target, in[x].cols(), false);
    column_sums<T>(stream, in[x], target, in[before].defined() ? GradMode::add : GradMode::write);
  });
}

std::vector<Case<ColumnSums>> ColumnSums::cases(Tiny) {
  return {{{}, {{{600, 5}}, {{}}}}, {{}, {{{4, 7}}, {{1, 7}}}}};
}

std::vector<Case<ColumnSums>> ColumnSums::cases(Real) { return {{{}, {{{128, 65536}}, {{}}}}}; }

std::vector<Spec> UpdateCenter::infer(std::span<const Spec> in) const {
  require_float_dtypes<UpdateCenter>(in);
  require<UpdateCenter>(in[sums].shape == in[center].shape, "sums must have the shape of center", in);
  require<UpdateCenter>(in[healthy].shape == Shape{1}, "healthy must be [1]", in);
  return {in[center]};
}

void UpdateCenter::forward(CpuStream&, std::span<const View> in, std::span<const View> out) const {
  with_float(in[center].dtype, [&](auto zero) {
    using T = decltype(zero);
    const bool active = in[healthy].as<T>()[0] != T{0};
    const T keep = static_cast<T>(momentum), rest = static_cast<T>((1 - momentum) / static_cast<double>(rows));
    for (int64_t k = 0; k < in[center].count(); ++k) {
      const T old = in[center].as<T>()[k];
      out[updated].as<T>()[k] = active ? keep * old + rest * in[sums].as<T>()[k] : old;
    }
  });
}

std::vector<Case<UpdateCenter>> UpdateCenter::cases(Tiny) {
  const CaseInput healthy{{1}, Fill::positive}, sick{{1}, Fill::normal, Dtype::none, {0}};
  return {{{.rows = 6}, {{{1, 9}}, {{1, 9}}, healthy}},
          {{.rows = 6}, {{{1, 1028}}, {{1, 1028}}, healthy}},
          {{.rows = 6}, {{{1, 9}}, {{1, 9}}, sick}}};
}

std::vector<Case<UpdateCenter>> UpdateCenter::cases(Real) {
  return {{{.rows = 128}, {{{1, 65536}}, {{1, 65536}}, {{1}, Fill::positive}}}};
}

}  // namespace dino
