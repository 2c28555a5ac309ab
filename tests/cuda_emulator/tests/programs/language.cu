// What C++ on the device is made of: calls of every kind, local arrays, parameters by value, variables,
// allocation, 128-bit integers, printf and assert.
#include <sys/wait.h>
#include <unistd.h>

#include <cassert>
#include <cstddef>

#include "compare.h"

namespace {

// ---- calls ----

__host__ __device__ __noinline__ int ackermann(int m, int n) {
  return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

__host__ __device__ int is_odd(unsigned n);
__host__ __device__ __noinline__ int is_even(unsigned n) { return n == 0 ? 1 : is_odd(n - 1); }
__host__ __device__ __noinline__ int is_odd(unsigned n) { return n == 0 ? 0 : is_even(n - 1); }

struct Triple {
  char tag;
  double weight;
  short counts[3];
};

__host__ __device__ __noinline__ Triple rotate(Triple t, int by) {
  Triple r{static_cast<char>(t.tag + by), t.weight * 2 + by, {}};
  for (int i = 0; i < 3; ++i) r.counts[(i + by) % 3] = static_cast<short>(t.counts[i] - i);
  return r;
}

__host__ __device__ inline int dispatch(int op, int a, int b) {
  switch (op) {
    case 0:
      return a + b;
    case 1:
      return a - b;
    case 2:
      return a * b;
    case 3:
      return b != 0 ? a / b : 7;
    case 4:
      return a & b;
    case 5:
      return a | b;
    case 6:
      return a ^ b;
    case 7:
      return a << (b & 7);
    case 8:
      return a >> (b & 7);
    case 9:
      a += 3;  // and on
    case 10:
      return a * 11 + b;
    case 100:
      return ackermann(2, a & 3);
    case 101:
      return is_even(static_cast<unsigned>(a & 15)) * 2 + is_odd(static_cast<unsigned>(b & 15));
    default:
      return ~a;
  }
}

struct Shape {
  __host__ __device__ virtual ~Shape() {}
  __host__ __device__ virtual float area() const = 0;
  __host__ __device__ virtual int corners() const { return 0; }
};
struct Square final : Shape {
  float side;
  __host__ __device__ explicit Square(float s) : side(s) {}
  __host__ __device__ float area() const override { return side * side; }
  __host__ __device__ int corners() const override { return 4; }
};
struct Disc final : Shape {
  float radius;
  __host__ __device__ explicit Disc(float r) : radius(r) {}
  __host__ __device__ float area() const override { return 3.0f * radius * radius; }
};

__host__ __device__ inline float areas(int i) {
  const Square square(static_cast<float>(i));
  const Disc disc(static_cast<float>(i + 1));
  const Shape* shapes[2] = {&square, &disc};
  const Shape* one = shapes[i % 2];  // known at run time only
  return one->area() * 10 + static_cast<float>(one->corners());
}

using Binary = int (*)(int, int);
__host__ __device__ __noinline__ int add(int a, int b) { return a + b; }
__host__ __device__ __noinline__ int multiply(int a, int b) { return a * b; }
__host__ __device__ __noinline__ int larger(int a, int b) { return a > b ? a : b; }
__device__ Binary device_table[3] = {add, multiply, larger};

template <class... T>
__host__ __device__ auto sum_of(T... values) {
  return (values + ...);
}

template <class F>
__host__ __device__ int repeat(int n, int value, F f) {
  for (int i = 0; i < n; ++i) value = f(value, i);
  return value;
}

__host__ __device__ inline int with_lambdas(int t) {
  const int offset = t * 3;
  int calls = 0;
  const auto generic = [&](auto a, auto b) {
    ++calls;
    return static_cast<int>(a * b) + offset;
  };
  const int value = repeat(t % 5, t, [=](int v, int i) { return v * 2 + i + offset; });
  return value + generic(t, 2.5f) + generic(3u, t) + calls + sum_of(t, 1ll, 2.0f, static_cast<short>(t));
}

// Insertion sort in an array that is addressed at run time.
__host__ __device__ inline int sorted_digest(int seed) {
  int numbers[12];
  unsigned char order[12];
  for (int i = 0; i < 12; ++i) {
    numbers[i] = (seed * 7919 + i * i * 31) % 101;
    order[i] = static_cast<unsigned char>(i);
  }
  for (int i = 1; i < 12; ++i)
    for (int j = i; j > 0 && numbers[order[j]] < numbers[order[j - 1]]; --j) {
      const unsigned char swap = order[j];
      order[j] = order[j - 1];
      order[j - 1] = swap;
    }
  int digest = 0;
  for (int i = 0; i < 12; ++i) digest = digest * 31 + order[i] * numbers[order[11 - i]];
  return digest;
}

struct Large {
  int head;
  double table[150];
  unsigned char bytes[67];
  float* out;
};
static_assert(sizeof(Large) > 1200);

struct Row {
  int calls, digest, lambdas;
  float area;
  Triple triple;
  int indirect;
};

__host__ __device__ inline void fill(Row& row, int t, const Binary* table) {
  row.calls = dispatch(t % 13 == 11 ? 100 : t % 13 == 12 ? 101 : t % 13, t * 5 - 60, t % 7);
  row.digest = sorted_digest(t);
  row.lambdas = with_lambdas(t);
  row.area = areas(t);
  row.triple =
      rotate(rotate({static_cast<char>('a' + t % 20), t * 0.5, {static_cast<short>(t), 2, -3}}, t % 3), 1);
  row.indirect = table[t % 3](t, 5) + table[(t + 1) % 3](t, -2);
}

__global__ void rows(Row* out) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  fill(out[t], t, device_table);
}

void check_calls() {
  Array<Row> out(96);
  rows<<<3, 32>>>(out);
  finish("rows");
  out.fetch();
  const Binary table[3] = {add, multiply, larger};
  for (int t = 0; t < 96; ++t) {
    Row row{};
    fill(row, t, table);
    const Row& got = out.host[static_cast<std::size_t>(t)];
    EXPECT(got.calls == row.calls);
    EXPECT(got.digest == row.digest);
    EXPECT(got.lambdas == row.lambdas);
    EXPECT(got.area == row.area);
    EXPECT(got.triple.tag == row.triple.tag && got.triple.weight == row.triple.weight);
    for (int i = 0; i < 3; ++i) EXPECT(got.triple.counts[i] == row.triple.counts[i]);
    EXPECT(got.indirect == row.indirect);
  }
}

// ---- parameters and variables ----

__constant__ float weights[5] = {0.5f, -1.0f, 2.0f, 4.0f, 8.0f};
__constant__ char text[] = "constant";
__device__ int counters[4] = {10, 20, 30, 40};
__device__ int* pointer_to_counter = &counters[2];
__device__ const char* const names[] = {"zero", "one", "two"};
struct Pair {
  short key;
  double value;
};
__device__ Pair pairs[2] = {{3, 1.5}, {-4, -2.25}};

__global__ void large_by_grid_constant(const __grid_constant__ Large large, float* out) {
  const int t = static_cast<int>(threadIdx.x);
  const double* where = &large.table[t];  // the address of a parameter
  out[t] =
      static_cast<float>(*where) + static_cast<float>(large.bytes[t % 67]) + static_cast<float>(large.head);
}

__global__ void large_by_value(Large large) {
  const int t = static_cast<int>(threadIdx.x);
  large.table[t % 3] += 1;  // the thread's own copy
  large.out[t] = static_cast<float>(large.table[(t * 7) % 150] + large.bytes[66]);
}

__global__ void read_variables(float* out, Large large, char small, short medium, long long wide) {
  out[0] = weights[threadIdx.x + 2] + static_cast<float>(text[4] - 'a');
  out[1] = static_cast<float>(*pointer_to_counter + counters[3]);
  out[2] = static_cast<float>(names[threadIdx.x + 2][1] - 'a');
  out[3] = static_cast<float>(pairs[threadIdx.x].key * pairs[1].value);
  out[4] = static_cast<float>(small * medium + wide + large.bytes[1]);
  counters[0] += 5;
}

void check_variables() {
  Large large{};
  large.head = 1000;
  for (int i = 0; i < 150; ++i) large.table[i] = i * 0.25;
  for (int i = 0; i < 67; ++i) large.bytes[i] = static_cast<unsigned char>(250 - i);
  Array<float> out(128), few(5);
  large.out = out;
  large_by_grid_constant<<<1, 128>>>(large, out);
  finish("large_by_grid_constant");
  std::vector<float> expected(128);
  for (int t = 0; t < 128; ++t)
    expected[static_cast<std::size_t>(t)] =
        static_cast<float>(t * 0.25) + static_cast<float>(250 - t % 67) + 1000;
  expect_equal("a large __grid_constant__ parameter", out.fetch(), expected);
  large_by_value<<<1, 128>>>(large);
  finish("large_by_value");
  for (int t = 0; t < 128; ++t) {
    const int i = t * 7 % 150;
    expected[static_cast<std::size_t>(t)] = static_cast<float>(i * 0.25 + (i == t % 3 ? 1 : 0) + 184);
  }
  expect_equal("a large parameter by value", out.fetch(), expected);

  const float changed[2] = {16.0f, 32.0f};
  OK(cudaMemcpyToSymbol(weights, changed, sizeof changed, 2 * sizeof(float)));
  read_variables<<<1, 1>>>(few, large, 'b', -300, 1ll << 33);
  finish("read_variables");
  expect_equal(
      "variables", few.fetch(),
      {16.0f + ('t' - 'a'), 70, 'w' - 'a', 3 * -2.25f, static_cast<float>('b' * -300 + (1ll << 33) + 249)});
  int counter = 0;
  OK(cudaMemcpyFromSymbol(&counter, counters, sizeof counter));
  EXPECT(counter == 15);
}

// ---- shared memory, allocation, wide integers ----

extern __shared__ double dynamic_shared[];

__global__ void shared_arrays(double* out) {
  __shared__ int fixed[32];
  __shared__ alignas(128) unsigned char aligned[3];
  const int t = static_cast<int>(threadIdx.x);
  auto* bytes = reinterpret_cast<unsigned char*>(dynamic_shared + blockDim.x);
  fixed[t] = t * t;
  dynamic_shared[t] = t / 2.0;
  bytes[t] = static_cast<unsigned char>(200 + t);
  if (t == 0) aligned[1] = 77;
  __syncthreads();
  const int o = 31 - t;
  out[t] = fixed[o] + dynamic_shared[o] + bytes[o] + aligned[1] +
           static_cast<double>(reinterpret_cast<std::uintptr_t>(aligned) % 128) +
           static_cast<double>(reinterpret_cast<std::uintptr_t>(dynamic_shared) % 8);
}

struct Node {
  int value;
  Node* next;
};

__global__ void lists(int* out) {
  Node* head = nullptr;
  for (int i = 0; i < 5; ++i) head = new Node{static_cast<int>(threadIdx.x) + i, head};
  int* numbers = static_cast<int*>(malloc(sizeof(int) * 5));
  int count = 0;
  for (Node* n = head; n != nullptr; n = n->next) numbers[count++] = n->value;
  int digest = 0;
  for (int i = 0; i < count; ++i) digest = digest * 10 + numbers[i];
  free(numbers);
  while (head != nullptr) {
    Node* next = head->next;
    delete head;
    head = next;
  }
  out[threadIdx.x] = digest;
}

__host__ __device__ inline unsigned long long wide_digest(unsigned long long a, unsigned long long b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b,
                          sum = product + (static_cast<unsigned __int128>(b) << 61);
  const __int128 difference = static_cast<__int128>(a) - static_cast<__int128>(b);
  unsigned long long digest =
      static_cast<unsigned long long>(sum >> 64) ^ static_cast<unsigned long long>(sum);
  digest = digest * 31 + static_cast<unsigned long long>(difference >> 3) +
           static_cast<unsigned long long>(static_cast<unsigned __int128>(difference) >> 70);
  digest = digest * 31 + (sum > product) * 2 + (difference < 0);
  return digest * 31 + static_cast<unsigned long long>(product / (b | 1)) +
         static_cast<unsigned long long>(sum % (a | 3)) +
         static_cast<unsigned long long>(difference / static_cast<__int128>(1000003));
}

__global__ void wide(unsigned long long* out, const unsigned long long* in) {
  out[threadIdx.x] = wide_digest(in[threadIdx.x], in[threadIdx.x + 1]);
}

void check_memory() {
  Array<double> shared_out(32);
  shared_arrays<<<1, 32, 32 * sizeof(double) + 32>>>(shared_out);
  finish("shared_arrays");
  std::vector<double> expected(32);
  for (int t = 0; t < 32; ++t) {
    const int o = 31 - t;
    expected[static_cast<std::size_t>(t)] = o * o + o / 2.0 + static_cast<unsigned char>(200 + o) + 77;
  }
  expect_equal("shared arrays", shared_out.fetch(), expected);
  Array<int> out(40);
  lists<<<1, 40>>>(out);
  finish("lists");
  std::vector<int> digests(40);
  for (int t = 0; t < 40; ++t)
    for (int i = 4; i >= 0; --i)
      digests[static_cast<std::size_t>(t)] = digests[static_cast<std::size_t>(t)] * 10 + t + i;
  expect_equal("lists on the heap", out.fetch(), digests);

  std::vector<unsigned long long> numbers;
  for (int i = 0; i < 65; ++i)
    numbers.push_back(0x9e3779b97f4a7c15ull * static_cast<unsigned long long>(i * i + 1) >> i % 40);
  Array<unsigned long long> in(numbers), digest(64);
  wide<<<1, 64>>>(digest, in);
  finish("wide");
  std::vector<unsigned long long> wanted;
  for (std::size_t i = 0; i < 64; ++i) wanted.push_back(wide_digest(numbers[i], numbers[i + 1]));
  for (std::size_t i = 0; i < 64; ++i) EXPECT(digest.fetch()[i] == wanted[i]);
}

// ---- printf and assert ----

constexpr const char* kFormats[] = {"%d|%5d|%-6i|%05d|%+d|% d\n",    "%u %x %#X %o %#o\n",
                                    "%c%c %s [%8s] [%-7s] [%.2s]\n", "%f %.2f %10.3e %G %a\n",
                                    "%lld %llu %llx %ld\n",          "%hd %hu %% %p\n"};

__global__ void print(int* returned) {
  returned[0] = printf("%d|%5d|%-6i|%05d|%+d|% d\n", -7, 42, 99, -12, 5, 6);
  returned[1] = printf("%u %x %#X %o %#o\n", 4000000000u, 0xbeefu, 0xcafeu, 64u, 8u);
  returned[2] = printf("%c%c %s [%8s] [%-7s] [%.2s]\n", 'o', 'k', "string", "right", "left", "cut");
  returned[3] = printf("%f %.2f %10.3e %G %a\n", 1.5f, -2.345, 12345.678, 1e-10, 0.1);
  returned[4] =
      printf("%lld %llu %llx %ld\n", -9000000000000ll, 18446744073709551615ull, 0x123456789abcdefull, 77l);
  returned[5] = printf("%hd %hu %% %p\n", static_cast<short>(-3), static_cast<unsigned short>(65000),
                       reinterpret_cast<void*>(0x1234));
  returned[6] = printf("nothing\n");
}

void check_printf() {
  std::fflush(stdout);
  int ends[2];
  EXPECT(pipe(ends) == 0);
  const int saved = dup(1);
  dup2(ends[1], 1);
  Array<int> returned(7);
  print<<<1, 1>>>(returned);
  const cudaError_t ran = cudaDeviceSynchronize();
  std::fflush(stdout);
  dup2(saved, 1);
  close(saved);
  close(ends[1]);
  std::string got;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    got.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  EXPECT(ran == cudaSuccess);
  std::string expected;
  const auto add_line = [&](const char* format, auto... values) {
    std::snprintf(buffer, sizeof buffer, format, values...);
    expected += buffer;
  };
  add_line(kFormats[0], -7, 42, 99, -12, 5, 6);
  add_line(kFormats[1], 4000000000u, 0xbeefu, 0xcafeu, 64u, 8u);
  add_line(kFormats[2], 'o', 'k', "string", "right", "left", "cut");
  add_line(kFormats[3], 1.5, -2.345, 12345.678, 1e-10, 0.1);
  add_line(kFormats[4], -9000000000000ll, 18446744073709551615ull, 0x123456789abcdefull, 77l);
  add_line(kFormats[5], static_cast<short>(-3), static_cast<unsigned short>(65000),
           reinterpret_cast<void*>(0x1234));
  expected += "nothing\n";
  if (got != expected) std::printf("printed:\n%sexpected:\n%s", got.c_str(), expected.c_str());
  EXPECT(got == expected);
  expect_equal("what printf returns", returned.fetch(), {6, 5, 6, 5, 4, 3, 0});
}

__global__ void failing(int limit) { assert(static_cast<int>(threadIdx.x) < limit); }

// In a process of its own: an assertion ends the context for good.
void check_assert() {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    failing<<<1, 32>>>(32);
    bool right = cudaDeviceSynchronize() == cudaSuccess;
    failing<<<1, 32>>>(20);
    right = right && cudaDeviceSynchronize() == cudaErrorAssert;
    int* memory = nullptr;
    right = right && cudaMalloc(&memory, 4) == cudaErrorAssert && cudaGetLastError() == cudaErrorAssert &&
            cudaDeviceSynchronize() == cudaErrorAssert;
    _exit(right ? 0 : 1);
  }
  int ended = 0;
  waitpid(child, &ended, 0);
  EXPECT(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
}

}  // namespace

int main() {
  check_assert();  // before this process has anything to do with the device
  check_calls();
  check_variables();
  check_memory();
  check_printf();
  return status();
}
