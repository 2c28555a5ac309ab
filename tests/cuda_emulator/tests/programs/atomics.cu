// Every atomic operation on every type, in shared and global memory and in all scopes, and cuda::atomic_ref
// with its orders. Final values do not depend on the order of threads; what the operations return is checked
// as a set.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cuda/atomic>

#include <algorithm>

#include "compare.h"

namespace {

constexpr int kThreads = 96, kBlocks = 3, kCells = 12;
enum class Scope { device, block, system };

#define SCOPED(name, ...)                  \
  [&] {                                    \
    if constexpr (S == Scope::block)       \
      return name##_block(__VA_ARGS__);    \
    else if constexpr (S == Scope::system) \
      return name##_system(__VA_ARGS__);   \
    else                                   \
      return name(__VA_ARGS__);            \
  }()

// ---- integers ----

template <class T>
__host__ __device__ T value_of(int t) {
  return static_cast<T>(static_cast<long long>(t % 29 - 14) * 1000003);
}

template <class T, Scope S>
__device__ void operate(T* cells, T* returned, int t) {
  const T value = value_of<T>(t);
  if constexpr (!std::is_same<T, long long>::value) {
    returned[0] = SCOPED(atomicAdd, &cells[0], T(1));
    SCOPED(atomicAdd, &cells[1], value);
    returned[1] = SCOPED(atomicExch, &cells[7], static_cast<T>(t + 1));
  }
  SCOPED(atomicMin, &cells[2], value);
  SCOPED(atomicMax, &cells[3], value);
  SCOPED(atomicAnd, &cells[4], static_cast<T>(~(T(1) << t % 29)));
  SCOPED(atomicOr, &cells[5], static_cast<T>(T(1) << t % 23));
  SCOPED(atomicXor, &cells[6], value);
  if constexpr (sizeof(T) == 4) SCOPED(atomicSub, &cells[8], value);
  if constexpr (std::is_same<T, unsigned>::value) {
    returned[2] = SCOPED(atomicInc, &cells[9], 10u);
    returned[3] = SCOPED(atomicDec, &cells[10], 6u);
  }
  if constexpr (!std::is_same<T, long long>::value) {
    for (T seen = SCOPED(atomicOr, &cells[11], T(0)), expected = ~seen; seen != expected;) {
      expected = seen;
      seen = SCOPED(atomicCAS, &cells[11], expected, static_cast<T>(expected + value * 2));
    }
  }
}

template <class T>
__host__ __device__ T initial(int cell) {
  return cell == 4 ? static_cast<T>(-1) : cell == 10 ? T(2) : T(0);
}

// Cells of the block in shared or global memory, or, in global memory and for wider scopes, cells of the
// whole grid.
template <class T, Scope S, bool Shared>
__global__ void integers(T* cells, T* returned) {
  __shared__ T tile[kCells];
  const int t = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x),
            all = block * kThreads + t;
  const bool one_set = !Shared && S != Scope::block;
  T* own = cells + (one_set ? 0 : block * kCells);
  if (Shared) {
    if (t < kCells) tile[t] = initial<T>(t);
    __syncthreads();
  }
  operate<T, S>(Shared ? tile : own, returned + 4 * all, all);
  if (Shared) {
    __syncthreads();
    if (t < kCells) own[t] = tile[t];
  }
}

template <class T, Scope S, bool Shared>
void check_integers(const std::string& type) {
  std::vector<T> start;
  for (int i = 0; i < kBlocks * kCells; ++i) start.push_back(initial<T>(i % kCells));
  Array<T> cells(start), returned(4 * kBlocks * kThreads);
  integers<T, S, Shared><<<kBlocks, kThreads>>>(cells, returned);
  finish("integers");
  cells.fetch(), returned.fetch();
  const std::string what = "atomics on " + type + (Shared ? ", shared" : ", global") +
                           (S == Scope::block    ? ", block"
                            : S == Scope::system ? ", system"
                                                 : "");
  const int sets = Shared || S == Scope::block ? kBlocks : 1, threads = kThreads * kBlocks / sets;
  for (int s = 0; s < sets; ++s) {
    std::vector<T> e(start.begin(), start.begin() + kCells), added, counted, left, counted_down, exchanged,
        stored{T(0)};
    for (int i = 0; i < threads; ++i) {
      const int t = s * threads + i;
      const T v = value_of<T>(t);
      e[1] += v, e[6] ^= v, e[8] -= v, e[11] += v * 2;
      e[2] = std::min(e[2], v), e[3] = std::max(e[3], v);
      e[4] &= static_cast<T>(~(T(1) << t % 29)), e[5] |= static_cast<T>(T(1) << t % 23);
      e[9] = static_cast<T>(i + 1) % 11;
      added.push_back(returned.host[static_cast<std::size_t>(4 * t)]);
      exchanged.push_back(returned.host[static_cast<std::size_t>(4 * t + 1)]);
      counted.push_back(returned.host[static_cast<std::size_t>(4 * t + 2)]);
      left.push_back(returned.host[static_cast<std::size_t>(4 * t + 3)]);
      stored.push_back(static_cast<T>(t + 1));
    }
    e[0] = static_cast<T>(threads);
    std::vector<T> got(cells.host.begin() + s * kCells, cells.host.begin() + (s + 1) * kCells), ranks, turns,
        downs;
    exchanged.push_back(got[7]);
    e[7] = got[7];
    if (sizeof(T) != 4) e[8] = 0;
    if (!std::is_same<T, unsigned>::value) e[9] = 0;
    if (std::is_same<T, long long>::value) e[0] = e[1] = e[11] = 0;
    T down = 2;
    for (int i = 0; i < threads; ++i) {
      ranks.push_back(static_cast<T>(i));
      turns.push_back(static_cast<T>(i % 11));
      downs.push_back(down);
      down = down == 0 || down > 6 ? 6 : down - 1;
    }
    if (std::is_same<T, unsigned>::value) e[10] = down;
    expect_equal(what, got, e);
    const auto as_set = [&](std::vector<T> a, std::vector<T> b, const char* operation) {
      std::sort(a.begin(), a.end());
      std::sort(b.begin(), b.end());
      expect_equal(what + ", what " + operation + " returns", a, b);
    };
    if (!std::is_same<T, long long>::value) {
      as_set(added, ranks, "add");
      as_set(exchanged, stored, "exchange");
    }
    if (std::is_same<T, unsigned>::value) {
      as_set(counted, turns, "inc");
      as_set(left, downs, "dec");
    }
  }
}

template <class T>
void check_integer_type(const char* type) {
  check_integers<T, Scope::device, false>(type);
  check_integers<T, Scope::device, true>(type);
  check_integers<T, Scope::block, false>(type);
  check_integers<T, Scope::block, true>(type);
  check_integers<T, Scope::system, false>(type);
  check_integers<T, Scope::system, true>(type);
}

// ---- floating point: sums of small whole numbers are exact ----

struct Sums {
  float f, f_block, f_system, exchanged, f2[2];
  double d, d_block;
  alignas(16) float f4[4];
  __half h;
  __nv_bfloat16 b;
  __half2 h2;
  __nv_bfloat162 b2;
  unsigned short word;
};

template <bool Shared>
__global__ void floats(Sums* out, float* returned) {
  __shared__ Sums tile;
  Sums& sums = Shared ? tile : *out;
  const int t = static_cast<int>(threadIdx.x);
  if (Shared) {
    for (int i = t; i < static_cast<int>(sizeof(Sums) / 4); i += kThreads)
      reinterpret_cast<int*>(&tile)[i] = 0;
    __syncthreads();
  }
  const float v = static_cast<float>(t % 7) - 2;
  returned[t] = atomicAdd(&sums.f, 1.0f);
  atomicAdd_block(&sums.f_block, v);
  atomicAdd_system(&sums.f_system, v * 0.5f);
  atomicExch(&sums.exchanged, 4.5f);
  atomicAdd(&sums.d, v * 0.125);
  atomicAdd_block(&sums.d_block, 1e-3);
  atomicAdd(&sums.h, __float2half(v));
  atomicAdd(&sums.h2, __floats2half2_rn(v, 1.0f));
#if __CUDA_ARCH__ >= 900
  atomicAdd(&sums.b, __float2bfloat16(v));
  atomicAdd(&sums.b2, __floats2bfloat162_rn(1.0f, v));
#else
  // cuda_bf16.hpp reads these without an atomic before it tries to exchange them, which is a race: one thread
  // after the other.
  for (int turn = 0; turn < kThreads; ++turn) {
    if (turn == t) {
      atomicAdd(&sums.b, __float2bfloat16(v));
      atomicAdd(&sums.b2, __floats2bfloat162_rn(1.0f, v));
    }
    __syncthreads();
  }
#endif
  for (unsigned short seen = 0, expected = 1; seen != expected;) {
    expected = seen;
    seen = atomicCAS(&sums.word, expected, static_cast<unsigned short>(expected + 3));
  }
#if __CUDA_ARCH__ >= 900
  if (!Shared) {
    atomicAdd(reinterpret_cast<float2*>(sums.f2), float2{v, 1.0f});
    const float4 before = atomicAdd(reinterpret_cast<float4*>(sums.f4), float4{1.0f, v, 2.0f, -v});
    if (before.z != 2 * before.x)
      sums.exchanged = -1;  // a warp's lanes come one after the other, each element by itself
  } else
#endif
  {
    for (int i = 0; i < 2; ++i) atomicAdd(&sums.f2[i], i == 0 ? v : 1.0f);
    for (int i = 0; i < 4; ++i) atomicAdd(&sums.f4[i], i == 0 ? 1.0f : i == 1 ? v : i == 2 ? 2.0f : -v);
  }
  if (Shared) {
    __syncthreads();
    if (t == 0) *out = tile;
  }
}

template <bool Shared>
void check_floats() {
  Array<Sums> out(std::vector<Sums>(1, Sums{}));
  Array<float> returned(kThreads);
  floats<Shared><<<1, kThreads>>>(out, returned);
  finish("floats");
  const Sums got = out.fetch()[0];
  float sum = 0;
  double small = 0;
  for (int t = 0; t < kThreads; ++t) sum += static_cast<float>(t % 7 - 2), small += 1e-3;
  EXPECT(got.f == kThreads);
  EXPECT(got.f_block == sum);
  EXPECT(got.f_system == sum / 2);
  EXPECT(got.exchanged == 4.5f);
  EXPECT(got.d == sum * 0.125);
  EXPECT(got.d_block == small);
  EXPECT(__half2float(got.h) == sum);
  EXPECT(__bfloat162float(got.b) == sum);
  EXPECT(__low2float(got.h2) == sum && __high2float(got.h2) == kThreads);
  EXPECT(__low2float(got.b2) == kThreads && __high2float(got.b2) == sum);
  EXPECT(got.word == 3 * kThreads);
  EXPECT(got.f2[0] == sum && got.f2[1] == kThreads);
  EXPECT(got.f4[0] == kThreads && got.f4[1] == sum && got.f4[2] == 2 * kThreads && got.f4[3] == -sum);
  std::vector<float> ranks(kThreads);
  for (int t = 0; t < kThreads; ++t) ranks[static_cast<std::size_t>(t)] = static_cast<float>(t);
  returned.fetch();
  std::sort(returned.host.begin(), returned.host.end());
  expect_equal("what atomicAdd of floats returns", returned.host, ranks);
}

// ---- cuda::atomic_ref ----

template <class T, cuda::thread_scope Scope>
__global__ void references(T* cells) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  using Ref = cuda::atomic_ref<T, Scope>;
  Ref(cells[0]).fetch_add(T(1), cuda::std::memory_order_relaxed);
  Ref(cells[1]).fetch_sub(T(2), cuda::std::memory_order_acq_rel);
  Ref(cells[2]).fetch_max(static_cast<T>(t), cuda::std::memory_order_seq_cst);
  Ref(cells[3]).fetch_min(static_cast<T>(-t), cuda::std::memory_order_release);
  Ref fourth(cells[4]);
  T seen = fourth.load(cuda::std::memory_order_acquire);
  while (!fourth.compare_exchange_weak(seen, static_cast<T>(seen + 5), cuda::std::memory_order_acq_rel)) {
  }
  Ref fifth(cells[5]);
  if (t == 7) fifth.store(T(11), cuda::std::memory_order_release);
  T zero = 0;
  if (t == 8) Ref(cells[6]).compare_exchange_strong(zero, T(13), cuda::std::memory_order_seq_cst);
  if (t == 9) Ref(cells[7]).exchange(T(17), cuda::std::memory_order_acquire);
}

template <class T, cuda::thread_scope Scope, int Blocks>
void check_references(const char* type) {
  Array<T> cells(8);
  references<T, Scope><<<Blocks, 64>>>(cells);
  finish(type);
  const int n = 64 * Blocks;
  expect_equal(std::string("cuda::atomic_ref of ") + type, cells.fetch(),
               {static_cast<T>(n), static_cast<T>(-2 * n), static_cast<T>(n - 1), static_cast<T>(1 - n),
                static_cast<T>(5 * n), T(11), T(13), T(17)});
}

__device__ int message[64], flag;
__device__ alignas(4) unsigned char small_counters[8];  // atomics on bytes work on the word around them

// The first block to come writes a message, the second reads it once the flag says so.
__global__ void message_passing(int* out, unsigned* ticket) {
  __shared__ unsigned role;
  if (threadIdx.x == 0) role = atomicAdd(ticket, 1);
  __syncthreads();
  cuda::atomic_ref<int, cuda::thread_scope_device> ready(flag);
  const int t = static_cast<int>(threadIdx.x);
  if (role == 0) {
    message[t] = t * t;
    __syncthreads();
    if (t == 0) ready.store(1, cuda::std::memory_order_release);
  } else {
    while (ready.load(cuda::std::memory_order_acquire) == 0) __nanosleep(50);
    out[t] = message[63 - t];
  }
  cuda::atomic_ref<unsigned char, cuda::thread_scope_device>(small_counters[t % 5])
      .fetch_add(1, cuda::std::memory_order_relaxed);
}

void check_messages() {
  Array<int> out(64);
  Array<unsigned> ticket(1);
  message_passing<<<2, 64>>>(out, ticket);
  finish("message_passing");
  std::vector<int> expected(64);
  for (int t = 0; t < 64; ++t) expected[static_cast<std::size_t>(t)] = (63 - t) * (63 - t);
  expect_equal("a message", out.fetch(), expected);
  unsigned char counts[8];
  OK(cudaMemcpyFromSymbol(counts, small_counters, sizeof counts));
  for (int i = 0; i < 5; ++i) EXPECT(counts[i] == 2 * (i < 4 ? 13 : 12));
}

}  // namespace

int main() {
  check_integer_type<int>("int");
  check_integer_type<unsigned>("unsigned");
  check_integer_type<long long>("long long");
  check_integer_type<unsigned long long>("unsigned long long");
  check_floats<false>();
  check_floats<true>();
  check_references<int, cuda::thread_scope_device, 3>("int");
  check_references<long long, cuda::thread_scope_system, 3>("long long");
  check_references<short, cuda::thread_scope_block, 1>("short");
  check_references<float, cuda::thread_scope_device, 3>("float");
  check_references<double, cuda::thread_scope_block, 1>("double");
  check_messages();
  return status();
}
