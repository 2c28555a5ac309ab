// Lanes of a warp: shuffles, votes, matches, reductions, divergence, cooperative groups below the warp, and
// lanes that wait for each other.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

#include <algorithm>

#include "compare.h"

namespace cg = cooperative_groups;

namespace {

constexpr int kWidths[] = {1, 2, 4, 8, 16, 32};

// ---- shuffles ----

__host__ __device__ inline int source_lane(int kind, int lane, int argument, int width) {
  const int first = lane & ~(width - 1);
  int from;
  switch (kind) {
    case 0:
      return first | (argument & (width - 1));
    case 1:
      from = lane - argument;
      return from < first ? lane : from;
    case 2:
      from = lane + argument;
      return from >= first + width ? lane : from;
    default:
      from = lane ^ argument;
      return from >= first + width ? lane : from;
  }
}

template <class T>
__device__ T shuffle(int kind, T value, int argument, int width) {
  switch (kind) {
    case 0:
      return __shfl_sync(~0u, value, argument, width);
    case 1:
      return __shfl_up_sync(~0u, value, static_cast<unsigned>(argument), width);
    case 2:
      return __shfl_down_sync(~0u, value, static_cast<unsigned>(argument), width);
    default:
      return __shfl_xor_sync(~0u, value, argument, width);
  }
}

template <class T>
__global__ void shuffles(T* out, int width) {
  const int lane = static_cast<int>(threadIdx.x);
  const T value = static_cast<T>(lane * 1000003ll + 17);
  for (int kind = 0; kind < 4; ++kind)
    for (int argument = 0; argument < 32; ++argument)
      out[(kind * 32 + argument) * 32 + lane] = shuffle(kind, value, argument, width);
}

// A different source per lane; sources outside of the segment wrap around.
__global__ void gather(int* out, int width) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = __shfl_sync(~0u, lane * 7, lane * 5 + 3, width);
}

template <class T>
void check_shuffles(const char* type) {
  for (const int width : kWidths) {
    Array<T> out(4 * 32 * 32);
    shuffles<T><<<1, 32>>>(out, width);
    finish("shuffles");
    std::vector<T> expected(out.host.size());
    for (int kind = 0; kind < 4; ++kind)
      for (int argument = 0; argument < 32; ++argument)
        for (int lane = 0; lane < 32; ++lane)
          expected[static_cast<std::size_t>((kind * 32 + argument) * 32 + lane)] =
              static_cast<T>(source_lane(kind, lane, argument, width) * 1000003ll + 17);
    expect_equal(std::string("shuffles of ") + type + " in segments of " + std::to_string(width), out.fetch(),
                 expected);
    Array<int> gathered(32);
    gather<<<1, 32>>>(gathered, width);
    finish("gather");
    std::vector<int> from(32);
    for (int lane = 0; lane < 32; ++lane)
      from[static_cast<std::size_t>(lane)] = 7 * source_lane(0, lane, lane * 5 + 3, width);
    expect_equal("gathering shuffles", gathered.fetch(), from);
  }
}

// ---- votes, matches, reductions, in groups of lanes that are apart by divergence ----

constexpr int kVotes = 16;

__device__ void vote_all(unsigned* out, unsigned mask, int lane, int value) {
  const auto put = [&](int slot, unsigned what) { out[slot * 32 + lane] = what; };
  put(0, __ballot_sync(mask, value > 2));
  put(1, static_cast<unsigned>(__any_sync(mask, value == 5)));
  put(2, static_cast<unsigned>(__all_sync(mask, value < 7)));
  put(3, __match_any_sync(mask, value));
  int agree = 7;
  put(4, __match_all_sync(mask, value, &agree));
  put(5, static_cast<unsigned>(agree));
  put(6, __match_any_sync(mask, value * 0x100000001ull));
  put(7, __match_all_sync(mask, 3.5, &agree) + static_cast<unsigned>(agree != 0));
  put(8, __reduce_add_sync(mask, static_cast<unsigned>(value)));
  put(9, static_cast<unsigned>(__reduce_add_sync(mask, -value)));
  put(10, static_cast<unsigned>(__reduce_min_sync(mask, value - 3)));
  put(11, static_cast<unsigned>(__reduce_max_sync(mask, value - 3)));
  put(12, __reduce_max_sync(mask, static_cast<unsigned>(value - 3)));
  put(13, __reduce_and_sync(mask, static_cast<unsigned>(value) | 0x100u));
  put(14, __reduce_or_sync(mask, 1u << lane));
  put(15, __reduce_xor_sync(mask, static_cast<unsigned>(value) << lane % 8));
}

__global__ void votes(unsigned* out, const int* values, const int* group) {
  const int lane = static_cast<int>(threadIdx.x), mine = group[lane];
  unsigned mask = 0;
  for (int g = 0; g < 4; ++g) {
    const unsigned of_group = __ballot_sync(~0u, mine == g);
    mask = mine == g ? of_group : mask;
  }
  if (mine == 0)
    vote_all(out, mask, lane, values[lane]);
  else if (mine == 1)
    vote_all(out, mask, lane, values[lane]);
  else
    vote_all(out, mask, lane, values[lane]);  // two groups, each with a mask of its own, in one instruction
}

void check_votes() {
  for (int round = 0; round < 4; ++round) {
    std::vector<int> values(32), group(32);
    for (int lane = 0; lane < 32; ++lane) {
      values[static_cast<std::size_t>(lane)] = round == 1 ? 5 : (lane * 13 + round) % 8;
      group[static_cast<std::size_t>(lane)] = round == 0 ? 0 : (lane * 11 / 3 + round) % 4;
    }
    Array<int> device_values(values), device_group(group);
    Array<unsigned> out(kVotes * 32);
    votes<<<1, 32>>>(out, device_values, device_group);
    finish("votes");
    std::vector<unsigned> expected(kVotes * 32);
    for (int lane = 0; lane < 32; ++lane) {
      unsigned mask = 0, ballot = 0, equal = 0, sum = 0, most_unsigned = 0, conjunction = ~0u, exclusive = 0;
      int least = 100, most = -100;
      bool any = false, all = true, alike = true;
      for (int other = 0; other < 32; ++other) {
        if (group[other] != group[lane]) continue;
        const int v = values[other];
        mask |= 1u << other;
        ballot |= static_cast<unsigned>(v > 2) << other;
        equal |= static_cast<unsigned>(v == values[lane]) << other;
        any = any || v == 5;
        all = all && v < 7;
        alike = alike && v == values[lane];
        sum += static_cast<unsigned>(v);
        least = std::min(least, v - 3);
        most = std::max(most, v - 3);
        most_unsigned = std::max(most_unsigned, static_cast<unsigned>(v - 3));
        conjunction &= static_cast<unsigned>(v) | 0x100u;
        exclusive ^= static_cast<unsigned>(v) << other % 8;
      }
      const unsigned row[kVotes] = {ballot,
                                    any,
                                    all,
                                    equal,
                                    alike ? mask : 0,
                                    alike,
                                    equal,
                                    mask + 1,
                                    sum,
                                    0 - sum,
                                    static_cast<unsigned>(least),
                                    static_cast<unsigned>(most),
                                    most_unsigned,
                                    conjunction,
                                    mask,
                                    exclusive};
      for (int slot = 0; slot < kVotes; ++slot)
        expected[static_cast<std::size_t>(slot * 32 + lane)] = row[slot];
    }
    expect_equal("votes, round " + std::to_string(round), out.fetch(), expected);
  }
}

// ---- divergence ----

__host__ __device__ inline int wander(int lane) {
  int steps = 0;
  for (int n = lane + 1; n != 1; n = n % 2 == 0 ? n / 2 : 3 * n + 1) {
    ++steps;
    if (n % 5 == 0) {
      for (int k = 0; k < n % 7; ++k) {
        if (k == 3) continue;
        steps += k & lane;
        if (steps > 400) break;
      }
    } else {
      switch (n % 6) {
        case 0:
          steps += 2;
          break;
        case 1:
          steps += lane % 3;  // and on
        case 2:
          steps ^= 1;
          break;
        case 4:
          if (lane % 4 == 1) steps += 5;
          break;
        default:
          break;
      }
    }
  }
  return steps;
}

__global__ void divergence(int* out, unsigned* active, int* left) {
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  out[t] = wander(t);
  if (lane % 3 == 1) active[t] = __activemask();  // some of the lanes that come here, and this one
  __syncwarp();
  if (lane >= 20) return;
  const unsigned mask = (1u << 20) - 1;
  int sum = lane;
  for (int step = 1; step < 20; step *= 2) {
    const int below = __shfl_up_sync(mask, sum, static_cast<unsigned>(step));
    if (lane >= step) sum += below;
  }
  left[t / 32 * 20 + lane] = sum;
}

void check_divergence() {
  Array<int> out(64), left(40);
  Array<unsigned> active(64);
  divergence<<<1, 64>>>(out, active, left);
  finish("divergence");
  std::vector<int> expected(64), sums(40);
  for (int t = 0; t < 64; ++t) expected[static_cast<std::size_t>(t)] = wander(t);
  for (int i = 0; i < 40; ++i) sums[static_cast<std::size_t>(i)] = i % 20 * (i % 20 + 1) / 2;
  expect_equal("divergent loops", out.fetch(), expected);
  expect_equal("a scan of the lanes that are left", left.fetch(), sums);
  active.fetch();
  for (int t = 0; t < 64; ++t) {
    if (t % 32 % 3 != 1) continue;
    unsigned may = 0;
    for (int lane = 1; lane < 32; lane += 3) may |= 1u << lane;
    EXPECT((active.host[t] & ~may) == 0 && (active.host[t] >> t % 32 & 1) == 1);
  }
}

// ---- groups of lanes ----

template <int Size>
__global__ void tiles(int* out) {
  const auto tile = cg::tiled_partition<Size>(cg::this_thread_block());
  const int t = static_cast<int>(threadIdx.x), rank = static_cast<int>(tile.thread_rank());
  int* row = out + t * 8;
  row[0] = rank;
  row[1] = static_cast<int>(tile.meta_group_rank());
  row[2] = tile.shfl_down(t, 1);
  row[3] = tile.shfl(t, Size - 1);
  row[4] = static_cast<int>(tile.ballot(t % 3 == 0));
  row[5] = cg::reduce(tile, t, cg::plus<int>());
  row[6] = cg::inclusive_scan(tile, t);
  row[7] = cg::exclusive_scan(tile, t, [](int a, int b) { return a > b ? a : b; });
}

template <int Size>
void check_tiles() {
  Array<int> out(96 * 8);
  tiles<Size><<<1, 96>>>(out);
  finish("tiles");
  std::vector<int> expected;
  for (int t = 0; t < 96; ++t) {
    const int first = t / Size * Size;
    int ballot = 0, sum = 0, up_to = 0;
    for (int i = 0; i < Size; ++i) {
      ballot |= ((first + i) % 3 == 0) << i;
      sum += first + i;
      if (first + i <= t) up_to += first + i;
    }
    const int row[8] = {t % Size,
                        t / Size,
                        t % Size == Size - 1 ? t : t + 1,
                        first + Size - 1,
                        ballot,
                        sum,
                        up_to,
                        t == first ? 0 : t - 1};
    expected.insert(expected.end(), row, row + 8);
  }
  // The first value of an exclusive scan with a functor of one's own is undefined.
  out.fetch();
  for (int t = 0; t < 96; t += Size) out.host[static_cast<std::size_t>(t * 8 + 7)] = 0;
  expect_equal("tiles of " + std::to_string(Size), out.host, expected);
}

__global__ void partitions(int* out, int* counters) {
  const int t = static_cast<int>(threadIdx.x), label = t * t % 7 % 4;
  const auto warp = cg::tiled_partition<32>(cg::this_thread_block());
  const auto alike = cg::labeled_partition(warp, label);
  int* row = out + t * 6;
  row[0] = static_cast<int>(alike.size());
  row[1] = cg::reduce(alike, t, cg::plus<int>());
  row[2] = alike.shfl(t, 0);
  const auto half = cg::binary_partition(warp, t % 5 < 2);
  row[3] = cg::reduce(half, t, cg::greater<int>());
  row[4] = static_cast<int>(half.thread_rank());
  row[5] = -1;
  if (label != 2) {
    // One atomic for all lanes that are here, whoever they are.
    const auto here = cg::coalesced_threads();
    int first = 0;
    if (here.thread_rank() == 0) first = atomicAdd(&counters[0], static_cast<int>(here.size()));
    row[5] = here.shfl(first, 0) + static_cast<int>(here.thread_rank());
  }
}

void check_partitions() {
  Array<int> out(64 * 6), counters(1);
  partitions<<<1, 64>>>(out, counters);
  finish("partitions");
  out.fetch();
  std::vector<int> places, got, expected;
  for (int t = 0; t < 64; ++t) {
    const auto label = [](int x) { return x * x % 7 % 4; };
    int size = 0, sum = 0, first = -1, most = -1, rank = 0;
    for (int o = t / 32 * 32; o < t / 32 * 32 + 32; ++o) {
      if (label(o) == label(t)) ++size, sum += o, first = first < 0 ? o : first;
      if ((o % 5 < 2) == (t % 5 < 2)) most = o, rank += o < t;
    }
    for (const int value : {size, sum, first, most, rank}) expected.push_back(value);
    got.insert(got.end(), out.host.begin() + t * 6, out.host.begin() + t * 6 + 5);
    if (label(t) != 2) places.push_back(out.host[static_cast<std::size_t>(t * 6 + 5)]);
  }
  expect_equal("partitions by label", got, expected);
  std::sort(places.begin(), places.end());
  std::vector<int> all(places.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
  expect_equal("places from aggregated atomics", places, all);
  EXPECT(counters.fetch()[0] == static_cast<int>(places.size()));
}

// ---- lanes that wait for each other ----

__device__ int lock_word, guarded, order_seen[32];
__device__ volatile int turn;

__global__ void lanes_lock() {
  while (atomicCAS(&lock_word, 0, 1) != 0) {
  }
  __threadfence();
  const int place = guarded;
  guarded = place + 1;
  order_seen[place] = static_cast<int>(threadIdx.x);
  __threadfence();
  atomicExch(&lock_word, 0);
}

__global__ void lanes_try_lock() {
  for (bool done = false; !done;) {
    if (atomicCAS(&lock_word, 0, 1) == 0) {
      __threadfence();
      guarded = guarded + 1;
      __threadfence();
      atomicExch(&lock_word, 0);
      done = true;
    }
  }
}

// Lane 31 begins; each lane waits for the one above it.
__global__ void lanes_in_turn(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  while (turn != 31 - lane) __nanosleep(20);
  out[31 - lane] = lane;
  __threadfence();
  turn = turn + 1;
}

void check_waiting() {
  lanes_lock<<<1, 32>>>();
  finish("lanes_lock");
  int count = 0, seen[32];
  OK(cudaMemcpyFromSymbol(&count, guarded, sizeof count));
  OK(cudaMemcpyFromSymbol(seen, order_seen, sizeof seen));
  EXPECT(count == 32);
  std::sort(seen, seen + 32);
  for (int i = 0; i < 32; ++i) EXPECT(seen[i] == i);
  lanes_try_lock<<<2, 40>>>();
  finish("lanes_try_lock");
  OK(cudaMemcpyFromSymbol(&count, guarded, sizeof count));
  EXPECT(count == 32 + 2 * 40);
  Array<int> out(32);
  lanes_in_turn<<<1, 32>>>(out);
  finish("lanes_in_turn");
  std::vector<int> expected(32);
  for (int i = 0; i < 32; ++i) expected[static_cast<std::size_t>(i)] = 31 - i;
  expect_equal("lanes in turn", out.fetch(), expected);
}

}  // namespace

int main() {
  check_shuffles<int>("int");
  check_shuffles<unsigned long long>("unsigned long long");
  check_shuffles<float>("float");
  check_shuffles<double>("double");
  check_votes();
  check_divergence();
  check_tiles<1>();
  check_tiles<2>();
  check_tiles<4>();
  check_tiles<8>();
  check_tiles<16>();
  check_tiles<32>();
  check_partitions();
  check_waiting();
  return status();
}
