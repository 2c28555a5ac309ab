// CUB and Thrust, whose kernels nobody here wrote, against the algorithms of the standard library.
#include <thrust/device_vector.h>
#include <thrust/execution_policy.h>
#include <thrust/functional.h>
#include <thrust/iterator/constant_iterator.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sort.h>
#include <thrust/transform.h>
#include <cub/cub.cuh>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "compare.h"

namespace {

constexpr int kThreads = 128, kItems = 4;

struct BlockStorage {
  union {
    typename cub::BlockReduce<int, kThreads>::TempStorage reduce;
    typename cub::BlockScan<int, kThreads>::TempStorage scan;
    typename cub::BlockRadixSort<unsigned, kThreads, kItems, int>::TempStorage sort;
    typename cub::BlockExchange<int, kThreads, kItems>::TempStorage exchange;
  };
};

__global__ void block_algorithms(unsigned* keys, int* values, int* scanned, int* reduced, const int* in) {
  __shared__ BlockStorage storage;
  const int t = static_cast<int>(threadIdx.x);
  unsigned key[kItems];
  int value[kItems], sum[kItems];
  for (int i = 0; i < kItems; ++i) {
    value[i] = in[t * kItems + i];
    key[i] = static_cast<unsigned>(value[i] * 7919);
  }
  const int total = cub::BlockReduce<int, kThreads>(storage.reduce).Sum(value);
  __syncthreads();
  const int most = cub::BlockReduce<int, kThreads>(storage.reduce).Reduce(value[0], cuda::maximum<>{});
  __syncthreads();
  if (t == 0) reduced[0] = total, reduced[1] = most;
  int all = 0;
  cub::BlockScan<int, kThreads>(storage.scan).ExclusiveSum(value, sum, all);
  __syncthreads();
  for (int i = 0; i < kItems; ++i) scanned[t * kItems + i] = sum[i] + (all != total && t == 0 ? 1 : 0);
  cub::BlockRadixSort<unsigned, kThreads, kItems, int>(storage.sort).Sort(key, value);
  __syncthreads();
  cub::BlockExchange<int, kThreads, kItems>(storage.exchange).BlockedToStriped(value, value);
  for (int i = 0; i < kItems; ++i) {
    keys[t * kItems + i] = key[i];
    values[t + i * kThreads] = value[i];
  }
}

std::vector<int> numbers(int n, int range, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<int> values(static_cast<std::size_t>(n));
  for (int& value : values) value = static_cast<int>(random() % static_cast<unsigned>(range)) - range / 2;
  return values;
}

void check_blocks() {
  constexpr int kN = kThreads * kItems;
  Array<int> in(numbers(kN, 1000)), values(kN), scanned(kN), reduced(2);
  Array<unsigned> keys(kN);
  block_algorithms<<<1, kThreads>>>(keys, values, scanned, reduced, in);
  finish("block_algorithms");
  std::vector<std::pair<unsigned, int>> sorted;
  std::vector<int> sums(kN);
  for (const int value : in.host) sorted.emplace_back(static_cast<unsigned>(value * 7919), value);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::exclusive_scan(in.host.begin(), in.host.end(), sums.begin(), 0);
  expect_equal("BlockScan", scanned.fetch(), sums);
  keys.fetch(), values.fetch();
  for (std::size_t i = 0; i < kN; ++i)
    EXPECT(keys.host[i] == sorted[i].first && values.host[i] == sorted[i].second);
  int most = in.host[0];
  for (std::size_t i = 0; i < kN; i += kItems) most = std::max(most, in.host[i]);
  expect_equal("BlockReduce", reduced.fetch(), {std::accumulate(in.host.begin(), in.host.end(), 0), most});
}

// Device-wide calls ask for their temporary memory first.
template <class F>
void run(const char* what, F call) {
  void* memory = nullptr;
  std::size_t bytes = 0;
  OK(call(memory, bytes));
  OK(cudaMalloc(&memory, bytes));
  OK(call(memory, bytes));
  finish(what);
  OK(cudaFree(memory));
}

struct Even {
  __host__ __device__ bool operator()(int a) const { return a % 2 == 0; }
};

void check_device(int n) {
  const auto size = static_cast<std::size_t>(n);
  Array<int> in(numbers(n, 500)), out(size), values(numbers(n, 1 << 30, 2)), values_out(size), one(1);
  const int* from = in;
  int *to = out, *result = one;
  run("DeviceReduce::Sum",
      [&](void* m, std::size_t& b) { return cub::DeviceReduce::Sum(m, b, from, result, n); });
  expect_equal("DeviceReduce::Sum", one.fetch(), {std::accumulate(in.host.begin(), in.host.end(), 0)});
  run("DeviceReduce::Min",
      [&](void* m, std::size_t& b) { return cub::DeviceReduce::Min(m, b, from, result, n); });
  expect_equal("DeviceReduce::Min", one.fetch(), {*std::min_element(in.host.begin(), in.host.end())});

  std::vector<int> expected(size);
  std::exclusive_scan(in.host.begin(), in.host.end(), expected.begin(), 0);
  run("DeviceScan::ExclusiveSum",
      [&](void* m, std::size_t& b) { return cub::DeviceScan::ExclusiveSum(m, b, from, to, n); });
  expect_equal("DeviceScan::ExclusiveSum", out.fetch(), expected);

  int* values_to = values_out;
  const int* values_from = values;
  run("DeviceRadixSort::SortPairs", [&](void* m, std::size_t& b) {
    return cub::DeviceRadixSort::SortPairs(m, b, from, to, values_from, values_to, n);
  });
  std::vector<int> order(size), sorted(size), carried(size);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return in.host[static_cast<std::size_t>(a)] < in.host[static_cast<std::size_t>(b)];
  });
  for (std::size_t i = 0; i < size; ++i) {
    sorted[i] = in.host[static_cast<std::size_t>(order[i])];
    carried[i] = values.host[static_cast<std::size_t>(order[i])];
  }
  expect_equal("DeviceRadixSort, keys", out.fetch(), sorted);
  expect_equal("DeviceRadixSort, values", values_out.fetch(), carried);

  run("DeviceSelect::If",
      [&](void* m, std::size_t& b) { return cub::DeviceSelect::If(m, b, from, to, result, n, Even{}); });
  std::vector<int> selected;
  std::copy_if(in.host.begin(), in.host.end(), std::back_inserter(selected), Even{});
  expect_equal("DeviceSelect, count", one.fetch(), {static_cast<int>(selected.size())});
  out.fetch();
  expect_equal(
      "DeviceSelect",
      std::vector<int>(out.host.begin(), out.host.begin() + static_cast<std::ptrdiff_t>(selected.size())),
      selected);

  constexpr int kBins = 10;
  Array<int> bins(kBins);
  int* counts = bins;
  run("DeviceHistogram", [&](void* m, std::size_t& b) {
    return cub::DeviceHistogram::HistogramEven(m, b, from, counts, kBins + 1, -250, 250, n);
  });
  std::vector<int> histogram(kBins);
  for (const int value : in.host) ++histogram[static_cast<std::size_t>((value + 250) / 50)];
  expect_equal("DeviceHistogram", bins.fetch(), histogram);
}

template <class T>
std::vector<T> host_copy(const thrust::device_vector<T>& values) {
  std::vector<T> copy(values.size());
  thrust::copy(values.begin(), values.end(), copy.begin());
  return copy;
}

struct Affine {
  float scale;
  __host__ __device__ float operator()(float a, int b) const { return a * scale + static_cast<float>(b); }
};

void check_thrust(int n) {
  const std::vector<int> keys = numbers(n, 40, 3);
  std::vector<float> numbers_of_keys(keys.begin(), keys.end());
  thrust::device_vector<int> device_keys(keys.begin(), keys.end()), sums(keys.size());
  thrust::device_vector<float> device_floats(numbers_of_keys.begin(), numbers_of_keys.end()),
      mapped(keys.size());

  thrust::transform(device_floats.begin(), device_floats.end(), device_keys.begin(), mapped.begin(),
                    Affine{0.5f});
  std::vector<float> expected_map;
  for (const int key : keys) expected_map.push_back(Affine{0.5f}(static_cast<float>(key), key));
  expect_equal("thrust::transform", host_copy(mapped), expected_map);

  thrust::inclusive_scan(device_keys.begin(), device_keys.end(), sums.begin());
  std::vector<int> expected_sums(keys.size());
  std::inclusive_scan(keys.begin(), keys.end(), expected_sums.begin());
  expect_equal("thrust::inclusive_scan", host_copy(sums), expected_sums);

  thrust::sort(device_keys.begin(), device_keys.end(), thrust::greater<int>());
  std::vector<int> sorted = keys;
  std::sort(sorted.begin(), sorted.end(), std::greater<int>());
  expect_equal("thrust::sort", host_copy(device_keys), sorted);

  thrust::device_vector<int> unique_keys(keys.size());
  thrust::device_vector<float> totals(keys.size());
  const auto ends =
      thrust::reduce_by_key(device_keys.begin(), device_keys.end(), thrust::make_constant_iterator(1.5f),
                            unique_keys.begin(), totals.begin());
  std::map<int, int, std::greater<int>> counts;
  for (const int key : keys) ++counts[key];
  const auto found = static_cast<std::size_t>(ends.first - unique_keys.begin());
  EXPECT(found == counts.size());
  const std::vector<int> got_keys = host_copy(unique_keys);
  const std::vector<float> got_totals = host_copy(totals);
  std::size_t i = 0;
  for (const auto& [key, count] : counts) {
    EXPECT(got_keys[i] == key && got_totals[i] == 1.5f * static_cast<float>(count));
    ++i;
  }
}

}  // namespace

int main() {
  check_blocks();
  check_device(9000);
  check_device(77);
  check_thrust(3000);
  return status();
}
