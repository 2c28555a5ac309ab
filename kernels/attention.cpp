#include "kernels/attention.h"

#include <cmath>

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

/// Runs body(head, thread) for every head of every sequence.
template <class F>
void for_heads(const Attention& op, CpuStream& stream, F&& body) {
  stream.pool().parallel(op.sequences.count() * op.heads, [&](int64_t piece, int thread) {
    const int64_t sequence = piece / op.heads;
    const Sequences::Place place = op.sequences.place(sequence);
    body(Head{piece % op.heads, op.cls_only ? 1 : place.length, place.length,
              op.cls_only ? sequence : place.first_token, place.first_token},
         thread);
  });
}

template <class T>
void forward_head(const Attention& op, CpuStream& stream, std::span<const View> in, std::span<const View> out,
                  const Head& head, int thread) {
  const int64_t dim = in[Attention::q].cols() / op.heads, col = head.index * dim;
  T* scores = reinterpret_cast<T*>(stream.scratch(thread, static_cast<size_t>(head.queries * head.keys) * sizeof(T)));
  gemm_serial(head.queries, head.keys, dim, T{1}, part<const T>(in[Attention::q], head.first_query, col),
              part<const T>(in[Attention::k], head.first_key, col, true), T{0}, Matrix<T>{scores, head.keys});
  for (int64_t row = 0; row < head.queries; ++row) {
    T* s = scores + row * head.keys;
    const T scale = static_cast<T>(op.scale), shift = rows::max(s, head.keys) * scale;
    const T sum = rows::exp_sum(s, scale, shift, s, head.keys);
    rows::axpy(T{1} / sum, s, s, head.keys, false);
    out[Attention::lse].row<T>(head.first_query + row)[head.index] = shift + std::log(sum);
  }
  gemm_serial(head.queries, dim, head.keys, T{1}, Matrix<const T>{scores, head.keys},
              part<const T>(in[Attention::v], head.first_key, col), T{0},
              part<T>(out[Attention::o], head.first_query, col));
}

template <class T>
void backward_head(const Attention& op, CpuStream& stream, std::span<const View> in, std::span<const View> out,
                   const View& grad_o, std::span<const Grad> din, const Head& head, int thread) {
  const int64_t dim = in[Attention::q].cols() / op.heads, col = head.index * dim;
  const int64_t queries = head.queries, keys = head.keys, count = queries * keys;
  T* p = reinterpret_cast<T*>(stream.scratch(thread, static_cast<size_t>(2 * count) * sizeof(T)));
  T* ds = p + count;
  const auto q = part<const T>(in[Attention::q], head.first_query, col);
  const auto k = part<const T>(in[Attention::k], head.first_key, col);
  const auto v_transposed = part<const T>(in[Attention::v], head.first_key, col, true);
  const auto d_o = part<const T>(grad_o, head.first_query, col);
  gemm_serial(queries, keys, dim, T{1}, q, {k.data, k.stride, true}, T{0}, Matrix<T>{p, keys});
  gemm_serial(queries, keys, dim, T{1}, d_o, v_transposed, T{0}, Matrix<T>{ds, keys});
  for (int64_t row = 0; row < queries; ++row) {
    const T lse = out[Attention::lse].row<T>(head.first_query + row)[head.index];
    rows::exp_sum(p + row * keys, static_cast<T>(op.scale), lse, p + row * keys, keys);
    // Σ_k p·dp of a row equals o·do, which is shorter.
    const T delta = rows::dot(out[Attention::o].row<T>(head.first_query + row) + col, d_o.data + row * d_o.stride, dim);
    rows::softmax_backward(p + row * keys, ds + row * keys, delta, static_cast<T>(op.scale), ds + row * keys, keys);
  }
  const auto write = [&](int input, int64_t m, int64_t first, int64_t inner, Matrix<const T> a, Matrix<const T> b) {
    const Grad& grad = din[static_cast<size_t>(input)];
    if (!grad.wanted()) return;
    gemm_serial(m, dim, inner, T{1}, a, b, grad.mode == GradMode::add ? T{1} : T{0}, part<T>(grad.view, first, col));
  };
  write(Attention::q, queries, head.first_query, keys, {ds, keys}, k);
  write(Attention::k, keys, head.first_key, queries, {ds, keys, true}, q);
  write(Attention::v, keys, head.first_key, queries, {p, keys, true}, d_o);
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
  with_float(in[q].dtype, [&](auto zero) {
    for_heads(*this, stream, [&](const Head& head, int thread) {
      forward_head<decltype(zero)>(*this, stream, in, out, head, thread);
    });
  });
}

void Attention::backward(CpuStream& stream, std::span<const View> in, std::span<const View> out,
                         std::span<const View> dout, std::span<const Grad> din) const {
  with_float(in[q].dtype, [&](auto zero) {
    for_heads(*this, stream, [&](const Head& head, int thread) {
      backward_head<decltype(zero)>(*this, stream, in, out, dout[o], din, head, thread);
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
          attention_case({{1, 5, 4}}, 1, 3, false), attention_case({{1, 5, 4}}, 1, 3, true),
          // Heads of 64, which tensor cores take: less than a tile, and tiles with tails of 5, 2 and 5 rows.
          attention_case({{2, 1, 1}, {1, 2, 3}}, 2, 64, false), attention_case({{1, 7, 7}, {2, 6, 6}}, 1, 64, false),
          attention_case({{1, 14, 14}}, 1, 64, false), attention_case({{1, 6, 6}, {2, 1, 1}}, 2, 64, true),
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
