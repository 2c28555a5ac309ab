#include "kernels/label_cross_entropy.h"

#include <cmath>

#include "kernels/pieces.h"
#include "kernels/rows.h"

namespace dino {

std::vector<Spec> LabelCrossEntropy::infer(std::span<const Spec> in) const {
  using Self = LabelCrossEntropy;
  require<Self>(in[logits].dtype == Dtype::f32 || in[logits].dtype == Dtype::f64, "logits must be f32 or f64",
                in);
  require<Self>(in[labels].dtype == Dtype::i64, "labels must be i64", in);
  require<Self>(in[logits].shape.rank == 2 && in[labels].shape == Shape{in[logits].shape[0]},
                "one label per row of logits", in);
  require<Self>(heads >= 1 && in[logits].shape.cols() % heads == 0,
                str("columns must be divisible by ", heads, " heads"), in);
  const int64_t rows = in[logits].shape[0];
  return {
      {in[logits].dtype, Shape{1}}, {in[logits].dtype, Shape{heads}}, {in[logits].dtype, Shape{rows, heads}}};
}

void LabelCrossEntropy::forward(CpuStream& stream, std::span<const View> in,
                                std::span<const View> out) const {
  const int64_t count = in[logits].rows(), classes = in[logits].cols() / heads;
  const int64_t* label = in[labels].as<int64_t>();
  with_float(in[logits].dtype, [&](auto zero) {
    using T = decltype(zero);
    T* row_losses =
        reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(count * heads) * sizeof(T)));
    stream.pool().for_ranges(count, rows_per_piece(heads * classes), [&](int64_t begin, int64_t end) {
      std::vector<T> unused(static_cast<size_t>(classes));
      for (int64_t row = begin; row < end; ++row) {
        check<UsageError>(label[row] >= 0 && label[row] < classes, kName, ": labels must be in [0, ", classes,
                          "); got ", label[row]);
        for (int64_t head = 0; head < heads; ++head) {
          const T* x = in[logits].row<T>(row) + head * classes;
          const T largest = rows::max(x, classes);
          const T normalizer = largest + std::log(rows::exp_sum(x, T{1}, largest, unused.data(), classes));
          out[lse].row<T>(row)[head] = normalizer;
          row_losses[row * heads + head] = normalizer - x[label[row]];
        }
      }
    });
    T* sums = out[losses].as<T>();
    T total = 0;
    for (int64_t head = 0; head < heads; ++head) {
      T sum = 0;
      for (int64_t row = 0; row < count; ++row) sum += row_losses[row * heads + head];
      sums[head] = sum / static_cast<T>(count);
      total += sums[head];
    }
    out[loss].as<T>()[0] = total;
  });
}

void LabelCrossEntropy::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                                 std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& grad = din[logits];
  if (!grad.wanted()) return;
  const int64_t count = in[logits].rows(), classes = in[logits].cols() / heads;
  const int64_t* label = in[labels].as<int64_t>();
  with_float(in[logits].dtype, [&](auto zero) {
    using T = decltype(zero);
    const T factor = dout[loss].as<T>()[0] / static_cast<T>(count);
    stream.pool().for_ranges(count, rows_per_piece(heads * classes), [&](int64_t begin, int64_t end) {
      std::vector<T> p(static_cast<size_t>(classes));
      for (int64_t row = begin; row < end; ++row)
        for (int64_t head = 0; head < heads; ++head) {
          T* dx = grad.view.row<T>(row) + head * classes;
          rows::exp_sum(in[logits].row<T>(row) + head * classes, T{1}, out[lse].row<T>(row)[head], p.data(),
                        classes);
          p[static_cast<size_t>(label[row])] -= T{1};
          rows::axpy(factor, p.data(), dx, classes, grad.mode == GradMode::add);
        }
    });
  });
}

std::vector<Case<LabelCrossEntropy>> LabelCrossEntropy::cases(Tiny) {
  const CaseInput labels{.shape = {5}, .dtype = Dtype::i64, .values = {2, 0, 3, 3, 1}};
  return {{{}, {{{5, 4}}, labels}},
          {{.heads = 3}, {{{5, 12}}, labels}},
          {{.heads = 2}, {{{5, 14}}, labels}},
          {{}, {{{5, 516}}, labels}},
          {{}, {{{5, 301}}, labels}}};
}

std::vector<Case<LabelCrossEntropy>> LabelCrossEntropy::cases(Real) {
  std::vector<int64_t> values(128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int64_t>(i * 7 % 1000);
  return {{{.heads = 8}, {{{128, 8000}}, {.shape = {128}, .dtype = Dtype::i64, .values = values}}}};
}

}  // namespace dino
