#include "kernels/dino_loss.h"

#include <algorithm>
#include <cmath>

#include "kernels/pieces.h"
#include "kernels/rows.h"

namespace dino {
namespace {

constexpr int64_t kTeacherCrops = 2;

/// Runs f(row, thread) for all rows, one row a piece: rows of prototypes are long.
template <class F>
void for_rows(CpuStream& stream, int64_t rows, F&& f) {
  stream.pool().parallel(rows, f);
}

template <class O>
std::vector<Spec> infer_targets(std::span<const Spec> in) {
  require_float_dtypes<O>(in);
  require<O>(in[0].shape.rank == 2, "logits must be [rows, prototypes]", in);
  require<O>(!in[1].defined() || in[1].shape == Shape{1, in[0].shape[1]}, "center must be [1, prototypes]", in);
  return {in[0]};
}

template <class O>
std::vector<Spec> infer_loss(const O& op, std::span<const Spec> in) {
  require_float_dtypes<O>(in);
  require<O>(op.crops >= kTeacherCrops && in[0].shape.rank == 2 && in[0].shape[0] % op.crops == 0,
             "student must have crops · batch rows, with at least two crops", in);
  require<O>(in[1].shape == Shape{kTeacherCrops * (in[0].shape[0] / op.crops), in[0].shape[1]},
             "targets must be [2 · batch, prototypes]", in);
  return {{in[0].dtype, Shape{1}}};
}

/// Calls f(teacher row) for the one or two teacher crops that student row `row` is compared with.
template <class F>
void for_targets(int64_t row, int64_t batch, F&& f) {
  for (int64_t q = 0; q < kTeacherCrops; ++q)
    if (q != row / batch) f(q * batch + row % batch);
}

/// 1 / (number of pairs · batch).
template <class T>
T mean_factor(int64_t crops, int64_t batch) {
  return T{1} / static_cast<T>(kTeacherCrops * (crops - 1) * batch);
}

/// Sum in row order: one fixed order whatever ran in parallel.
template <class T>
T sum_in_order(const T* values, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(values[i]);
  return static_cast<T>(sum);
}

/// out = logits − center.
template <class T>
void subtract_center(const View& logits, const View& center, int64_t row, T* out) {
  if (center.defined())
    rows::add_scaled(logits.row<T>(row), T{-1}, center.as<T>(), out, logits.cols());
  else
    rows::axpy(T{1}, logits.row<T>(row), out, logits.cols(), false);
}

}  // namespace

std::vector<Spec> TeacherSoftmax::infer(std::span<const Spec> in) const { return infer_targets<TeacherSoftmax>(in); }

void TeacherSoftmax::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[logits].dtype, [&](auto zero) {
    using T = decltype(zero);
    const T sharpen = static_cast<T>(1 / stream.step().teacher_temp);
    const int64_t dim = in[logits].cols();
    for_rows(stream, in[logits].rows(), [&](int64_t row, int) {
      T* target = out[p].row<T>(row);
      subtract_center(in[logits], in[center], row, target);
      const T sum = rows::exp_sum(target, sharpen, rows::max(target, dim) * sharpen, target, dim);
      rows::axpy(T{1} / sum, target, target, dim, false);
    });
  });
}

std::vector<Case<TeacherSoftmax>> TeacherSoftmax::cases(Tiny) {
  return {{{}, {{{4, 9}}, {{1, 9}}}}, {{}, {{{4, 9}}, {{}}}}, {{}, {{{2, 3012}}, {{1, 3012}}}}, {{}, {{{70, 516}}, {{1, 516}}}}};
}

std::vector<Case<TeacherSoftmax>> TeacherSoftmax::cases(Real) { return {{{}, {{{128, 4096}}, {{1, 4096}}}}}; }

std::vector<Spec> CenteredUnit::infer(std::span<const Spec> in) const { return infer_targets<CenteredUnit>(in); }

void CenteredUnit::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[logits].dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t dim = in[logits].cols();
    for_rows(stream, in[logits].rows(), [&](int64_t row, int) {
      T* target = out[p].row<T>(row);
      subtract_center(in[logits], in[center], row, target);
      const T length = std::max(std::sqrt(rows::dot(target, target, dim)), static_cast<T>(1e-12));
      rows::axpy(T{1} / length, target, target, dim, false);
    });
  });
}

std::vector<Case<CenteredUnit>> CenteredUnit::cases(Tiny) {
  return {{{}, {{{4, 9}}, {{1, 9}}}}, {{}, {{{4, 9}}, {{}}}}, {{}, {{{2, 3012}}, {{1, 3012}}}}, {{}, {{{70, 516}}, {{1, 516}}}}};
}

std::vector<Case<CenteredUnit>> CenteredUnit::cases(Real) { return {{{}, {{{128, 4096}}, {{1, 4096}}}}}; }

std::vector<Spec> DinoCrossEntropy::infer(std::span<const Spec> in) const {
  std::vector<Spec> out = infer_loss(*this, in);
  out.push_back({in[student].dtype, Shape{in[student].shape[0]}});
  return out;
}

void DinoCrossEntropy::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t count = in[student].rows(), dim = in[student].cols(), batch = count / crops;
  with_float(in[student].dtype, [&](auto zero) {
    using T = decltype(zero);
    const T sharpen = static_cast<T>(1 / student_temp);
    T* row_loss = reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(count) * sizeof(T)));
    for_rows(stream, count, [&](int64_t row, int thread) {
      const T* s = in[student].row<T>(row);
      T* unused = reinterpret_cast<T*>(stream.scratch(thread, static_cast<size_t>(dim) * sizeof(T)));
      const T shift = rows::max(s, dim) * sharpen;
      const T normalizer = shift + std::log(rows::exp_sum(s, sharpen, shift, unused, dim));
      T loss_of_row = 0;
      for_targets(row, batch, [&](int64_t q) {
        loss_of_row += normalizer - sharpen * rows::dot(in[targets].row<T>(q), s, dim);
      });
      out[lse].as<T>()[row] = normalizer;
      row_loss[row] = loss_of_row;
    });
    out[loss].as<T>()[0] = mean_factor<T>(crops, batch) * sum_in_order(row_loss, count);
  });
}

void DinoCrossEntropy::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                                std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& grad = din[student];
  if (!grad.wanted()) return;
  const int64_t count = in[student].rows(), dim = in[student].cols(), batch = count / crops;
  with_float(in[student].dtype, [&](auto zero) {
    using T = decltype(zero);
    const T sharpen = static_cast<T>(1 / student_temp);
    const T factor = dout[loss].as<T>()[0] * mean_factor<T>(crops, batch) * sharpen;
    for_rows(stream, count, [&](int64_t row, int thread) {
      T* p = reinterpret_cast<T*>(stream.scratch(thread, static_cast<size_t>(dim) * sizeof(T)));
      T* ds = grad.view.row<T>(row);
      rows::exp_sum(in[student].row<T>(row), sharpen, out[lse].as<T>()[row], p, dim);
      const T pairs = static_cast<T>(row / batch < kTeacherCrops ? 1 : kTeacherCrops);
      rows::axpy(pairs * factor, p, ds, dim, grad.mode == GradMode::add);
      for_targets(row, batch, [&](int64_t q) { rows::axpy(-factor, in[targets].row<T>(q), ds, dim, true); });
    });
  });
}

std::vector<Case<DinoCrossEntropy>> DinoCrossEntropy::cases(Tiny) {
  return {{{.crops = 4}, {{{12, 7}}, {{6, 7}, Fill::probabilities}}},
          {{.crops = 2, .student_temp = 0.5}, {{{4, 5}}, {{4, 5}, Fill::probabilities}}},
          {{.crops = 3}, {{{6, 2052}}, {{4, 2052}, Fill::probabilities}}}};
}

std::vector<Case<DinoCrossEntropy>> DinoCrossEntropy::cases(Real) {
  return {{{.crops = 8}, {{{512, 4096}}, {{128, 4096}, Fill::probabilities}}}};
}

std::vector<Spec> CropsMse::infer(std::span<const Spec> in) const { return infer_loss(*this, in); }

void CropsMse::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t count = in[student].rows(), dim = in[student].cols(), batch = count / crops;
  with_float(in[student].dtype, [&](auto zero) {
    using T = decltype(zero);
    T* row_loss = reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(count) * sizeof(T)));
    for_rows(stream, count, [&](int64_t row, int thread) {
      T* difference = reinterpret_cast<T*>(stream.scratch(thread, static_cast<size_t>(dim) * sizeof(T)));
      T loss_of_row = 0;
      for_targets(row, batch, [&](int64_t q) {
        rows::add_scaled(in[student].row<T>(row), T{-1}, in[targets].row<T>(q), difference, dim);
        loss_of_row += rows::dot(difference, difference, dim);
      });
      row_loss[row] = loss_of_row;
    });
    out[loss].as<T>()[0] = mean_factor<T>(crops, batch) * sum_in_order(row_loss, count);
  });
}

void CropsMse::backward(CpuStream& stream, std::span<const View> in, std::span<const View>, std::span<const View> dout,
                        std::span<const Grad> din) const {
  const Grad& grad = din[student];
  if (!grad.wanted()) return;
  const int64_t count = in[student].rows(), dim = in[student].cols(), batch = count / crops;
  with_float(in[student].dtype, [&](auto zero) {
    using T = decltype(zero);
    const T factor = 2 * dout[loss].as<T>()[0] * mean_factor<T>(crops, batch);
    for_rows(stream, count, [&](int64_t row, int) {
      T* ds = grad.view.row<T>(row);
      const T pairs = static_cast<T>(row / batch < kTeacherCrops ? 1 : kTeacherCrops);
      rows::axpy(pairs * factor, in[student].row<T>(row), ds, dim, grad.mode == GradMode::add);
      for_targets(row, batch, [&](int64_t q) { rows::axpy(-factor, in[targets].row<T>(q), ds, dim, true); });
    });
  });
}

std::vector<Case<CropsMse>> CropsMse::cases(Tiny) {
  return {{{.crops = 4}, {{{12, 7}}, {{6, 7}}}}, {{.crops = 2}, {{{4, 5}}, {{4, 5}}}}, {{.crops = 3}, {{{3, 2052}}, {{2, 2052}}}}};
}

std::vector<Case<CropsMse>> CropsMse::cases(Real) { return {{{.crops = 8}, {{{512, 4096}}, {{128, 4096}}}}}; }

std::vector<Spec> TargetStatistics::infer(std::span<const Spec> in) const {
  require_float_dtypes<TargetStatistics>(in);
  require<TargetStatistics>(in[p].shape.rank == 2, "p must be [rows, prototypes]", in);
  return {{in[p].dtype, Shape{3}}};
}

void TargetStatistics::forward(CpuStream&, std::span<const View> in, std::span<const View> out) const {
  const int64_t count = in[p].rows(), dim = in[p].cols();
  with_float(in[p].dtype, [&](auto zero) {
    using T = decltype(zero);
    std::vector<double> marginal(static_cast<size_t>(dim), 0.0);
    std::vector<bool> used(static_cast<size_t>(dim), false);
    const auto entropy_term = [](double x) { return x > 0 ? -x * std::log(x) : 0.0; };
    double entropy = 0, marginal_entropy = 0;
    for (int64_t row = 0; row < count; ++row) {
      const T* target = in[p].row<T>(row);
      int64_t largest = 0;
      for (int64_t k = 0; k < dim; ++k) {
        const double value = static_cast<double>(target[k]);
        entropy += entropy_term(value);
        marginal[static_cast<size_t>(k)] += value / static_cast<double>(count);
        if (target[k] > target[largest]) largest = k;
      }
      used[static_cast<size_t>(largest)] = true;
    }
    for (double value : marginal) marginal_entropy += entropy_term(value);
    T* result = out[statistics].as<T>();
    result[0] = static_cast<T>(entropy / static_cast<double>(count));
    result[1] = static_cast<T>(marginal_entropy);
    result[2] = static_cast<T>(static_cast<double>(std::count(used.begin(), used.end(), true)) / static_cast<double>(dim));
  });
}

std::vector<Case<TargetStatistics>> TargetStatistics::cases(Tiny) {
  return {{{}, {{{6, 7}, Fill::probabilities}}},
          {{}, {{{70, 12}, Fill::probabilities}}},
          {{}, {{{3, 1031}, Fill::probabilities}}}};
}

std::vector<Case<TargetStatistics>> TargetStatistics::cases(Real) {
  return {{{}, {{{128, 4096}, Fill::probabilities}}}};
}

}  // namespace dino
