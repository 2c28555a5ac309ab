#include "kernels/linear_products.h"

#include <algorithm>
#include <cstring>
#include <dnnl.hpp>
#include <map>
#include <tuple>

#include "kernels/gemm.h"
#include "kernels/linear_pairs.h"
#include "kernels/product_pieces.h"

namespace dino {
namespace {

/// From about so many rows on, packing a weight costs less than it gains.
constexpr int64_t kPackedRows = 1024;

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

Type type_of(Dtype dtype) { return dtype == Dtype::bf16 ? Type::bf16 : Type::f32; }

/// One matmul primitive: x [rows, k] · weight [k, n] + bias → y [rows, n].
struct MatmulKey {
  int64_t rows, n, k, x_stride, y_stride;
  int64_t weight_stride;  ///< 0: packed
  bool transposed, bias, add;
  Dtype operands, result;
  auto operator<=>(const MatmulKey&) const = default;
};

struct Matmul {
  dnnl::matmul primitive;
  dnnl::memory::desc x, weight, bias, y, scratch;
  dnnl::reorder pack;  ///< of a weight that is not packed yet, which is described by `plain`
  dnnl::memory::desc plain;
};

/// One product of a weight gradient: aᵀ [m, rows] · b [rows, n] with dense rows, as oneDNN's fast kernel
/// wants it.
struct ColumnsKey {
  int64_t rows, m, n;
  auto operator<=>(const ColumnsKey&) const = default;
};

struct Columns {
  dnnl::inner_product_backward_weights primitive;
  dnnl::memory::desc a, b, result, scratch;
};

/// The primitives of one stream: making one takes longer than a small product.
class Primitives {
 public:
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};

  const Matmul& find(const MatmulKey& key, int64_t plain_stride) {
    auto found = matmuls_.find({key, plain_stride});
    if (found == matmuls_.end())
      found = matmuls_.emplace(std::pair(key, plain_stride), prepare(key, plain_stride)).first;
    return found->second;
  }
  const Columns& find(const ColumnsKey& key) {
    auto found = columns_.find(key);
    if (found == columns_.end()) found = columns_.emplace(key, prepare(key)).first;
    return found->second;
  }

 private:
  Matmul prepare(const MatmulKey& key, int64_t plain_stride) const {
    const Type operands = type_of(key.operands);
    const dnnl::memory::dims strides =
        key.transposed ? dnnl::memory::dims{1, plain_stride} : dnnl::memory::dims{plain_stride, 1};
    Matmul result;
    result.plain = dnnl::memory::desc({key.k, key.n}, operands, strides);
    result.x = dnnl::memory::desc({key.rows, key.k}, operands, dnnl::memory::dims{key.x_stride, 1});
    result.y =
        dnnl::memory::desc({key.rows, key.n}, type_of(key.result), dnnl::memory::dims{key.y_stride, 1});
    if (key.bias) result.bias = dnnl::memory::desc({1, key.n}, Type::f32, Tag::ab);
    const bool packed = key.weight_stride == 0;
    const dnnl::memory::desc weight =
        packed ? dnnl::memory::desc({key.k, key.n}, operands, Tag::any) : result.plain;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.add) {
      dnnl::post_ops sum;
      sum.append_sum();
      attributes.set_post_ops(sum);
    }
    const auto description = key.bias ? dnnl::matmul::desc(result.x, weight, result.bias, result.y)
                                      : dnnl::matmul::desc(result.x, weight, result.y);
    const dnnl::matmul::primitive_desc primitive(description, attributes, engine);
    result.primitive = dnnl::matmul(primitive);
    result.weight = primitive.weights_desc();
    result.scratch = primitive.scratchpad_desc();
    if (packed) result.pack = dnnl::reorder({engine, result.plain, engine, result.weight});
    return result;
  }

  Columns prepare(const ColumnsKey& key) const {
    Columns result;
    result.a = dnnl::memory::desc({key.rows, key.m}, Type::bf16, Tag::ab);
    result.b = dnnl::memory::desc({key.rows, key.n}, Type::bf16, Tag::ab);
    result.result = dnnl::memory::desc({key.m, key.n}, Type::f32, Tag::ab);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::memory::desc weight({key.m, key.n}, Type::bf16, Tag::any);
    const dnnl::inner_product_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, result.b, weight, result.a}, attributes, engine);
    const dnnl::inner_product_backward_weights::primitive_desc backward({result.b, result.result, result.a},
                                                                        attributes, engine, forward);
    result.primitive = dnnl::inner_product_backward_weights(backward);
    result.scratch = backward.scratchpad_desc();
    return result;
  }

  std::map<std::pair<MatmulKey, int64_t>, Matmul> matmuls_;
  std::map<ColumnsKey, Columns> columns_;
};

/// Element (row, col).
std::byte* element(const View& x, int64_t row, int64_t col) {
  return static_cast<std::byte*>(x.data) + static_cast<size_t>(row * x.row_stride + col) * bytes_of(x.dtype);
}

/// Runs `body`; what oneDNN throws becomes an Error.
template <class Body>
void with_errors_named(const Body& body) {
  try {
    body();
  } catch (const dnnl::error& error) {
    throw Error(str("linear: oneDNN could not run it: ", error.message));
  }
}

/// The pieces of one multiply_rows.
class RowProducts {
 public:
  RowProducts(CpuStream& stream, const View& x, const View& weight, bool transposed, const View& bias,
              const View& y, bool add)
      : stream_(stream),
        primitives_(stream.cache<Primitives>()),
        x_(x),
        weight_(weight),
        transposed_(transposed),
        bias_(bias),
        y_(y),
        add_(add),
        packed_(x.rows() >= kPackedRows),
        rows_(x.rows(), row_piece(), 16),
        cols_(y.cols(), col_piece(), 64) {}

  void run() {
    // All primitives exist before the threads start.
    for (const int64_t row : {int64_t{0}, rows_.count - 1})
      for (const int64_t col : {int64_t{0}, cols_.count - 1}) matmul(row, col);
    packed_ ? run_packed() : run_plain();
  }

 private:
  /// Columns of a weight that one thread packs.
  static constexpr int64_t kPackedCols = 512;

  /// Small enough that the last pieces keep all threads busy, large enough for the kernel to reach its rate.
  int64_t row_piece() const {
    if (packed_) return std::clamp<int64_t>(x_.rows() / 48, 64, 256);
    return by_rows() ? std::clamp<int64_t>(x_.rows() / 16, 64, 256) : x_.rows();
  }
  int64_t col_piece() const {
    if (packed_) return kPackedCols;
    return by_rows() ? y_.cols() : std::clamp<int64_t>(y_.cols() / 16, 128, 1024);
  }
  bool by_rows() const { return 2 * x_.rows() >= y_.cols(); }

  const Matmul& matmul(int64_t row, int64_t col) const {
    return primitives_.find({.rows = rows_.length(row),
                             .n = cols_.length(col),
                             .k = x_.cols(),
                             .x_stride = x_.row_stride,
                             .y_stride = y_.row_stride,
                             .weight_stride = packed_ ? 0 : weight_.row_stride,
                             .transposed = transposed_,
                             .bias = bias_.defined(),
                             .add = add_,
                             .operands = x_.dtype,
                             .result = y_.dtype},
                            weight_.row_stride);
  }
  std::byte* weight_from(int64_t col) const {
    return transposed_ ? element(weight_, cols_.begin(col), 0) : element(weight_, 0, cols_.begin(col));
  }

  void run_packed() {
    // Primitives of other row counts may want another layout, so the first one's is for the full pieces only.
    size_t slice = 0;
    for (const int64_t row : {int64_t{0}, rows_.count - 1})
      for (const int64_t col : {int64_t{0}, cols_.count - 1}) slice = std::max(slice, (matmul(row, col).weight.get_size() + 63) / 64 * 64);
    const bool other_last = matmul(rows_.count - 1, 0).weight != matmul(0, 0).weight;
    const int64_t layouts = other_last ? 2 : 1;
    std::byte* packed = stream_.shared_scratch(slice * static_cast<size_t>(cols_.count * layouts));
    const auto place = [&](int64_t layout, int64_t col) {
      return packed + slice * static_cast<size_t>(layout * cols_.count + col);
    };
    stream_.pool().parallel(cols_.count * layouts, [&](int64_t piece, int) {
      const int64_t col = piece % cols_.count, layout = piece / cols_.count;
      const Matmul& m = matmul(layout == 0 ? 0 : rows_.count - 1, col);
      dnnl::memory from(m.plain, primitives_.engine, weight_from(col)),
          to(m.weight, primitives_.engine, place(layout, col));
      dnnl::stream queue(primitives_.engine);
      m.pack.execute(queue, from, to);
    });
    stream_.pool().parallel(rows_.count, [&](int64_t row, int thread) {
      const int64_t layout = other_last && row + 1 == rows_.count ? 1 : 0;
      for (int64_t col = 0; col < cols_.count; ++col) execute(row, col, place(layout, col), thread);
    });
  }

  void run_plain() {
    stream_.pool().parallel(rows_.count * cols_.count, [&](int64_t piece, int thread) {
      const int64_t row = piece / cols_.count, col = piece % cols_.count;
      execute(row, col, weight_from(col), thread);
    });
  }

  void execute(int64_t row, int64_t col, std::byte* weight, int thread) const {
    const Matmul& m = matmul(row, col);
    const dnnl::engine& engine = primitives_.engine;
    std::unordered_map<int, dnnl::memory> arguments = {
        {DNNL_ARG_SRC, {m.x, engine, element(x_, rows_.begin(row), 0)}},
        {DNNL_ARG_WEIGHTS, {m.weight, engine, weight}},
        {DNNL_ARG_DST, {m.y, engine, element(y_, rows_.begin(row), cols_.begin(col))}},
        {DNNL_ARG_SCRATCHPAD, {m.scratch, engine, stream_.scratch(thread, m.scratch.get_size())}}};
    if (bias_.defined()) arguments[DNNL_ARG_BIAS] = {m.bias, engine, bias_.as<float>() + cols_.begin(col)};
    dnnl::stream queue(engine);
    m.primitive.execute(queue, arguments);
  }

  CpuStream& stream_;
  Primitives& primitives_;
  const View &x_, &weight_;
  bool transposed_;
  const View& bias_;
  const View& y_;
  bool add_, packed_;
  Cut rows_, cols_;
};

ColumnPieces f32_columns(const View& a) { return {a, 96, 2048, 24}; }

/// Tiles of columns are copied to be dense; long sums have enough parts without tiles.
ColumnPieces bf16_columns(const View& a) {
  constexpr int64_t kLongSum = 8192;
  return {a, a.rows() >= kLongSum ? a.cols() : 192, 512, 24};
}

void columns_f32(CpuStream& stream, const View& a, const View& b, const View& result, bool add) {
  const ColumnPieces pieces = f32_columns(a);
  sum_parts(stream, pieces, result, add, [&](int64_t tile, int64_t part, Matrix<float> to, int) {
    const int64_t row = pieces.parts.begin(part);
    gemm_serial(pieces.tiles.length(tile), b.cols(), pieces.parts.length(part), 1.0f,
                {a.row<float>(row) + pieces.tiles.begin(tile), a.row_stride, true},
                {b.row<float>(row), b.row_stride}, 0.0f, to);
  });
}

/// Dense copy of a part of a matrix in bf16, or the part itself if its rows are dense.
std::byte* dense_part(const View& x, int64_t row, int64_t rows, int64_t col, int64_t cols, std::byte* copy) {
  if (x.row_stride == cols) return element(x, row, col);
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(copy + static_cast<size_t>(r * cols) * sizeof(BFloat16), element(x, row + r, col),
                static_cast<size_t>(cols) * sizeof(BFloat16));
  return copy;
}

void columns_bf16(CpuStream& stream, const View& a, const View& b, const View& result, bool add) {
  auto& primitives = stream.cache<Primitives>();
  const ColumnPieces pieces = bf16_columns(a);
  const int64_t n = b.cols();
  const auto find = [&](int64_t tile, int64_t part) -> const Columns& {
    return primitives.find(ColumnsKey{pieces.parts.length(part), pieces.tiles.length(tile), n});
  };
  for (const int64_t tile : {int64_t{0}, pieces.tiles.count - 1})
    for (const int64_t part : {int64_t{0}, pieces.parts.count - 1}) find(tile, part);
  sum_parts(stream, pieces, result, add, [&](int64_t tile, int64_t part, Matrix<float> to, int thread) {
    const Columns& c = find(tile, part);
    const int64_t row = pieces.parts.begin(part), rows = pieces.parts.length(part),
                  cols = pieces.tiles.length(tile);
    const auto aligned = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
    const size_t own = aligned(c.scratch.get_size()), of_a = aligned(c.a.get_size()),
                 of_b = aligned(c.b.get_size());
    const size_t of_result = aligned(c.result.get_size());
    std::byte* scratch = stream.scratch(thread, own + of_a + of_b + of_result);
    float* dense = to.stride == n ? to.data : reinterpret_cast<float*>(scratch + own + of_a + of_b);
    const dnnl::engine& engine = primitives.engine;
    dnnl::stream queue(engine);
    c.primitive.execute(
        queue, {{DNNL_ARG_SRC, {c.b, engine, dense_part(b, row, rows, 0, n, scratch + own + of_a)}},
                {DNNL_ARG_DIFF_DST,
                 {c.a, engine, dense_part(a, row, rows, pieces.tiles.begin(tile), cols, scratch + own)}},
                {DNNL_ARG_DIFF_WEIGHTS, {c.result, engine, dense}},
                {DNNL_ARG_SCRATCHPAD, {c.scratch, engine, scratch}}});
    for (int64_t r = 0; dense != to.data && r < cols; ++r)
      std::copy_n(dense + r * n, n, to.data + r * to.stride);
  });
}

/// Whether oneDNN may use `wanted` and everything that it includes here.
bool has_instructions(dnnl::cpu_isa wanted) {
  const auto bits = static_cast<unsigned>(wanted);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}

}  // namespace

bool multiplies_bf16() { return has_instructions(dnnl::cpu_isa::avx512_core); }

bool multiplies_bf16_natively() { return has_instructions(dnnl::cpu_isa::avx512_core_bf16); }

void multiply_rows(CpuStream& stream, const View& x, const View& weight, bool transposed, const View& bias,
                   const View& y, bool add) {
  if (y.count() == 0) return;
  if (pairs::multiplies_rows(x, weight, transposed, y)) return pairs::multiply_rows(stream, x, weight, transposed, bias, y, add);
  with_errors_named([&] { RowProducts(stream, x, weight, transposed, bias, y, add).run(); });
}

size_t products_scratch(int64_t rows, int64_t k, int64_t n, Dtype dtype) {
  const View dy(nullptr, dtype, Shape{rows, n});
  const int64_t parts = (dtype == Dtype::bf16 ? bf16_columns(dy) : f32_columns(dy)).parts.count;
  const size_t sums = parts > 1 ? static_cast<size_t>(parts * n * k) * sizeof(float) : 0;
  const size_t packed = rows >= kPackedRows ? static_cast<size_t>(n * k) * bytes_of(dtype) : 0;
  return std::max(sums, packed);
}

void multiply_columns(CpuStream& stream, const View& a, const View& b, const View& result, bool add) {
  if (a.dtype == Dtype::f32) return columns_f32(stream, a, b, result, add);
  if (pairs::multiplies_columns(a, b, result)) return pairs::multiply_columns(stream, a, b, result, add);
  with_errors_named([&] { columns_bf16(stream, a, b, result, add); });
}

}  // namespace dino
