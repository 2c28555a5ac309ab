#include "kernels/tokens.h"

#include <algorithm>

#include "kernels/bicubic.h"
#include "kernels/pieces.h"
#include "kernels/rows.h"

namespace dino {
namespace {

/// Calls f(table row, stored row, weight) for every entry of the sparse matrix that the interpolation is.
template <class F>
void for_entries(const InterpolatePositions& op, int64_t grid, F&& f) {
  int64_t row = 0;
  for (int g = 0; g < op.sequences.groups; ++g) {
    const Sequences::Group& group = op.sequences.group[static_cast<size_t>(g)];
    f(row++, int64_t{0}, 1.0);
    if (group.patches() == grid * grid && op.square[static_cast<size_t>(g)]) {
      for (int64_t p = 0; p < group.patches(); ++p) f(row++, 1 + p, 1.0);
      continue;
    }
    for (int64_t y = 0; y < group.rows; ++y) {
      const BicubicTaps down = position_taps(y, group.rows, grid);
      for (int64_t x = 0; x < group.cols; ++x, ++row) {
        const BicubicTaps across = position_taps(x, group.cols, grid);
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j)
            f(row, 1 + down.index[i] * grid + across.index[j], down.weight[i] * across.weight[j]);
      }
    }
  }
}

template <class T>
void copy_or_add(const T* source, T* target, int64_t n, const Grad& grad) {
  rows::axpy(T{1}, source, target, n, grad.mode == GradMode::add);
}

}  // namespace

std::vector<Spec> InterpolatePositions::infer(std::span<const Spec> in) const {
  require_float_dtypes<InterpolatePositions>(in);
  const Shape& shape = in[pos_embed].shape;
  require<InterpolatePositions>(shape.rank == 3 && shape[0] == 1 && shape[1] > 1 &&
                                    grid_of_positions(in[pos_embed]) * grid_of_positions(in[pos_embed]) == shape[1] - 1,
                                "pos_embed must be [1, 1 + grid², dim]", in);
  return {{in[pos_embed].dtype, Shape{sequences.positions(), shape[2]}}};
}

void InterpolatePositions::forward(CpuStream&, std::span<const View> in, std::span<const View> out) const {
  const View &stored = in[pos_embed], &table = out[positions];
  with_float(stored.dtype, [&](auto zero) {
    using T = decltype(zero);
    int64_t last = -1;
    for_entries(*this, grid_of_positions(stored.spec()), [&](int64_t row, int64_t source, double weight) {
      rows::axpy(static_cast<T>(weight), stored.row<T>(source), table.row<T>(row), table.cols(), row == last);
      last = row;
    });
  });
}

void InterpolatePositions::backward(CpuStream&, std::span<const View>, std::span<const View>,
                                    std::span<const View> dout, std::span<const Grad> din) const {
  const Grad& grad = din[pos_embed];
  if (!grad.wanted()) return;
  with_float(grad.view.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (grad.mode == GradMode::write) std::fill_n(grad.view.as<T>(), grad.view.count(), T{0});
    for_entries(*this, grid_of_positions(grad.view.spec()), [&](int64_t row, int64_t source, double weight) {
      rows::axpy(static_cast<T>(weight), dout[positions].row<T>(row), grad.view.row<T>(source), grad.view.cols(), true);
    });
  });
}

std::vector<Case<InterpolatePositions>> InterpolatePositions::cases(Tiny) {
  InterpolatePositions op;
  op.sequences.append(2, 3, 3);
  op.sequences.append(1, 2, 5);
  op.sequences.append(1, 3, 3);
  op.square[2] = false;
  // More columns than a block of a GPU takes, and stored grids that leave it few columns, or none, of its shared memory.
  InterpolatePositions large;
  large.sequences.append(1, 2, 3);
  return {{op, {{{1, 10, 4}}}}, {op, {{{1, 10, 37}}}}, {large, {{{1, 901, 9}}}}, {large, {{{1, 3137, 2}}}}};
}

std::vector<Case<InterpolatePositions>> InterpolatePositions::cases(Real) {
  InterpolatePositions op;
  op.sequences.append(128, 14, 14);
  op.sequences.append(512, 6, 6);
  return {{op, {{{1, 197, 384}}}}};
}

std::vector<Spec> Tokens::infer(std::span<const Spec> in) const {
  require_float_dtypes<Tokens>(in);
  const int64_t dim = in[patches].shape.cols();
  require<Tokens>(in[patches].shape.rows() == sequences.patches(), "patches must have one row per patch", in);
  require<Tokens>(in[cls].shape.count() == dim && in[cls].shape.cols() == dim, "cls must be [1, 1, dim]", in);
  require<Tokens>(in[positions].shape == Shape{sequences.positions(), dim}, "positions must be [positions, dim]", in);
  return {{wide(in[patches].dtype), Shape{sequences.tokens(), dim}}};
}

void Tokens::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(out[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    stream.pool().for_ranges(sequences.count(), 4, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        const Sequences::Place place = sequences.place(s);
        for (int64_t i = 0; i < place.length; ++i) {
          const T* content = i == 0 ? in[cls].as<T>() : in[patches].row<T>(place.first_token - s + i - 1);
          rows::add_scaled(content, T{1}, in[positions].row<T>(place.first_position + i),
                           out[x].row<T>(place.first_token + i), out[x].cols());
        }
      }
    });
  });
}

void Tokens::backward(CpuStream& stream, std::span<const View>, std::span<const View>, std::span<const View> dout,
                      std::span<const Grad> din) const {
  const View& dx = dout[x];
  const int64_t dim = dx.cols();
  with_float(dx.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (const Grad& grad = din[patches]; grad.wanted())
      stream.pool().for_ranges(sequences.count(), 4, [&](int64_t begin, int64_t end) {
        for (int64_t s = begin; s < end; ++s) {
          const Sequences::Place place = sequences.place(s);
          for (int64_t i = 1; i < place.length; ++i)
            copy_or_add(dx.row<T>(place.first_token + i), grad.view.row<T>(place.first_token - s + i - 1), dim, grad);
        }
      });
    // One piece of work per position: it sums over the images of its group in order.
    if (const Grad& grad = din[positions]; grad.wanted()) {
      int64_t first_token = 0, first_position = 0;
      for (int g = 0; g < sequences.groups; ++g) {
        const Sequences::Group group = sequences.group[static_cast<size_t>(g)];
        stream.pool().for_ranges(group.length(), 1, [&](int64_t i, int64_t) {
          T* sum = grad.view.row<T>(first_position + i);
          for (int64_t image = 0; image < group.count; ++image)
            rows::axpy(T{1}, dx.row<T>(first_token + image * group.length() + i), sum, dim,
                       image > 0 || grad.mode == GradMode::add);
        });
        first_token += group.count * group.length();
        first_position += group.length();
      }
    }
    if (const Grad& grad = din[cls]; grad.wanted())
      for (int64_t s = 0; s < sequences.count(); ++s)
        rows::axpy(T{1}, dx.row<T>(sequences.place(s).first_token), grad.view.as<T>(), dim,
                   s > 0 || grad.mode == GradMode::add);
  });
}

namespace {

Sequences tiny_sequences() {
  Sequences sequences;
  sequences.append(2, 2, 3);
  sequences.append(3, 1, 2);
  return sequences;
}

Sequences real_sequences() {
  Sequences sequences;
  sequences.append(128, 8, 8);
  sequences.append(384, 4, 4);
  return sequences;
}

}  // namespace

std::vector<Case<Tokens>> Tokens::cases(Tiny) {
  Sequences many;
  many.append(70, 1, 2);
  Sequences wide;
  wide.append(1, 1, 1);
  wide.append(2, 1, 1);
  return {{{.sequences = tiny_sequences()}, {{{18, 4}}, {{1, 1, 4}}, {{10, 4}}}},
          {{.sequences = many}, {{{140, 3}}, {{1, 1, 3}}, {{3, 3}}}},
          {{.sequences = wide}, {{{3, 257}}, {{1, 1, 257}}, {{4, 257}}}}};
}

std::vector<Case<Tokens>> Tokens::cases(Real) {
  return {{{.sequences = real_sequences()}, {{{14336, 192}}, {{1, 1, 192}}, {{82, 192}}}}};
}

std::vector<Spec> SelectCls::infer(std::span<const Spec> in) const {
  require_float_dtypes<SelectCls>(in);
  require<SelectCls>(in[x].shape.rows() == sequences.tokens(), "x must have one row per token", in);
  return {{in[x].dtype, Shape{sequences.count(), in[x].shape.cols()}}};
}

void SelectCls::forward(CpuStream&, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t s = 0; s < sequences.count(); ++s)
      std::copy_n(in[x].row<T>(sequences.place(s).first_token), in[x].cols(), out[y].row<T>(s));
  });
}

void SelectCls::backward(CpuStream& stream, std::span<const View>, std::span<const View>, std::span<const View> dout,
                         std::span<const Grad> din) const {
  const Grad& grad = din[x];
  if (!grad.wanted()) return;
  with_float(dout[y].dtype, [&](auto zero) {
    using T = decltype(zero);
    stream.pool().for_ranges(sequences.count(), 4, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        const Sequences::Place place = sequences.place(s);
        copy_or_add(dout[y].row<T>(s), grad.view.row<T>(place.first_token), grad.view.cols(), grad);
        for (int64_t i = 1; grad.mode == GradMode::write && i < place.length; ++i)
          std::fill_n(grad.view.row<T>(place.first_token + i), grad.view.cols(), T{0});
      }
    });
  });
}

std::vector<Case<SelectCls>> SelectCls::cases(Tiny) {
  return {{{.sequences = tiny_sequences()}, {{{23, 3}}}}, {{.sequences = tiny_sequences()}, {{{23, 8}}}}};
}

std::vector<Case<SelectCls>> SelectCls::cases(Real) { return {{{.sequences = real_sequences()}, {{{14848, 192}}}}}; }

std::vector<Spec> PatchMean::infer(std::span<const Spec> in) const {
  require_float_dtypes<PatchMean>(in);
  require<PatchMean>(in[x].shape.rows() == sequences.tokens(), "x must have one row per token", in);
  return {{in[x].dtype, Shape{sequences.count(), in[x].shape.cols()}}};
}

void PatchMean::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) {
    using T = decltype(zero);
    stream.pool().for_ranges(sequences.count(), 1, [&](int64_t s, int64_t) {
      const Sequences::Place place = sequences.place(s);
      T* mean = out[y].row<T>(s);
      for (int64_t i = 1; i < place.length; ++i)
        rows::axpy(T{1}, in[x].row<T>(place.first_token + i), mean, in[x].cols(), i > 1);
      rows::axpy(T{1} / static_cast<T>(place.length - 1), mean, mean, in[x].cols(), false);
    });
  });
}

std::vector<Case<PatchMean>> PatchMean::cases(Tiny) {
  return {{{.sequences = tiny_sequences()}, {{{23, 3}}}}, {{.sequences = tiny_sequences()}, {{{23, 8}}}}};
}

std::vector<Case<PatchMean>> PatchMean::cases(Real) { return {{{.sequences = real_sequences()}, {{{14848, 192}}}}}; }

}  // namespace dino
