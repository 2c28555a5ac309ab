#include "kernels/batch_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/channels.h"
#include "kernels/rows.h"

namespace dino {
namespace {

/// Rows whose statistics are one partial result: about 64 Ki elements, which a core's cache holds while they
/// are read twice. It depends on the number of channels only, and so does the order of all sums.
int64_t piece_rows(int64_t channels) { return std::clamp<int64_t>(65536 / channels, 16, 4096); }

/// Rows that are taken through all steps of an element-wise chain at once, so that the steps between stay in
/// L1.
int64_t block_rows(int64_t channels) { return std::max<int64_t>(1, 4096 / channels); }

/// Calls body(begin, rows) for the blocks of piece `piece`.
template <class Body>
void for_blocks(int64_t rows, int64_t channels, int64_t piece, const Body& body) {
  const int64_t step = block_rows(channels), end = std::min(rows, (piece + 1) * piece_rows(channels));
  for (int64_t row = piece * piece_rows(channels); row < end; row += step)
    body(row, std::min(step, end - row));
}

int64_t pieces_of(const View& x) { return (x.rows() + piece_rows(x.cols()) - 1) / piece_rows(x.cols()); }

/// Mean and biased variance of each column. Each piece takes its moments about its own rounded mean; what
/// that mean lacks is corrected, and the pieces are joined as in Chan, Golub, LeVeque (1983), in double and
/// in order. So neither a mean far from zero nor many rows cost accuracy.
template <class T>
void statistics(CpuStream& stream, const View& x, T* mean, T* var) {
  const int64_t rows = x.rows(), channels = x.cols(), pieces = pieces_of(x), step = piece_rows(channels);
  T* partial =
      reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(pieces * 3 * channels) * sizeof(T)));
  stream.pool().parallel(pieces, [&](int64_t piece, int) {
    T *origin = partial + piece * 3 * channels, *sum = origin + channels, *square = sum + channels;
    const int64_t begin = piece * step, count = std::min(step, rows - begin);
    std::fill(origin, origin + 3 * channels, T{0});
    channels::add_moments(x.row<T>(begin), square, count, channels, origin, sum);  // about zero
    for (int64_t c = 0; c < channels; ++c) origin[c] /= static_cast<T>(count);
    std::fill(sum, sum + 2 * channels, T{0});
    channels::add_moments(x.row<T>(begin), origin, count, channels, sum, square);
  });
  for (int64_t c = 0; c < channels; ++c) {
    double total = 0, center = 0, squares = 0;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const T* p = partial + piece * 3 * channels + c;
      const double count = static_cast<double>(std::min(step, rows - piece * step));
      const double shift = p[channels] / count, delta = p[0] + shift - center;
      squares += p[2 * channels] - shift * shift * count + delta * delta * total * count / (total + count);
      center += delta * count / (total + count);
      total += count;
    }
    mean[c] = static_cast<T>(center);
    var[c] = static_cast<T>(squares < 0 ? 0 : squares / total);  // a NaN stays one
  }
}

/// scale = rstd · gamma and shift = beta of every channel.
template <class T>
std::vector<T> scale_and_shift(std::span<const View> in, const T* rstd, int64_t channels) {
  std::vector<T> result(static_cast<size_t>(2 * channels), T{0});
  const T *gamma = in[BatchNorm::gamma].as<T>(), *beta = in[BatchNorm::beta].as<T>();
  for (int64_t c = 0; c < channels; ++c) {
    result[static_cast<size_t>(c)] = gamma ? rstd[c] * gamma[c] : rstd[c];
    if (beta) result[static_cast<size_t>(channels + c)] = beta[c];
  }
  return result;
}

template <class T>
void forward_all(const BatchNorm& op, CpuStream& stream, std::span<const View> in,
                 std::span<const View> out) {
  const View &x = in[BatchNorm::x], &y = out[BatchNorm::y], &residual = in[BatchNorm::residual];
  const int64_t rows = x.rows(), channels = x.cols();
  T *mean = out[BatchNorm::mean].as<T>(), *var = out[BatchNorm::var].as<T>(),
    *rstd = out[BatchNorm::rstd].as<T>();
  if (op.training) {
    statistics(stream, x, mean, var);
  } else {
    std::copy_n(in[BatchNorm::running_mean].as<T>(), channels, mean);
    std::copy_n(in[BatchNorm::running_var].as<T>(), channels, var);
  }
  for (int64_t c = 0; c < channels; ++c) rstd[c] = T{1} / std::sqrt(var[c] + static_cast<T>(op.eps));
  const std::vector<T> scale = scale_and_shift(in, rstd, channels);
  stream.pool().parallel(pieces_of(x), [&](int64_t piece, int) {
    for_blocks(rows, channels, piece, [&](int64_t row, int64_t count) {
      T* target = y.row<T>(row);
      channels::scale_shift(x.row<T>(row), mean, scale.data(), scale.data() + channels,
                            residual.defined() ? residual.row<T>(row) : nullptr, count, channels, target);
      if (op.activation == Activation::relu) rows::relu(target, target, count * channels);
      if (is_gelu(op.activation)) rows::gelu(op.activation, target, target, count * channels);
    });
  });
}

/// What backward reads, and the gradient with respect to the activation's argument, computed where it is
/// needed.
template <class T>
struct Backward {
  const BatchNorm& op;
  std::span<const View> in, out;
  const View &x, &dy;
  const T *mean, *rstd;
  std::vector<T> scale;

  Backward(const BatchNorm& op_, std::span<const View> in_, std::span<const View> out_, const View& dy_)
      : op(op_),
        in(in_),
        out(out_),
        x(in_[BatchNorm::x]),
        dy(dy_),
        mean(out_[BatchNorm::mean].as<T>()),
        rstd(out_[BatchNorm::rstd].as<T>()),
        scale(scale_and_shift(in_, rstd, dy_.cols())) {}

  /// The gradient of rows [row, row + count), either where dy lies or in the scratch memory of `thread`.
  const T* gradient(CpuStream& stream, int thread, int64_t row, int64_t count) const {
    const int64_t channels = dy.cols(), n = count * channels;
    if (op.activation == Activation::none) return dy.row<T>(row);
    T* g = reinterpret_cast<T*>(stream.scratch(thread, static_cast<size_t>(2 * n) * sizeof(T)));
    if (op.activation == Activation::relu) {
      rows::relu_backward(out[BatchNorm::y].row<T>(row), dy.row<T>(row), g, n, false);
    } else {
      const View& residual = in[BatchNorm::residual];
      channels::scale_shift(x.row<T>(row), mean, scale.data(), scale.data() + channels,
                            residual.defined() ? residual.row<T>(row) : nullptr, count, channels, g + n);
      rows::gelu_backward(op.activation, g + n, dy.row<T>(row), g, n, false);
    }
    return g;
  }
};

/// {Σ g, Σ g · (x − mean)} of every channel; on the way, the gradient of the residual, which is g itself.
template <class T>
std::vector<T> gradient_sums(CpuStream& stream, const Backward<T>& b, const Grad& dresidual) {
  const int64_t rows = b.dy.rows(), channels = b.dy.cols(), pieces = pieces_of(b.dy);
  T* partial =
      reinterpret_cast<T*>(stream.shared_scratch(static_cast<size_t>(pieces * 2 * channels) * sizeof(T)));
  stream.pool().parallel(pieces, [&](int64_t piece, int thread) {
    T* sums = partial + piece * 2 * channels;
    std::fill(sums, sums + 2 * channels, T{0});
    for_blocks(rows, channels, piece, [&](int64_t row, int64_t count) {
      const T* g = b.gradient(stream, thread, row, count);
      channels::add_grad_sums(b.x.template row<T>(row), b.mean, g, count, channels, sums, sums + channels);
      if (dresidual.wanted())
        rows::axpy(T{1}, g, dresidual.view.row<T>(row), count * channels, dresidual.mode == GradMode::add);
    });
  });
  std::vector<T> result(static_cast<size_t>(2 * channels));
  for (int64_t i = 0; i < 2 * channels; ++i) {
    double sum = 0;
    for (int64_t piece = 0; piece < pieces; ++piece) sum += partial[piece * 2 * channels + i];
    result[static_cast<size_t>(i)] = static_cast<T>(sum);
  }
  return result;
}

template <class T>
void backward_all(const BatchNorm& op, CpuStream& stream, std::span<const View> in, std::span<const View> out,
                  const View& dy, std::span<const Grad> din) {
  const Grad &dx = din[BatchNorm::x], &dgamma = din[BatchNorm::gamma], &dbeta = din[BatchNorm::beta];
  const Backward<T> b(op, in, out, dy);
  const int64_t rows = dy.rows(), channels = dy.cols();
  std::vector<T> sums = gradient_sums(stream, b, din[BatchNorm::residual]);
  T *constant = sums.data(), *slope = constant + channels;
  for (int64_t c = 0; c < channels; ++c) {
    if (dbeta.wanted()) accumulate(dbeta.view.as<T>()[c], constant[c], dbeta.mode);
    if (dgamma.wanted()) accumulate(dgamma.view.as<T>()[c], slope[c] * b.rstd[c], dgamma.mode);
    const T scale = op.training ? b.scale[static_cast<size_t>(c)] / static_cast<T>(rows) : T{0};
    constant[c] *= scale;
    slope[c] *= scale * b.rstd[c] * b.rstd[c];
  }
  if (!dx.wanted()) return;
  stream.pool().parallel(pieces_of(dy), [&](int64_t piece, int thread) {
    for_blocks(rows, channels, piece, [&](int64_t row, int64_t count) {
      const T* g = b.gradient(stream, thread, row, count);
      channels::centered_grad(b.x.template row<T>(row), b.mean, g, b.scale.data(), constant, slope, count,
                              channels, dx.view.row<T>(row), dx.mode == GradMode::add);
    });
  });
}

Case<BatchNorm> norm_case(Shape x, bool training, Activation activation, bool affine = true,
                          bool residual = false) {
  const Shape channels = affine ? Shape{x.cols()} : Shape{}, running = training ? Shape{} : Shape{x.cols()};
  return {{1e-5, training, activation},
          {{x}, {channels}, {channels}, {running}, {running, Fill::positive}, {residual ? x : Shape{}}}};
}

}  // namespace

std::vector<Spec> BatchNorm::infer(std::span<const Spec> in) const {
  require_float_dtypes<BatchNorm>(in);
  const Shape channels{in[x].shape.cols()};
  require<BatchNorm>(in[x].shape.count() > 0, "x must not be empty", in);
  for (const int i : {gamma, beta, running_mean, running_var})
    require<BatchNorm>(!in[i].defined() || in[i].shape == channels,
                       str(kInputs[i], " must have the length of x's last axis"), in);
  require<BatchNorm>(!in[residual].defined() || in[residual].shape == in[x].shape,
                     "residual must have the shape of x", in);
  if (training)
    require<BatchNorm>(in[x].shape.rows() > 1, "a batch needs two rows or more to have a variance", in);
  else
    require<BatchNorm>(in[running_mean].defined() && in[running_var].defined(),
                       "evaluation needs running statistics", in);
  const Spec per_channel{wide(in[x].dtype), channels};
  return {in[x], per_channel, per_channel, per_channel};
}

Keep BatchNorm::keep() const {
  const bool again = is_gelu(activation);  // its argument is computed a second time
  return {bit(x) | bit(gamma) | (again ? bit(beta) | bit(residual) : 0),
          bit(mean) | bit(rstd) | (activation == Activation::relu ? bit(y) : 0)};
}

void BatchNorm::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[x].dtype, [&](auto zero) { forward_all<decltype(zero)>(*this, stream, in, out); });
}

void BatchNorm::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  with_float(dout[y].dtype,
             [&](auto zero) { backward_all<decltype(zero)>(*this, stream, in, out, dout[y], din); });
}

std::vector<Case<BatchNorm>> BatchNorm::cases(Tiny) {
  using enum Activation;
  return {norm_case({7, 5}, true, none),
          norm_case({2, 3, 4, 18}, true, relu),
          norm_case({9, 4}, true, gelu),
          norm_case({2, 3, 3, 6}, true, relu, true, true),
          norm_case({11, 3}, true, gelu, true, true),
          norm_case({6, 3}, true, none, false),
          norm_case({8, 3}, true, none, false, true),
          norm_case({7, 5}, false, none),
          norm_case({2, 3, 3, 4}, false, relu, true, true),
          norm_case({1, 5}, false, gelu, false),
          norm_case({9, 1000}, true, relu),
          norm_case({1300, 70}, true, none),
          norm_case({70, 4200}, true, gelu, true, true),
          norm_case({9, 8}, true, gelu, true, true),
          norm_case({300, 32}, true, none, true, true),
          norm_case({5, 48}, false, gelu),
          norm_case({9, 8}, true, gelu_tanh, true, true),
          norm_case({11, 3}, false, gelu_tanh)};
}

std::vector<Case<BatchNorm>> BatchNorm::cases(Real) {
  using enum Activation;
  return {norm_case({512, 14, 14, 32}, true, relu),
          norm_case({8, 112, 112, 64}, true, relu),
          norm_case({8, 56, 56, 256}, true, relu, true, true),
          norm_case({512, 7, 7, 64}, true, gelu),
          norm_case({640, 2048}, true, relu),
          norm_case({8, 112, 112, 64}, false, relu)};
}

std::vector<Spec> RunningStats::infer(std::span<const Spec> in) const {
  require_float_dtypes<RunningStats>(in);
  check<UsageError>(count > 1, kName, ": count must be at least 2; got ", count);
  for (const Spec& spec : in) require<RunningStats>(spec == in[0], "all inputs must be [channels]", in);
  return {in[0], in[0]};
}

void RunningStats::forward(CpuStream&, std::span<const View> in, std::span<const View> out) const {
  with_float(in[mean].dtype, [&](auto zero) {
    using T = decltype(zero);
    const double unbiased = static_cast<double>(count) / static_cast<double>(count - 1);
    const auto mix = [&](const View& old, const View& batch, double factor, const View& target) {
      for (int64_t c = 0; c < old.count(); ++c)
        target.as<T>()[c] =
            static_cast<T>((1 - momentum) * old.as<T>()[c] + momentum * (factor * batch.as<T>()[c]));
    };
    mix(in[running_mean], in[mean], 1, out[new_mean]);
    mix(in[running_var], in[var], unbiased, out[new_var]);
  });
}

std::vector<Case<RunningStats>> RunningStats::cases(Tiny) {
  const CaseInput any{{5}}, positive{{5}, Fill::positive};
  return {{{0.1, 7}, {any, positive, any, positive}}, {{1.0, 2}, {any, positive, any, positive}}};
}

std::vector<Case<RunningStats>> RunningStats::cases(Real) {
  const CaseInput any{{2048}}, positive{{2048}, Fill::positive};
  return {{{0.1, 25088}, {any, positive, any, positive}}};
}

}  // namespace dino
