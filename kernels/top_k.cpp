#include "kernels/top_k.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/gemm.h"

namespace dino {
namespace {

/// The k largest of n values, largest first, and where they stand; of equal values the first ones. Most values are below
/// the smallest of the k best so far, so the loop is one comparison per value.
template <class T>
void select(const T* values, int64_t n, int64_t k, T* best, int64_t* index) {
  using Entry = std::pair<T, int64_t>;
  const auto better = [](const Entry& a, const Entry& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  };
  std::vector<Entry> heap;  // the worst of the best on top
  for (int64_t i = 0; i < n; ++i) {
    const bool full = static_cast<int64_t>(heap.size()) == k;
    if (full && !(values[i] > heap.front().first)) continue;
    if (full) {
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.pop_back();
    }
    heap.emplace_back(values[i], i);
    std::push_heap(heap.begin(), heap.end(), better);
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  for (int64_t i = 0; i < k; ++i) std::tie(best[i], index[i]) = heap[static_cast<size_t>(i)];
}

}  // namespace

std::vector<Spec> TopK::infer(std::span<const Spec> in) const {
  require_float_dtypes<TopK>(in);
  require<TopK>(in[queries].shape.cols() == in[bank].shape.cols(), "queries and bank must have equal width", in);
  require<TopK>(k >= 1 && k <= in[bank].shape.rows(), str("k = ", k, " must lie between 1 and the rows of bank"), in);
  const Shape shape{in[queries].shape.rows(), k};
  return {{in[queries].dtype, shape}, {Dtype::i64, shape}};
}

void TopK::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  const int64_t count = in[queries].rows(), bank_rows = in[bank].rows(), dim = in[bank].cols();
  constexpr int64_t kQueries = 16;  // per piece: their scores against the whole bank stay in the cache
  with_float(in[queries].dtype, [&](auto zero) {
    using T = decltype(zero);
    stream.pool().parallel((count + kQueries - 1) / kQueries, [&](int64_t piece, int thread) {
      const int64_t begin = piece * kQueries, n = std::min(kQueries, count - begin);
      T* s = reinterpret_cast<T*>(stream.scratch(thread, static_cast<size_t>(n * bank_rows) * sizeof(T)));
      gemm_serial(n, bank_rows, dim, T{1}, Matrix<const T>{in[queries].row<T>(begin), in[queries].row_stride},
                  Matrix<const T>{in[bank].as<T>(), in[bank].row_stride, true}, T{0}, Matrix<T>{s, bank_rows});
      for (int64_t row = 0; row < n; ++row)
        select(s + row * bank_rows, bank_rows, k, out[scores].row<T>(begin + row), out[indices].row<int64_t>(begin + row));
    });
  });
}

std::vector<Case<TopK>> TopK::cases(Tiny) {
  // Small whole numbers: products are exact, and many are equal. The bank has more rows than a GPU takes at once.
  std::vector<int64_t> repeated(2 * 8300);
  for (size_t i = 0; i < repeated.size(); ++i) repeated[i] = static_cast<int64_t>(i * i % 11) - 5;
  return {{{.k = 3}, {{{20, 6}}, {{11, 6}}}},
          {{.k = 1}, {{{1, 4}}, {{1, 4}}}},
          {{.k = 40}, {{{5, 8}}, {{2500, 8}}}},
          {{.k = 1500}, {{.shape = {2, 2}, .values = {2, -1, 0, 1}}, {.shape = {8300, 2}, .values = repeated}}}};
}

std::vector<Case<TopK>> TopK::cases(Real) { return {{{.k = 200}, {{{512, 384}}, {{50000, 384}}}}}; }

}  // namespace dino
