#include "kernels/drop_path.h"

#include <cmath>

#include "kernels/philox.h"
#include "kernels/pieces.h"
#include "kernels/rows.h"

namespace dino {

std::vector<Spec> DropPathMask::infer(std::span<const Spec> in) const {
  require_float_dtypes<DropPathMask>(in);
  require<DropPathMask>(max_rate >= 0 && max_rate < 1, "the rate must lie in [0, 1)", in);
  return {{in[like].dtype, Shape{2 * depth, sequences}}};
}

void DropPathMask::forward(CpuStream& stream, std::span<const View>, std::span<const View> out) const {
  const StepScalars& step = stream.step();
  const Philox philox(step.seed, Purpose::drop_path);
  with_float(out[scale].dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t branch = 0; branch < 2 * depth; ++branch) {
      const double rate = depth > 1 ? max_rate * static_cast<double>(branch / 2) / static_cast<double>(depth - 1) : max_rate;
      const double keep = 1 - rate;
      T* target = out[scale].row<T>(branch);
      for (int64_t s = 0; s < sequences; ++s) {
        const int64_t identity = s / crops_of * batch + first + s % crops_of;
        const float u = uniform_from(philox(step.step, static_cast<uint32_t>(branch), static_cast<uint32_t>(identity)).word[0]);
        target[s] = static_cast<T>(std::floor(keep + static_cast<double>(u)) / keep);
      }
    }
  });
}

std::vector<Case<DropPathMask>> DropPathMask::cases(Tiny) {
  return {{{.depth = 3, .max_rate = 0.5, .sequences = 12, .crops_of = 3, .batch = 6, .first = 3}, {{{1}}}}};
}

std::vector<Case<DropPathMask>> DropPathMask::cases(Real) {
  return {{{.depth = 12, .max_rate = 0.1, .sequences = 640, .crops_of = 64, .batch = 64}, {{{1}}}}};
}

std::vector<Spec> ResidualAdd::infer(std::span<const Spec> in) const {
  require_float_dtypes<ResidualAdd>(in);
  require<ResidualAdd>(in[x].shape == in[branch].shape, "x and branch must have the same shape", in);
  if (in[scale].defined()) {
    require<ResidualAdd>(in[scale].shape.count() == sequences.count(), "scale must have one value per sequence", in);
    require<ResidualAdd>(in[x].shape.rows() == (cls_only ? sequences.count() : sequences.tokens()),
                         "x must have one row per token (or per sequence, with cls_only)", in);
  }
  return {in[x]};
}

namespace {

/// Calls f(row, factor) with the factor of the row's sequence.
template <class T, class F>
void for_scaled_rows(const ResidualAdd& op, CpuStream& stream, const View& scale, const View& rows_of, F&& f) {
  const auto range = [&](int64_t begin, int64_t end, T factor) {
    for (int64_t row = begin; row < end; ++row) f(row, factor);
  };
  if (!scale.defined()) {
    stream.pool().for_ranges(rows_of.rows(), rows_per_piece(rows_of.cols()),
                             [&](int64_t begin, int64_t end) { range(begin, end, T{1}); });
    return;
  }
  stream.pool().for_ranges(op.sequences.count(), 4, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const Sequences::Place place = op.sequences.place(s);
      const int64_t first = op.cls_only ? s : place.first_token;
      range(first, first + (op.cls_only ? 1 : place.length), scale.as<T>()[s]);
    }
  });
}

}  // namespace

void ResidualAdd::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_scaled_rows<T>(*this, stream, in[scale], in[x], [&](int64_t row, T factor) {
      rows::add_scaled(in[x].row<T>(row), factor, in[branch].row<T>(row), out[y].row<T>(row), in[x].cols());
    });
  });
}

void ResidualAdd::backward(CpuStream& stream, std::span<const View> in, std::span<const View>,
                           std::span<const View> dout, std::span<const Grad> din) const {
  const View& dy = dout[y];
  with_float(dy.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_scaled_rows<T>(*this, stream, in[scale], dy, [&](int64_t row, T factor) {
      const Grad &dx = din[x], &dbranch = din[branch];
      if (dx.wanted()) rows::axpy(T{1}, dy.row<T>(row), dx.view.row<T>(row), dy.cols(), dx.mode == GradMode::add);
      if (dbranch.wanted())
        rows::axpy(factor, dy.row<T>(row), dbranch.view.row<T>(row), dy.cols(), dbranch.mode == GradMode::add);
    });
  });
}

std::vector<Case<ResidualAdd>> ResidualAdd::cases(Tiny) {
  Sequences sequences;
  sequences.append(2, 2, 3);
  sequences.append(3, 1, 2);
  return {{{}, {{{4, 6}}, {{4, 6}}, {{}}}},
          {{}, {{{3, 136}}, {{3, 136}}, {{}}}},
          {{.sequences = sequences}, {{{23, 6}}, {{23, 6}}, {{5}, Fill::keep_mask}}},
          {{.sequences = sequences}, {{{23, 8}}, {{23, 8}}, {{5}, Fill::keep_mask}}},
          {{.sequences = sequences, .cls_only = true}, {{{5, 6}}, {{5, 6}}, {{5}, Fill::keep_mask}}}};
}

std::vector<Case<ResidualAdd>> ResidualAdd::cases(Real) {
  Sequences sequences;
  sequences.append(128, 8, 8);
  sequences.append(384, 4, 4);
  return {{{.sequences = sequences}, {{{14848, 192}}, {{14848, 192}}, {{512}, Fill::keep_mask}}}};
}

}  // namespace dino
