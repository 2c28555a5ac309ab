#include "kernels/top_k.h"

#include <algorithm>
#include <numeric>

#include "kernels/gemm.h"

namespace dino {

std::vector<Spec> TopK::infer(std::span<const Spec> in) const {
  require_one_float_dtype<TopK>(in);
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
      std::vector<int64_t> order(static_cast<size_t>(bank_rows));
      for (int64_t row = 0; row < n; ++row) {
        const T* row_scores = s + row * bank_rows;
        std::iota(order.begin(), order.end(), int64_t{0});
        const auto better = [&](int64_t a, int64_t b) {
          return row_scores[a] > row_scores[b] || (row_scores[a] == row_scores[b] && a < b);
        };
        std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), better);
        std::sort(order.begin(), order.begin() + k, better);
        for (int64_t i = 0; i < k; ++i) {
          out[indices].row<int64_t>(begin + row)[i] = order[static_cast<size_t>(i)];
          out[scores].row<T>(begin + row)[i] = row_scores[order[static_cast<size_t>(i)]];
        }
      }
    });
  });
}

std::vector<Case<TopK>> TopK::cases(Tiny) { return {{{.k = 3}, {{{20, 6}}, {{11, 6}}}}, {{.k = 1}, {{{1, 4}}, {{1, 4}}}}}; }

std::vector<Case<TopK>> TopK::cases(Real) { return {{{.k = 200}, {{{512, 384}}, {{50000, 384}}}}}; }

}  // namespace dino
