#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "kernels/attention_head.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace dino {
namespace {

/// The rows of one head of one sequence.
struct Head {
  int64_t index;          ///< of the head
  int64_t queries, keys;  ///< rows of q and of k, v
  int64_t first_query, first_key;
};

template <class T>
Matrix<T> part(const View& x, int64_t row, int64_t col, bool transposed = false) {
  return {x.row<std::remove_const_t<T>>(row) + col, x.row_stride, transposed};
}

/// The heads of one group of equal sequences, in pieces of some tens of microseconds.
struct HeadGroup {
  Sequences::Group group;
  int64_t first_sequence, first_token;
  int64_t heads, heads_per_piece;

  int64_t pieces() const { return (heads + heads_per_piece - 1) / heads_per_piece; }
};

/// The groups, those of long sequences first: a long piece at the end would keep one thread busy alone.
std::vector<HeadGroup> head_groups(const Attention& op, int64_t dim) {
  constexpr int64_t kPieceMultiplications = 2'000'000;
  std::vector<HeadGroup> groups;
  int64_t sequence = 0, token = 0;
  for (int g = 0; g < op.sequences.groups; ++g) {
    const Sequences::Group& group = op.sequences.group[static_cast<size_t>(g)];
    const int64_t multiplications = 2 * (op.cls_only ? 1 : group.length()) * group.length() * dim;
    groups.push_back({group, sequence, token, group.count * op.heads,
                      std::max<int64_t>(1, kPieceMultiplications / std::max<int64_t>(1, multiplications))});
    sequence += group.count;
    token += group.count * group.length();
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [](const HeadGroup& a, const HeadGroup& b) { return a.group.length() > b.group.length(); });
  return groups;
}

/// Runs body(head, thread) for every head of every sequence; `dim` is that of one head. `read(head, heads)` comes before
/// the first of `heads` successive heads of one sequence.
template <class Read, class Body>
void for_heads(const Attention& op, CpuStream& stream, int64_t dim, const Read& read, const Body& body) {
  const std::vector<HeadGroup> groups = head_groups(op, dim);
  int64_t pieces = 0;
  for (const HeadGroup& group : groups) pieces += group.pieces();
  stream.pool().parallel(pieces, [&](int64_t piece, int thread) {
    auto g = groups.begin();
    for (; piece >= g->pieces(); ++g) piece -= g->pieces();
    const int64_t first = piece * g->heads_per_piece, end = std::min(g->heads, first + g->heads_per_piece);
    for (int64_t next = first; next < end; ++next) {
      const int64_t image = next / op.heads, length = g->group.length(), first_key = g->first_token + image * length;
      const Head head{next % op.heads, op.cls_only ? 1 : length, length,
                      op.cls_only ? g->first_sequence + image : first_key, first_key};
      if (head.index == 0 || next == first) read(head, std::min(op.heads - head.index, end - next));
      body(head, thread);
    }
  });
}

/// Reads columns of some rows of the views once, in the order of memory. What follows goes through columns and through
/// heads, which the processor does not foresee; it would wait for each cache line.
void read_once(std::initializer_list<View> views, int64_t first_row, int64_t rows, int64_t first_col, int64_t cols) {
  for (int64_t row = first_row; row < first_row + rows; ++row)
    for (const View& view : views) {
      if (!view.defined()) continue;
      const auto bytes = static_cast<int64_t>(bytes_of(view.dtype));
      const volatile std::byte* const from = view.as<std::byte>() + (row * view.row_stride + first_col) * bytes;
      for (int64_t byte = 0; byte < cols * bytes; byte += 64) static_cast<void>(from[byte]);
    }
}

// In f64: plain products, which define the result.

void forward_head_f64(const Attention& op, CpuStream& stream, std::span<const View> in, std::span<const View> out,
                  const Head& head, int thread) {
  const int64_t dim = in[Attention::q].cols() / op.heads, col = head.index * dim;
  double* scores = reinterpret_cast<double*>(stream.scratch(thread, static_cast<size_t>(head.queries * head.keys) * sizeof(double)));
  gemm_serial(head.queries, head.keys, dim, 1.0, part<const double>(in[Attention::q], head.first_query, col),
              part<const double>(in[Attention::k], head.first_key, col, true), 0.0, Matrix<double>{scores, head.keys});
  for (int64_t row = 0; row < head.queries; ++row) {
    double* s = scores + row * head.keys;
    const double scale = op.scale, shift = rows::max(s, head.keys) * scale;
    const double sum = rows::exp_sum(s, scale, shift, s, head.keys);
    rows::axpy(1.0 / sum, s, s, head.keys, false);
    out[Attention::lse].row<double>(head.first_query + row)[head.index] = shift + std::log(sum);
  }
  gemm_serial(head.queries, dim, head.keys, 1.0, Matrix<const double>{scores, head.keys},
              part<const double>(in[Attention::v], head.first_key, col), 0.0,
              part<double>(out[Attention::o], head.first_query, col));
}

void backward_head_f64(const Attention& op, CpuStream& stream, std::span<const View> in, std::span<const View> out,
                   const View& grad_o, std::span<const Grad> din, const Head& head, int thread) {
  const int64_t dim = in[Attention::q].cols() / op.heads, col = head.index * dim;
  const int64_t queries = head.queries, keys = head.keys, count = queries * keys;
  double* p = reinterpret_cast<double*>(stream.scratch(thread, static_cast<size_t>(2 * count) * sizeof(double)));
  double* ds = p + count;
  const auto q = part<const double>(in[Attention::q], head.first_query, col);
  const auto k = part<const double>(in[Attention::k], head.first_key, col);
  const auto v_transposed = part<const double>(in[Attention::v], head.first_key, col, true);
  const auto d_o = part<const double>(grad_o, head.first_query, col);
  gemm_serial(queries, keys, dim, 1.0, q, {k.data, k.stride, true}, 0.0, Matrix<double>{p, keys});
  gemm_serial(queries, keys, dim, 1.0, d_o, v_transposed, 0.0, Matrix<double>{ds, keys});
  for (int64_t row = 0; row < queries; ++row) {
    const double lse = out[Attention::lse].row<double>(head.first_query + row)[head.index];
    rows::exp_sum(p + row * keys, op.scale, lse, p + row * keys, keys);
    // Σ_k p·dp of a row equals o·do, which is shorter.
    const double delta = rows::dot(out[Attention::o].row<double>(head.first_query + row) + col, d_o.data + row * d_o.stride, dim);
    rows::softmax_backward(p + row * keys, ds + row * keys, delta, op.scale, ds + row * keys, keys);
  }
  const auto write = [&](int input, int64_t m, int64_t first, int64_t inner, Matrix<const double> a, Matrix<const double> b) {
    const Grad& grad = din[static_cast<size_t>(input)];
    if (!grad.wanted()) return;
    gemm_serial(m, dim, inner, 1.0, a, b, grad.mode == GradMode::add ? 1.0 : 0.0, part<double>(grad.view, first, col));
  };
  write(Attention::q, queries, head.first_query, keys, {ds, keys}, k);
  write(Attention::k, keys, head.first_key, queries, {ds, keys, true}, q);
  write(Attention::v, keys, head.first_key, queries, {p, keys, true}, d_o);
}

// In f32 and bf16.

template <class T>
attention_head::Rows<T> rows_of(const View& x, int64_t row, int64_t col) {
  return {x.row<std::remove_const_t<T>>(row) + col, x.row_stride};
}

template <class T>
void forward_head(const Attention& op, CpuStream& stream, std::span<const View> in, std::span<const View> out,
                  const Head& head, int thread) {
  const attention_head::Size size{head.queries, head.keys, in[Attention::q].cols() / op.heads};
  const int64_t col = head.index * size.dim;
  attention_head::forward(
      attention_head::Forward<T>{.size = size,
                                 .scale = static_cast<float>(op.scale),
                                 .q = rows_of<const T>(in[Attention::q], head.first_query, col),
                                 .k = rows_of<const T>(in[Attention::k], head.first_key, col),
                                 .v = rows_of<const T>(in[Attention::v], head.first_key, col),
                                 .o = rows_of<T>(out[Attention::o], head.first_query, col),
                                 .lse = rows_of<float>(out[Attention::lse], head.first_query, head.index)},
      stream.scratch(thread, attention_head::forward_scratch_bytes(size)));
}

template <class T>
void backward_head(const Attention& op, CpuStream& stream, std::span<const View> in, std::span<const View> out,
                   const View& grad_o, std::span<const Grad> din, const Head& head, int thread) {
  const attention_head::Size size{head.queries, head.keys, in[Attention::q].cols() / op.heads};
  const int64_t col = head.index * size.dim;
  const auto gradient = [&](int input, int64_t row) -> attention_head::Gradient<T> {
    const Grad& grad = din[static_cast<size_t>(input)];
    if (!grad.wanted()) return {};
    return {rows_of<T>(grad.view, row, col), grad.mode};
  };
  attention_head::backward(
      attention_head::Backward<T>{.size = size,
                                  .scale = static_cast<float>(op.scale),
                                  .q = rows_of<const T>(in[Attention::q], head.first_query, col),
                                  .k = rows_of<const T>(in[Attention::k], head.first_key, col),
                                  .v = rows_of<const T>(in[Attention::v], head.first_key, col),
                                  .o = rows_of<const T>(out[Attention::o], head.first_query, col),
                                  .d_o = rows_of<const T>(grad_o, head.first_query, col),
                                  .lse = rows_of<const float>(out[Attention::lse], head.first_query, head.index),
                                  .dq = gradient(Attention::q, head.first_query),
                                  .dk = gradient(Attention::k, head.first_key),
                                  .dv = gradient(Attention::v, head.first_key)},
      stream.scratch(thread, attention_head::backward_scratch_bytes(size)));
}

}  // namespace

std::vector<Spec> Attention::infer(std::span<const Spec> in) const {
  require_float_dtypes<Attention>(in);
  const int64_t queries = cls_only ? sequences.count() : sequences.tokens();
  require<Attention>(in[q].shape.rank == 2 && in[q].shape[0] == queries,
                     cls_only ? "q must have one row per sequence" : "q must have one row per token", in);
  require<Attention>(in[k].shape == Shape{sequences.tokens(), in[q].shape[1]} && in[v].shape == in[k].shape,
                     "k and v must be [tokens, dim]", in);
  require<Attention>(in[q].shape[1] % heads == 0, "dim must be divisible by the number of heads", in);
  return {in[q], {wide(in[q].dtype), Shape{queries, heads}}};
}

void Attention::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t dim = in[q].cols() / heads;
  const auto read = [&](const Head& head, int64_t successive) {
    read_once({in[q], out[o]}, head.first_query, head.queries, head.index * dim, successive * dim);
    read_once({in[k], in[v]}, head.first_key, head.keys, head.index * dim, successive * dim);
  };
  with_real(in[q].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_heads(*this, stream, dim, read, [&](const Head& head, int thread) {
      if constexpr (std::same_as<T, double>) forward_head_f64(*this, stream, in, out, head, thread);
      else forward_head<T>(*this, stream, in, out, head, thread);
    });
  });
}

void Attention::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  const int64_t dim = in[q].cols() / heads;
  const auto read = [&](const Head& head, int64_t successive) {
    read_once({in[q], out[o], dout[o], din[q].view}, head.first_query, head.queries, head.index * dim, successive * dim);
    read_once({in[k], in[v], din[k].view, din[v].view}, head.first_key, head.keys, head.index * dim, successive * dim);
  };
  with_real(in[q].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_heads(*this, stream, dim, read, [&](const Head& head, int thread) {
      if constexpr (std::same_as<T, double>) backward_head_f64(*this, stream, in, out, dout[o], din, head, thread);
      else backward_head<T>(*this, stream, in, out, dout[o], din, head, thread);
    });
  });
}

double Attention::flops(std::span<const Spec> in) const {
  double pairs = 0;
  for (int g = 0; g < sequences.groups; ++g) {
    const auto& group = sequences.group[static_cast<size_t>(g)];
    pairs += static_cast<double>(group.count) * static_cast<double>(group.length()) *
             static_cast<double>(cls_only ? 1 : group.length());
  }
  return 4 * pairs * static_cast<double>(in[q].shape[1]);
}

namespace {

Case<Attention> attention_case(std::initializer_list<Sequences::Group> groups, int64_t heads, int64_t head_dim,
                               bool cls_only) {
  Attention op{.heads = heads, .scale = 1 / std::sqrt(static_cast<double>(head_dim)), .sequences = {}, .cls_only = cls_only};
  for (const auto& group : groups) op.sequences.append(group.count, group.rows, group.cols);
  const int64_t tokens = op.sequences.tokens(), dim = heads * head_dim;
  return {op, {{{cls_only ? op.sequences.count() : tokens, dim}}, {{tokens, dim}}, {{tokens, dim}}}};
}

}  // namespace

std::vector<Case<Attention>> Attention::cases(Tiny) {
  return {attention_case({{2, 2, 3}, {3, 1, 2}}, 2, 4, false), attention_case({{2, 2, 3}, {3, 1, 2}}, 2, 4, true),
          // As many lengths as there can be, in any order, and one image of some.
          attention_case({{2, 1, 2}, {1, 4, 4}, {1, 1, 1}, {3, 1, 3}}, 1, 4, false),
          attention_case({{2, 1, 2}, {1, 4, 4}, {1, 1, 1}, {3, 1, 3}}, 1, 4, true),
          attention_case({{1, 5, 4}}, 1, 3, false), attention_case({{1, 5, 4}}, 1, 3, true),
          // Heads of 64, which tensor cores take: less than a tile, and tiles with tails of 5, 2 and 5 rows.
          attention_case({{2, 1, 1}, {1, 2, 3}}, 2, 64, false), attention_case({{1, 7, 7}, {2, 6, 6}}, 1, 64, false),
          // A tail of one row after whole vectors, and blocks of queries of an odd length.
          attention_case({{2, 8, 8}, {1, 4, 4}}, 1, 32, false), attention_case({{1, 8, 18}}, 1, 32, false),
          // Several heads of short sequences beside each other where long ones determine the size of a block.
          attention_case({{1, 14, 14}, {4, 6, 6}, {1, 1, 1}}, 1, 64, false), attention_case({{1, 6, 6}, {2, 1, 1}}, 2, 64, true),
          attention_case({{3, 1, 1}, {1, 5, 5}, {2, 1, 3}, {1, 4, 4}}, 2, 64, false),
          attention_case({{3, 1, 1}, {1, 5, 5}, {2, 1, 3}}, 2, 64, true),
          // More columns than lanes.
          attention_case({{1, 3, 1}}, 2, 96, false), attention_case({{1, 3, 1}}, 1, 256, false),
          attention_case({{1, 3, 1}}, 1, 256, true)};
}

std::vector<Case<Attention>> Attention::cases(Real) {
  return {attention_case({{128, 8, 8}, {384, 4, 4}}, 3, 64, false), attention_case({{8, 14, 14}, {24, 6, 6}}, 6, 64, false),
          attention_case({{8, 14, 14}, {24, 6, 6}}, 6, 64, true)};
}

std::vector<Spec> AttentionProbabilities::infer(std::span<const Spec> in) const {
  require_float_dtypes<AttentionProbabilities>(in);
  require<AttentionProbabilities>(sequences.groups == 1, "all images must have one size", in);
  require<AttentionProbabilities>(in[q].shape == in[k].shape && in[q].shape.rows() == sequences.tokens(),
                                  "q and k must be [tokens, dim]", in);
  require<AttentionProbabilities>(in[q].shape.cols() % heads == 0, "dim must be divisible by the number of heads", in);
  const int64_t length = sequences.group[0].length();
  return {{wide(in[q].dtype), Shape{sequences.count(), heads, length, length}}};
}

void AttentionProbabilities::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t length = sequences.group[0].length(), dim = in[q].cols() / heads;
  with_float(in[q].dtype, [&](auto zero) {
    using T = decltype(zero);
    stream.pool().parallel(sequences.count() * heads, [&](int64_t piece, int) {
      const int64_t first = piece / heads * length, col = piece % heads * dim;
      T* scores = out[p].as<T>() + piece * length * length;
      gemm_serial(length, length, dim, T{1}, part<const T>(in[q], first, col), part<const T>(in[k], first, col, true),
                  T{0}, Matrix<T>{scores, length});
      for (int64_t row = 0; row < length; ++row) {
        T* s = scores + row * length;
        const T factor = static_cast<T>(scale);
        const T sum = rows::exp_sum(s, factor, rows::max(s, length) * factor, s, length);
        rows::axpy(T{1} / sum, s, s, length, false);
      }
    });
  });
}

std::vector<Case<AttentionProbabilities>> AttentionProbabilities::cases(Tiny) {
  AttentionProbabilities op{.heads = 2, .scale = 0.5, .sequences = {}};
  op.sequences.append(2, 2, 3);
  return {{op, {{{14, 8}}, {{14, 8}}}}};
}

std::vector<Case<AttentionProbabilities>> AttentionProbabilities::cases(Real) {
  AttentionProbabilities op{.heads = 6, .scale = 0.125, .sequences = {}};
  op.sequences.append(4, 28, 28);
  return {{op, {{{3140, 384}}, {{3140, 384}}}}};
}

}  // namespace dino
