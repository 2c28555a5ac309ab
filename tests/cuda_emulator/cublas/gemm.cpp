#include "cublas/gemm.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cublas/epilogue.h"
#include "cublas/report.h"

namespace emulator::blas {
namespace {

constexpr std::int64_t kPoisonBytes = std::int64_t{1}
                                      << 20;  // enough to be noticed, cheap enough for small products

/// The mask as a matrix of bytes, for range checks: f16 "elements" are pairs of bytes.
Matrix mask_range(const Gemm& gemm) {
  const std::int64_t pairs = gemm.mask == nullptr ? 0 : gemm.mask_bytes() / 2;
  return {.name = "the ReLU mask",
          .address = gemm.mask,
          .type = Type::f16,
          .rows = pairs,
          .columns = 1,
          .ld = pairs};
}

Matrix workspace_range(const Gemm& gemm) {
  const std::int64_t pairs = gemm.workspace_bytes / 2;
  return {.name = "the workspace",
          .address = gemm.workspace,
          .type = Type::f16,
          .rows = pairs,
          .columns = 1,
          .ld = pairs};
}

bool same_place(const Matrix& c, const Matrix& d) {
  return c.address == d.address && c.ld == d.ld && c.row_major == d.row_major && c.type == d.type &&
         (c.batch == 1 || c.batch_stride == d.batch_stride);
}

/// One matrix of a batch on the host, as an operand whose summed index comes last.
Operand operand(const Matrix& matrix, const void* host, std::int64_t b, bool sum_over_rows) {
  const auto* data = static_cast<const char*>(host) +
                     b * matrix.batch_stride * static_cast<std::int64_t>(bytes_of(matrix.type));
  return {data, matrix.type, sum_over_rows ? matrix.column_stride() : matrix.row_stride(),
          sum_over_rows ? matrix.row_stride() : matrix.column_stride()};
}

void* moved(const Matrix& matrix, void* host, std::int64_t b) {
  if (host == nullptr) return nullptr;
  return static_cast<char*>(host) +
         b * matrix.batch_stride * static_cast<std::int64_t>(bytes_of(matrix.type));
}

/// Host addresses of all that one call touches; `complete` is false if memory that is needed has gone.
struct Places {
  void *a, *b, *c = nullptr, *d, *aux = nullptr, *bias = nullptr, *mask = nullptr;
  bool complete = true;
};

Places places_of(const Gemm& gemm) {
  Places places{};
  const auto find = [&](const Matrix& matrix) {
    void* host_address = matrix.extent_bytes() == 0 ? nullptr : backing(gemm.call, matrix);
    places.complete = places.complete && (matrix.extent_bytes() == 0 || host_address != nullptr);
    return host_address;
  };
  places.complete = true;
  places.a = find(gemm.a);
  places.b = find(gemm.b);
  if (gemm.reads_c()) places.c = find(gemm.c);
  places.d = find(gemm.d);
  if (gemm.aux.address != nullptr) places.aux = find(gemm.aux);
  if (gemm.bias_use != BiasUse::none) places.bias = find(gemm.bias);
  if (gemm.mask != nullptr) places.mask = find(mask_range(gemm));
  return places;
}

void check_inputs(const Gemm& gemm, double beta) {
  check_initialized(gemm.call, gemm.a);
  check_initialized(gemm.call, gemm.b);
  if (gemm.reads_c() && beta != 0) check_initialized(gemm.call, gemm.c);
  if (gemm.activation == Activation::gelu_gradient) check_initialized(gemm.call, gemm.aux);
  if (gemm.activation == Activation::relu_gradient) check_initialized(gemm.call, mask_range(gemm));
  if (gemm.bias_use == BiasUse::add) check_initialized(gemm.call, gemm.bias);
}

void mark_outputs(const Gemm& gemm) {
  mark_written(gemm.d);
  if (gemm.writes_aux && gemm.mask != nullptr) mark_written(mask_range(gemm));
  if (gemm.writes_aux && gemm.aux.address != nullptr) mark_written(gemm.aux);
  if (gemm.bias_use != BiasUse::none && gemm.bias_use != BiasUse::add) mark_written(gemm.bias);
}

/// Programs must not rely on the workspace across calls.
void poison_workspace(const Gemm& gemm) {
  if (gemm.workspace == nullptr || gemm.workspace_bytes == 0) return;
  const auto bytes = static_cast<std::size_t>(std::min(gemm.workspace_bytes, kPoisonBytes));
  if (void* host_address = host::device_range(gemm.workspace, bytes)) std::memset(host_address, 0xFF, bytes);
}

/// out[i] = sum over the inner index of operand(i, l): a bias gradient of an input.
void store_sums(const Operand& from, std::int64_t count, std::int64_t k, Type type, void* out) {
  std::vector<double> line(static_cast<std::size_t>(k));
  const auto size = static_cast<std::int64_t>(bytes_of(from.type));
  for (std::int64_t i = 0; i < count; ++i) {
    load(from.type, static_cast<const char*>(from.data) + i * from.outer_stride * size, from.inner_stride, k,
         line.data());
    double sum = 0;
    for (const double value : line) sum += value;
    store(type, static_cast<char*>(out) + i * static_cast<std::int64_t>(bytes_of(type)), 1, 1, &sum);
  }
}

void run_one(const Gemm& gemm, const Places& places, std::int64_t b, double alpha, double beta) {
  const Product product{.m = gemm.m(),
                        .n = gemm.n(),
                        .k = gemm.k(),
                        .a = operand(gemm.a, places.a, b, gemm.transpose_a),
                        .b = operand(gemm.b, places.b, b, !gemm.transpose_b),
                        .in_f64 = gemm.in_f64,
                        .rounding = gemm.rounding};
  Epilogue epilogue{.gemm = gemm, .alpha = alpha, .beta = beta};
  epilogue.c = beta == 0 ? nullptr : moved(gemm.c, places.c, b);
  epilogue.d = moved(gemm.d, places.d, b);
  epilogue.aux = moved(gemm.aux, places.aux, b);
  epilogue.bias = moved(gemm.bias, places.bias, b);
  epilogue.mask = places.mask == nullptr
                      ? nullptr
                      : static_cast<std::uint8_t*>(places.mask) + b * gemm.mask_stride_bits / 8;
  if (gemm.bias_use == BiasUse::gradient_of_d)
    epilogue.row_sums.assign(static_cast<std::size_t>(gemm.m()), 0.0);
  multiply(product, noise_seed(), [&](const Tile& tile) { apply(epilogue, tile); });
  if (gemm.bias_use == BiasUse::gradient_of_d)
    store(gemm.bias.type, epilogue.bias, 1, gemm.m(), epilogue.row_sums.data());
  if (gemm.bias_use == BiasUse::gradient_of_a)
    store_sums(product.a, gemm.m(), gemm.k(), gemm.bias.type, epilogue.bias);
  if (gemm.bias_use == BiasUse::gradient_of_b)
    store_sums(product.b, gemm.n(), gemm.k(), gemm.bias.type, epilogue.bias);
}

}  // namespace

void require_memory(const Gemm& gemm) {
  std::vector<Matrix> inputs{gemm.a, gemm.b}, outputs{gemm.d};
  if (gemm.reads_c() && !same_place(gemm.c, gemm.d)) inputs.push_back(gemm.c);
  if (gemm.aux.address != nullptr) (gemm.writes_aux ? outputs : inputs).push_back(gemm.aux);
  if (gemm.mask != nullptr) (gemm.writes_aux ? outputs : inputs).push_back(mask_range(gemm));
  if (gemm.bias_use != BiasUse::none) (gemm.bias_use == BiasUse::add ? inputs : outputs).push_back(gemm.bias);
  if (gemm.workspace != nullptr) outputs.push_back(workspace_range(gemm));
  for (const Matrix& matrix : inputs) require_memory(matrix);
  for (const Matrix& matrix : outputs) require_memory(matrix);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    for (const Matrix& input : inputs) require_disjoint(outputs[i], input);
    for (std::size_t j = 0; j < i; ++j) require_disjoint(outputs[i], outputs[j]);
  }
}

void run(const Gemm& gemm) {
  const double alpha = gemm.alpha.read(gemm.call), beta = gemm.beta.read(gemm.call);
  const Places places = places_of(gemm);
  if (!places.complete) return;
  check_inputs(gemm, beta);
  poison_workspace(gemm);
  for (std::int64_t b = 0; b < gemm.d.batch; ++b) run_one(gemm, places, b, alpha, beta);
  mark_outputs(gemm);
}

}  // namespace emulator::blas
