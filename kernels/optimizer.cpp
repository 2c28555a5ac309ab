#include "kernels/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/rows.h"

namespace dino {
namespace {

/// Elements per piece of a loop over a flat buffer.
constexpr int64_t kPiece = 32768;

const int64_t* segment_of(const View& segments, int64_t tensor) { return segments.as<int64_t>() + tensor * kSegmentColumns; }

/// The learning rate of one tensor.
double rate_of(const int64_t* segment, const StepScalars& now) { return now.learning_rate * std::bit_cast<double>(segment[kRate]); }

/// Outputs that are not the inputs themselves start as copies of them.
void copy_unless_same(const View& from, const View& to) {
  if (from.data == to.data) return;
  std::copy_n(static_cast<const std::byte*>(from.data), static_cast<size_t>(from.count()) * bytes_of(from.dtype),
              static_cast<std::byte*>(to.data));
}

/// The factor that clips a gradient of this norm. A NaN norm leaves the gradient as it is.
template <class T>
double clip_factor(double clip, T norm) {
  if (clip <= 0) return 1;
  const T factor = static_cast<T>(clip) / (norm + static_cast<T>(1e-6));
  return factor < 1 ? static_cast<double>(factor) : 1;
}

/// A part of an active tensor, as places in the flat buffers.
struct Piece {
  int64_t tensor, begin, end;
};

std::vector<Piece> active_pieces(const View& segments) {
  std::vector<Piece> pieces;
  for (int64_t tensor = 0; tensor < segments.rows(); ++tensor) {
    const int64_t* segment = segment_of(segments, tensor);
    if (!segment[kActive]) continue;
    for (int64_t begin = 0; begin < segment[kCount]; begin += kPiece)
      pieces.push_back({tensor, segment[kBegin] + begin, segment[kBegin] + std::min(segment[kCount], begin + kPiece)});
  }
  return pieces;
}

/// Runs f(tensor, segment, begin, end) over pieces of all active tensors.
template <class F>
void for_active_pieces(CpuStream& stream, const View& segments, F&& f) {
  const std::vector<Piece> pieces = active_pieces(segments);
  stream.pool().parallel(static_cast<int64_t>(pieces.size()), [&](int64_t i, int) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    f(piece.tensor, segment_of(segments, piece.tensor), piece.begin, piece.end);
  });
}

/// Σ x² in pieces of fixed size, added up in order.
template <class T>
double squared_norm(const T* x, int64_t n) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t count = std::min(kPiece, n - begin);
    sum += static_cast<double>(rows::dot(x + begin, x + begin, count));
  }
  return sum;
}

/// target ← momentum · target + (1 − momentum) · source, for all elements of the target.
template <class T>
void ema(CpuStream& stream, double momentum, const View& source, const View& target) {
  stream.pool().for_ranges(target.count(), kPiece, [&](int64_t begin, int64_t end) {
    rows::ema(momentum, source.as<T>() + begin, target.as<T>() + begin, end - begin);
  });
}

template <class O>
void require_table(std::span<const Spec> in, int segments, int per_tensor) {
  const Spec& table = in[static_cast<size_t>(segments)];
  require<O>(table.dtype == Dtype::i64 && table.shape.rank == 2 && table.shape[1] == kSegmentColumns,
             "segments must be i64 [tensors, 5]", in);
  require<O>(in[static_cast<size_t>(per_tensor)].shape == Shape{table.shape[0]}, "norms must be [tensors]", in);
}

template <class O>
void require_dtype_of_first(std::span<const Spec> in, std::initializer_list<int> inputs) {
  for (int i : inputs)
    require<O>(in[static_cast<size_t>(i)].dtype == in[0].dtype, "all numbers must have the dtype of the weights", in);
}

template <class O>
void require_like_first(std::span<const Spec> in, std::initializer_list<int> inputs) {
  for (int i : inputs)
    require<O>(in[static_cast<size_t>(i)] == in[0], "weights, gradients and state must have one dtype and shape", in);
}

}  // namespace

std::vector<Spec> GradNorm::infer(std::span<const Spec> in) const {
  require<GradNorm>(in[grad].dtype == Dtype::f32 || in[grad].dtype == Dtype::f64, "grad must be f32 or f64", in);
  require<GradNorm>(in[segments].dtype == Dtype::i64 && in[segments].shape.rank == 2 &&
                        in[segments].shape[1] == kSegmentColumns,
                    "segments must be i64 [tensors, 5]", in);
  return {{in[grad].dtype, Shape{in[segments].shape[0]}}};
}

void GradNorm::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(in[grad].dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<Piece> pieces = active_pieces(in[segments]);
    std::vector<double> sums(pieces.size());
    stream.pool().parallel(static_cast<int64_t>(pieces.size()), [&](int64_t i, int) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      sums[static_cast<size_t>(i)] = squared_norm(in[grad].as<T>() + piece.begin, piece.end - piece.begin);
    });
    std::vector<double> of_tensor(static_cast<size_t>(in[segments].rows()));
    for (size_t i = 0; i < pieces.size(); ++i) of_tensor[static_cast<size_t>(pieces[i].tensor)] += sums[i];
    for (size_t tensor = 0; tensor < of_tensor.size(); ++tensor)
      out[norms].as<T>()[tensor] = static_cast<T>(std::sqrt(of_tensor[tensor]));
  });
}

std::vector<Spec> Health::infer(std::span<const Spec> in) const {
  require<Health>(in[loss].shape == Shape{1} && in[norms].dtype == in[loss].dtype, "loss must be [1]", in);
  require_table<Health>(in, segments, norms);
  return {in[loss]};
}

void Health::forward(CpuStream&, std::span<const View> in, std::span<const View> out) const {
  with_float(in[loss].dtype, [&](auto zero) {
    using T = decltype(zero);
    bool finite = std::isfinite(in[loss].as<T>()[0]);
    for (int64_t tensor = 0; tensor < in[segments].rows(); ++tensor)
      if (segment_of(in[segments], tensor)[kActive]) finite = finite && std::isfinite(in[norms].as<T>()[tensor]);
    out[healthy].as<T>()[0] = finite ? T{1} : T{0};
  });
}

namespace {

/// Elements per piece of a pass over all buffers of AdamW: seven of them stay in a core's cache.
constexpr int64_t kFusedPiece = 16384;

/// What happens to the elements [begin, end) of the flat buffers.
struct AdamWUpdate {
  int64_t begin, end;
  rows::AdamWScalars scalars;
};

/// Counts the steps of the active tensors, and says what happens to each.
template <class T>
std::vector<AdamWUpdate> adamw_updates(const AdamW& op, const StepScalars& now, std::span<const View> in,
                                       std::span<const View> out) {
  std::vector<AdamWUpdate> updates;
  for (int64_t tensor = 0; tensor < in[AdamW::segments].rows(); ++tensor) {
    const int64_t* segment = segment_of(in[AdamW::segments], tensor);
    if (!segment[kActive]) continue;
    const double t = static_cast<double>(out[AdamW::new_steps].as<T>()[tensor] += 1);
    const double rate = rate_of(segment, now);
    updates.push_back({segment[kBegin], segment[kBegin] + segment[kCount],
                       {.grad_scale = clip_factor(op.clip, in[AdamW::norms].as<T>()[tensor]),
                        .beta1 = op.beta1,
                        .beta2 = op.beta2,
                        .eps = op.eps,
                        .keep = segment[kRegularized] ? 1 - rate * now.weight_decay : 1,
                        .step_size = rate / (1 - std::pow(op.beta1, t)),
                        .inv_sqrt_bias2 = 1 / std::sqrt(1 - std::pow(op.beta2, t))}});
  }
  return updates;
}

}  // namespace

std::vector<Spec> AdamW::infer(std::span<const Spec> in) const {
  require_table<AdamW>(in, segments, norms);
  require_like_first<AdamW>(in, {grad, m, v});
  require_dtype_of_first<AdamW>(in, {steps, norms, healthy});
  require<AdamW>(in[steps].shape == in[norms].shape && in[healthy].shape == Shape{1},
                 "steps must be [tensors] and healthy [1]", in);
  require<AdamW>(!bf16_copies || in[weight].dtype == Dtype::f32, "only f32 has copies in bf16", in);
  if (in[teacher].defined()) {
    require_dtype_of_first<AdamW>(in, {teacher});
    require<AdamW>(in[teacher].shape.rank == 1 && in[teacher].shape[0] <= in[weight].shape.count(),
                   "teacher must not have more elements than weight", in);
  }
  const auto copy_of = [&](const Spec& spec) { return bf16_copies && spec.defined() ? Spec{Dtype::bf16, spec.shape} : Spec{}; };
  return {in[weight], in[m], in[v], in[steps], in[teacher], copy_of(in[weight]), copy_of(in[teacher])};
}

void AdamW::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  copy_unless_same(in[weight], out[new_weight]);
  copy_unless_same(in[m], out[new_m]);
  copy_unless_same(in[v], out[new_v]);
  copy_unless_same(in[steps], out[new_steps]);
  if (in[teacher].defined()) copy_unless_same(in[teacher], out[new_teacher]);
  with_float(in[weight].dtype, [&](auto zero) {
    using T = decltype(zero);
    const bool healthy_step = in[healthy].as<T>()[0] != T{0};
    const std::vector<AdamWUpdate> updates = healthy_step ? adamw_updates<T>(*this, stream.step(), in, out) : std::vector<AdamWUpdate>();
    T* w = out[new_weight].as<T>();
    // One pass: what a piece reads and writes stays in a core's own cache until the last of it is done.
    stream.pool().for_ranges(in[weight].count(), kFusedPiece, [&](int64_t begin, int64_t end) {
      for (const AdamWUpdate& update : updates) {
        const int64_t first = std::max(begin, update.begin), count = std::min(end, update.end) - first;
        if (count > 0)
          rows::adamw(update.scalars, in[grad].as<T>() + first, w + first, out[new_m].as<T>() + first,
                      out[new_v].as<T>() + first, count);
      }
      const int64_t averaged = in[teacher].defined() ? std::min(end, in[teacher].count()) - begin : 0;
      T* average = averaged > 0 ? out[new_teacher].as<T>() + begin : nullptr;
      if (healthy_step && averaged > 0) rows::ema(stream.step().teacher_momentum, w + begin, average, averaged);
      if constexpr (std::is_same_v<T, float>) {
        if (!bf16_copies) return;
        rows::convert(w + begin, out[weight_copy].as<BFloat16>() + begin, end - begin);
        if (averaged > 0) rows::convert(average, out[teacher_copy].as<BFloat16>() + begin, averaged);
      }
    });
  });
}

std::vector<Spec> Sgd::infer(std::span<const Spec> in) const {
  require_table<Sgd>(in, segments, norms);
  require_like_first<Sgd>(in, {grad, momentum_buffer});
  require_dtype_of_first<Sgd>(in, {norms, healthy});
  require<Sgd>(in[healthy].shape == Shape{1}, "healthy must be [1]", in);
  return {in[weight], in[momentum_buffer]};
}

namespace {

/// buffer ← momentum · buffer + factor · (clip · g + decay · w); w ← w − rate · buffer.
template <class T>
void momentum_update(const T* grad, double clip, double decay, double factor, double momentum, double rate, T* weight,
                     T* buffer, int64_t n) {
  const T c = static_cast<T>(clip), d = static_cast<T>(decay), f = static_cast<T>(factor);
  const T m = static_cast<T>(momentum), r = static_cast<T>(rate);
  for (int64_t i = 0; i < n; ++i) {
    buffer[i] = m * buffer[i] + f * (c * grad[i] + d * weight[i]);
    weight[i] -= r * buffer[i];
  }
}

}  // namespace

void Sgd::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  copy_unless_same(in[weight], out[new_weight]);
  copy_unless_same(in[momentum_buffer], out[new_buffer]);
  const double decay = stream.step().weight_decay;
  with_float(in[weight].dtype, [&](auto zero) {
    using T = decltype(zero);
    if (in[healthy].as<T>()[0] == T{0}) return;
    for_active_pieces(stream, in[segments], [&](int64_t tensor, const int64_t* segment, int64_t begin, int64_t end) {
      momentum_update(in[grad].as<T>() + begin, clip_factor(clip, in[norms].as<T>()[tensor]),
                      segment[kRegularized] ? decay : 0, 1, momentum, rate_of(segment, stream.step()), out[new_weight].as<T>() + begin,
                      out[new_buffer].as<T>() + begin, end - begin);
    });
  });
}

std::vector<Spec> Lars::infer(std::span<const Spec> in) const {
  require_table<Lars>(in, segments, norms);
  require_like_first<Lars>(in, {grad, momentum_buffer});
  require_dtype_of_first<Lars>(in, {norms, healthy});
  require<Lars>(in[healthy].shape == Shape{1}, "healthy must be [1]", in);
  return {in[weight], in[momentum_buffer]};
}

namespace {

/// trust · ‖w‖ / ‖clip · g + decay · w‖ if both norms are positive, else 1.
template <class T>
double trust_ratio(double trust, const T* weight, const T* grad, double clip, double decay, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double g = static_cast<double>(static_cast<T>(clip) * grad[i] + static_cast<T>(decay) * weight[i]);
    sum += g * g;
  }
  const double weight_norm = std::sqrt(squared_norm(weight, n)), grad_norm = std::sqrt(sum);
  return weight_norm > 0 && grad_norm > 0 ? trust * weight_norm / grad_norm : 1;
}

}  // namespace

void Lars::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  copy_unless_same(in[weight], out[new_weight]);
  copy_unless_same(in[momentum_buffer], out[new_buffer]);
  const double decay = stream.step().weight_decay;
  with_float(in[weight].dtype, [&](auto zero) {
    using T = decltype(zero);
    if (in[healthy].as<T>()[0] == T{0}) return;
    stream.pool().parallel(in[segments].rows(), [&](int64_t tensor, int) {
      const int64_t* segment = segment_of(in[segments], tensor);
      if (!segment[kActive]) return;
      const int64_t begin = segment[kBegin], count = segment[kCount];
      const double scale = clip_factor(clip, in[norms].as<T>()[tensor]), coupled = segment[kRegularized] ? decay : 0;
      const T* gradient = in[grad].as<T>() + begin;
      T* w = out[new_weight].as<T>() + begin;
      const double ratio = segment[kRegularized] ? trust_ratio(trust, w, gradient, scale, coupled, count) : 1;
      momentum_update(gradient, scale, coupled, ratio, momentum, rate_of(segment, stream.step()), w, out[new_buffer].as<T>() + begin, count);
    });
  });
}

std::vector<Spec> Ema::infer(std::span<const Spec> in) const {
  require_float_dtypes<Ema>(in);
  require<Ema>(in[teacher].shape == in[student].shape, "teacher and student must have the same shape", in);
  require<Ema>(in[healthy].shape == Shape{1}, "healthy must be [1]", in);
  return {in[teacher]};
}

void Ema::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  copy_unless_same(in[teacher], out[updated]);
  with_float(in[teacher].dtype, [&](auto zero) {
    using T = decltype(zero);
    if (in[healthy].as<T>()[0] == T{0}) return;
    ema<T>(stream, copy ? 0 : stream.step().teacher_momentum, in[student], out[updated]);
  });
}

namespace {

constexpr int64_t kElements = 40000;  // more than one piece in the first tensor
const int64_t kOne = rate_bits(1), kLess = rate_bits(0.65);
const std::vector<int64_t> kTinyTable = {0, 35000, 1, 1, kLess, 35000, 3000, 0, 1, kOne, 38000, 2000, 1, 0, kOne};
CaseInput tiny_table() { return {{3, kSegmentColumns}, Fill::normal, Dtype::i64, kTinyTable}; }

// Tensors that begin anywhere, gaps before, between and after them, several of them in few elements.
constexpr int64_t kGappyElements = 9003;
const std::vector<int64_t> kGappyTable = {3,    5002, 1, 1, kOne, 5010, 1,   0, 1, kLess, 5011, 6,   1, 1, kLess,  //
                                          5017, 2000, 1, 0, kOne, 7021, 300, 0, 1, kLess, 8191, 700, 1, 1, kOne};
CaseInput gappy_table() { return {{6, kSegmentColumns}, Fill::normal, Dtype::i64, kGappyTable}; }

const CaseInput kHealthy{{1}, Fill::positive};
const CaseInput kSick{{1}, Fill::normal, Dtype::none, {0}};

constexpr int64_t kRealElements = 11534336;
CaseInput real_table() { return {{1, kSegmentColumns}, Fill::normal, Dtype::i64, {0, kRealElements, 1, 1, kOne}}; }

}  // namespace

std::vector<Case<GradNorm>> GradNorm::cases(Tiny) {
  return {{{}, {{{kElements}}, tiny_table()}}, {{}, {{{kGappyElements}}, gappy_table()}}};
}
std::vector<Case<GradNorm>> GradNorm::cases(Real) { return {{{}, {{{kRealElements}}, real_table()}}}; }

std::vector<Case<Health>> Health::cases(Tiny) { return {{{}, {{{1}}, {{3}}, tiny_table()}}}; }
std::vector<Case<Health>> Health::cases(Real) { return {{{}, {{{1}}, {{1}}, real_table()}}}; }

std::vector<Case<AdamW>> AdamW::cases(Tiny) {
  const CaseInput n{{kElements}}, positive{{kElements}, Fill::positive}, per_tensor{{3}, Fill::positive};
  const CaseInput few{{kGappyElements}}, few_positive{{kGappyElements}, Fill::positive}, per_few{{6}, Fill::positive};
  const CaseInput teacher{{8826}}, whole{{kGappyElements}};  // the former ends within a tensor
  return {{{.clip = 0.7}, {n, n, n, positive, per_tensor, per_tensor, tiny_table(), kHealthy}},
          {{}, {n, n, n, positive, per_tensor, per_tensor, tiny_table(), kHealthy, n}},
          {{.clip = 0.7}, {few, few, few, few_positive, per_few, per_few, gappy_table(), kHealthy, teacher}},
          {{}, {few, few, few, few_positive, per_few, per_few, gappy_table(), kSick, whole}}};
}
std::vector<Case<AdamW>> AdamW::cases(Real) {
  const CaseInput n{{kRealElements}}, positive{{kRealElements}, Fill::positive}, one{{1}, Fill::positive};
  return {{{.clip = 3}, {n, n, n, positive, one, one, real_table(), one}},
          {{.clip = 3}, {n, n, n, positive, one, one, real_table(), one, n}}};
}

namespace {

/// Cases of Sgd and Lars, which have the same inputs.
template <class O>
std::vector<Case<O>> momentum_cases() {
  const CaseInput n{{kElements}}, few{{kGappyElements}}, per_few{{6}, Fill::positive};
  return {{{.clip = 0.7}, {n, n, n, {{3}, Fill::positive}, tiny_table(), kHealthy}},
          {{}, {few, few, few, per_few, gappy_table(), kHealthy}},
          {{}, {few, few, few, per_few, gappy_table(), kSick}}};
}

template <class O>
std::vector<Case<O>> real_momentum_cases() {
  const CaseInput n{{kRealElements}}, one{{1}, Fill::positive};
  return {{{}, {n, n, n, one, real_table(), one}}};
}

}  // namespace

std::vector<Case<Sgd>> Sgd::cases(Tiny) { return momentum_cases<Sgd>(); }
std::vector<Case<Sgd>> Sgd::cases(Real) { return real_momentum_cases<Sgd>(); }

std::vector<Case<Lars>> Lars::cases(Tiny) { return momentum_cases<Lars>(); }
std::vector<Case<Lars>> Lars::cases(Real) { return real_momentum_cases<Lars>(); }

std::vector<Case<Ema>> Ema::cases(Tiny) {
  return {{{}, {{{kElements}}, {{kElements}}, kHealthy}},
          {{.copy = true}, {{{1001}}, {{1001}}, kHealthy}},
          {{}, {{{1001}}, {{1001}}, kSick}}};
}
std::vector<Case<Ema>> Ema::cases(Real) { return {{{}, {{{kRealElements}}, {{kRealElements}}, kHealthy}}}; }

}  // namespace dino
