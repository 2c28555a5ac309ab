#include "kernels/attention_kernels.cuh"

// Attention with one query per sequence, a product of a matrix and a vector: as long as it takes to read k
// and v once. A block owns one head of one sequence. Teams of lanes, as many as hold one row in packs, take
// the keys in turns and keep their own softmax as they go; their results are merged in a fixed order.
// Backward also writes ∂k and ∂v in that pass.
namespace dino::cuda {
inline namespace attention_cls_cu {

constexpr int kWarps = 4, kThreads = kWarps * 32;

/// How the columns of a head are spread over a team of `Lanes`: `Packs` packs of `Pack` elements each.
template <int Pack, int Lanes, int Packs>
struct Team {
  static constexpr int kElements = Pack * Packs;
  static constexpr int kTeams = kThreads / Lanes;
  static constexpr int kUnroll = Packs * Pack > 8 ? 1 : 2;  ///< keys that a team has in flight

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % Lanes; }
  static __device__ int team() { return static_cast<int>(threadIdx.x) / Lanes; }
  static __device__ int column(int pack) { return (pack * Lanes + lane()) * Pack; }

  /// The lane's elements of a row, zero behind its end.
  template <class T>
  static __device__ void load_row(float (&to)[kElements], const T* row, int head_dim, bool valid) {
#pragma unroll
    for (int i = 0; i < Packs; ++i) {
      float part[Pack] = {};
      if (valid && column(i) < head_dim) load(row + column(i), part);
#pragma unroll
      for (int e = 0; e < Pack; ++e) to[i * Pack + e] = part[e];
    }
  }

  template <class T>
  static __device__ void store_row(T* row, const float (&from)[kElements], float factor, int head_dim,
                                   bool add) {
#pragma unroll
    for (int i = 0; i < Packs; ++i) {
      float part[Pack];
#pragma unroll
      for (int e = 0; e < Pack; ++e) part[e] = from[i * Pack + e] * factor;
      if (column(i) < head_dim) store(row + column(i), part, add);
    }
  }

  static __device__ float dot(const float (&a)[kElements], const float (&b)[kElements]) {
    float sum = 0;
#pragma unroll
    for (int e = 0; e < kElements; ++e) sum += a[e] * b[e];
#pragma unroll
    for (int offset = Lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
    return sum;
  }

  /// What the teams have summed, in the first team: x becomes Σ_team x · weight. All threads must call it.
  static __device__ void merge(float (&x)[kElements], float weight) {
    __shared__ float sums[kTeams][Lanes * kElements + Lanes];  // teams of one warp write to different banks
#pragma unroll
    for (int e = 0; e < kElements; ++e) sums[team()][e * Lanes + lane()] = x[e] * weight;
    __syncthreads();
    if (team() != 0) return;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kTeams; ++i) sum += sums[i][e * Lanes + lane()];
      x[e] = sum;
    }
  }
};

template <class T, class Team>
__global__ void __launch_bounds__(kThreads) cls_forward(AttentionForward<T> task) {
  constexpr int kUnroll = Team::kUnroll;
  const BlockGroup group(task.sequences);
  const HeadPlace place(group, task.heads, group.block);
  const int head_dim = task.heads.head_dim;
  float q[Team::kElements], sums[Team::kElements] = {}, largest = -INFINITY, total = 0;
  Team::load_row(q, task.q.at(place.query, place.col), head_dim, true);
  for (int first = 0; first < place.keys; first += Team::kTeams * kUnroll) {
    float k[kUnroll][Team::kElements], v[kUnroll][Team::kElements];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int key = first + u * Team::kTeams + Team::team();
      Team::load_row(k[u], task.k.at(place.key + key, place.col), head_dim, key < place.keys);
      Team::load_row(v[u], task.v.at(place.key + key, place.col), head_dim, key < place.keys);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const float dot = Team::dot(q, k[u]);  // of all lanes, whether or not there is a key
      if (first + u * Team::kTeams + Team::team() >= place.keys) continue;
      const float score = dot * task.heads.factor, before = largest;
      largest = fmaxf(before, score);
      const float shrink = exp2f(before - largest), p = exp2f(score - largest);
      total = total * shrink + p;
#pragma unroll
      for (int e = 0; e < Team::kElements; ++e) sums[e] = sums[e] * shrink + p * v[u][e];
    }
  }
  const float highest = block_max<kThreads>(largest);
  const float weight = exp2f(largest - highest);  // zero for a team without keys
  const float sum = block_sum<kThreads>(Team::lane() == 0 ? total * weight : 0);
  Team::merge(sums, weight);
  if (Team::team() != 0) return;
  Team::store_row(task.o.at(place.query, place.col), sums, 1 / sum, head_dim, false);
  if (Team::lane() == 0) task.lse[place.query * task.heads.heads + place.head] = (highest + log2f(sum)) * kLn2;
}

template <class T, class Team>
__global__ void __launch_bounds__(kThreads) cls_backward(AttentionBackward<T> task) {
  const BlockGroup group(task.sequences);
  const HeadPlace place(group, task.heads, group.block);
  const int head_dim = task.heads.head_dim;
  float q[Team::kElements], grad_o[Team::kElements], dq[Team::kElements] = {};
  Team::load_row(dq, task.o.at(place.query, place.col), head_dim, true);
  Team::load_row(grad_o, task.grad_o.at(place.query, place.col), head_dim, true);
  Team::load_row(q, task.q.at(place.query, place.col), head_dim, true);
  const float delta = Team::dot(dq, grad_o);
  const float lse = task.lse[place.query * task.heads.heads + place.head];
#pragma unroll
  for (float& x : dq) x = 0;
  for (int first = 0; first < place.keys; first += Team::kTeams) {
    const int key = first + Team::team();
    const bool valid = key < place.keys;
    float k[Team::kElements], v[Team::kElements];
    Team::load_row(k, task.k.at(place.key + key, place.col), head_dim, valid);
    Team::load_row(v, task.v.at(place.key + key, place.col), head_dim, valid);
    const float score = Team::dot(q, k), dp = Team::dot(grad_o, v);
    if (!valid) continue;
    const float p = expf(score * task.heads.scale - lse), ds = p * (dp - delta) * task.heads.scale;
#pragma unroll
    for (int e = 0; e < Team::kElements; ++e) dq[e] += ds * k[e];
    if (task.dk.wanted())
      Team::store_row(task.dk.at(place.key + key, place.col), q, ds, head_dim, task.dk.add);
    if (task.dv.wanted())
      Team::store_row(task.dv.at(place.key + key, place.col), grad_o, p, head_dim, task.dv.add);
  }
  if (!task.dq.wanted()) return;
  Team::merge(dq, 1);
  if (Team::team() == 0)
    Team::store_row(task.dq.at(place.query, place.col), dq, 1, head_dim, task.dq.add);
}

/// Calls `f` with the smallest team that holds a row.
template <class T, class F>
void with_team(int head_dim, bool packs, const F& f) {
  constexpr int kPack = 16 / sizeof(T);
  if (!packs) return f(Team<1, 32, 8>());
  if (head_dim <= 64) return f(Team<kPack, 64 / kPack, 1>());
  f(Team<kPack, 32, 256 / 32 / kPack>());
}

/// A block for each head of each sequence.
unsigned deal_pieces(SequenceGroups& sequences, const Heads& heads) {
  return sequences.deal_blocks([&](const EqualSequences& group) { return group.count * heads.heads; });
}

}  // namespace attention_cls_cu

template <class T>
void cls_attention_forward(CudaStream& stream, AttentionForward<T> task, bool packs) {
  const unsigned blocks = deal_pieces(task.sequences, task.heads);
  with_team<T>(task.heads.head_dim, packs, [&]<class Team>(Team) {
    launch(stream, "attention of the CLS token", cls_forward<T, Team>, {blocks, kThreads}, task);
  });
}

template <class T>
void cls_attention_backward(CudaStream& stream, AttentionBackward<T> task, bool packs) {
  const unsigned blocks = deal_pieces(task.sequences, task.heads);
  with_team<T>(task.heads.head_dim, packs, [&]<class Team>(Team) {
    launch(stream, "attention of the CLS token, backward", cls_backward<T, Team>, {blocks, kThreads}, task);
  });
}

template void cls_attention_forward(CudaStream&, AttentionForward<float>, bool);
template void cls_attention_forward(CudaStream&, AttentionForward<bf16>, bool);
template void cls_attention_backward(CudaStream&, AttentionBackward<float>, bool);
template void cls_attention_backward(CudaStream&, AttentionBackward<bf16>, bool);

}  // namespace dino::cuda
