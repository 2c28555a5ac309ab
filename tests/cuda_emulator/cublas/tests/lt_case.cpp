#include "cublas/tests/lt_case.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

namespace test {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::vector<double> with_gaps(cudaDataType type, std::int64_t size, unsigned seed) {
  return random_values(type, static_cast<std::size_t>(size), seed);
}

/// gelu and its derivative, from the definition in f64.
double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double gelu_slope(double x) { return (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5; }

}  // namespace

LtCall::LtCall(const LtCase& wanted) : c(wanted) {
  const std::int64_t a_rows = c.transpose_a ? c.k : c.m, a_columns = c.transpose_a ? c.m : c.k;
  const std::int64_t b_rows = c.transpose_b ? c.n : c.k, b_columns = c.transpose_b ? c.k : c.n;
  lda = (c.rows_a ? a_columns : a_rows) + c.padding;
  ldb = (c.rows_b ? b_columns : b_rows) + c.padding;
  ldd = (c.rows_d ? c.n : c.m) + c.padding;
  stride_a = lda * (c.rows_a ? a_rows : a_columns) + 3 * c.padding;
  stride_b = ldb * (c.rows_b ? b_rows : b_columns) + 3 * c.padding;
  stride_d = ldd * (c.rows_d ? c.m : c.n) + 3 * c.padding;
  aux_ld = round_up(c.m, is_relu() ? 128 : 8);
  cublasLtCreate(&handle);
  cublasLtMatmulDescCreate(&matmul, c.compute, c.scale);
  const std::uint64_t rows[4] = {std::uint64_t(a_rows), std::uint64_t(b_rows), std::uint64_t(c.m),
                                 std::uint64_t(c.m)};
  const std::uint64_t columns[4] = {std::uint64_t(a_columns), std::uint64_t(b_columns), std::uint64_t(c.n),
                                    std::uint64_t(c.n)};
  const std::int64_t lds[4] = {lda, ldb, ldd, ldd}, strides[4] = {stride_a, stride_b, stride_d, stride_d};
  const bool by_rows[4] = {c.rows_a, c.rows_b, c.rows_d, c.rows_d};
  for (int i = 0; i < 4; ++i) {
    cublasLtMatrixLayoutCreate(&layouts[i], i < 2 ? c.input : c.output, rows[i], columns[i], lds[i]);
    set(layouts[i], CUBLASLT_MATRIX_LAYOUT_ORDER,
        std::int32_t{by_rows[i] ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL});
    set(layouts[i], CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(c.batch));
    set(layouts[i], CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, strides[i]);
  }
  a = with_gaps(c.input, stride_a * c.batch, 1);
  b = with_gaps(c.input, stride_b * c.batch, 2);
  c_values = with_gaps(c.output, stride_d * c.batch, 3);
  a_array.emplace(c.input, a);
  b_array.emplace(c.input, b);
  c_array.emplace(c.output, c_values);
  d_array.emplace(c.output, c_values.size());
  a_address = a_array->address();
  b_address = b_array->address();
  c_address = c_array->address();
  d_address = c.in_place ? c_array->address() : d_array->address();
  set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{c.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N});
  set(CUBLASLT_MATMUL_DESC_TRANSB, std::int32_t{c.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N});
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, c.epilogue);
  if (has_aux()) {
    const bool forward = (c.epilogue & 64) == 0 && (c.epilogue & 8) == 0;
    const std::int64_t size = aux_ld * c.n * c.batch / (is_relu() ? 16 : 1);  // ReLU: bits in f16 words
    aux_values = with_gaps(is_relu() ? CUDA_R_16F : c.output, size, 4);
    aux_array.emplace(is_relu() ? CUDA_R_16F : c.output, aux_values.size());
    if (!forward) aux_array->write(aux_values);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux_array->address());
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, aux_ld);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, aux_ld * c.n);
  }
  if ((c.epilogue & (4 | 16 | 256 | 512)) != 0) {
    const std::int64_t length = c.epilogue == CUBLASLT_EPILOGUE_BGRADB ? c.n : c.m;
    bias_values = with_gaps(c.output, length * c.batch, 5);
    bias_array.emplace(c.output, bias_values.size());
    if ((c.epilogue & 4) != 0) bias_array->write(bias_values);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_array->address());
    set(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, length);
  }
}

LtCall::~LtCall() {
  for (cublasLtMatrixLayout_t layout : layouts) cublasLtMatrixLayoutDestroy(layout);
  cublasLtMatmulDescDestroy(matmul);
  cublasLtDestroy(handle);
}

cublasStatus_t LtCall::call() {
  const double values[2] = {c.alpha, c.beta};
  for (int i = 0; i < 2; ++i) {
    host_f32[i] = static_cast<float>(values[i]);
    host_f64[i] = values[i];
    host_f16[i] = __float2half_rn(host_f32[i]);
  }
  const char* host_scalars = c.scale == CUDA_R_64F   ? reinterpret_cast<const char*>(host_f64)
                             : c.scale == CUDA_R_16F ? reinterpret_cast<const char*>(host_f16)
                                                     : reinterpret_cast<const char*>(host_f32);
  if (c.scalars_on_device) {
    scalars.emplace(c.scale, std::vector<double>{c.alpha, c.beta});
    set(CUBLASLT_MATMUL_DESC_POINTER_MODE, std::int32_t{CUBLASLT_POINTER_MODE_DEVICE});
    host_scalars = scalars->as<const char>();
  }
  if (alpha == nullptr) alpha = host_scalars;
  if (beta == nullptr) beta = host_scalars + bytes_of(c.scale);
  return cublasLtMatmul(handle, matmul, alpha, a_address, layouts[0], b_address, layouts[1], beta, c_address,
                        layouts[2], d_address, layouts[3], algo, workspace, workspace_bytes, nullptr);
}

double LtCall::a_at(std::int64_t batch, std::int64_t i, std::int64_t l) const {
  const std::int64_t row = c.transpose_a ? l : i, column = c.transpose_a ? i : l;
  return a[static_cast<std::size_t>(batch * stride_a + (c.rows_a ? row * lda + column : row + column * lda))];
}
double LtCall::b_at(std::int64_t batch, std::int64_t l, std::int64_t j) const {
  const std::int64_t row = c.transpose_b ? j : l, column = c.transpose_b ? l : j;
  return b[static_cast<std::size_t>(batch * stride_b + (c.rows_b ? row * ldb + column : row + column * ldb))];
}
std::size_t LtCall::d_index(std::int64_t batch, std::int64_t i, std::int64_t j) const {
  return static_cast<std::size_t>(batch * stride_d + (c.rows_d ? i * ldd + j : i + j * ldd));
}
std::size_t LtCall::aux_index(std::int64_t batch, std::int64_t i, std::int64_t j) const {
  return static_cast<std::size_t>(batch * aux_ld * c.n + i + j * aux_ld);
}

namespace {

struct Expected {
  double value = 0, tolerance = 0;  // of D before rounding
  double before = 0;                // the activation's input
};

/// A value and the bound of its error before D is rounded.
Expected expect(const LtCall& call, std::int64_t batch, std::int64_t i, std::int64_t j, double unit,
                double terms, bool masked) {
  const LtCase& c = call.c;
  double sum = 0, size = 0;
  for (std::int64_t l = 0; l < c.k; ++l) {
    sum += call.a_at(batch, i, l) * call.b_at(batch, l, j);
    size += std::abs(call.a_at(batch, i, l) * call.b_at(batch, l, j));
  }
  const double old = c.beta == 0 ? 0 : call.c_values[call.d_index(batch, i, j)];
  const double bias = (c.epilogue & 4) == 0 ? 0 : call.bias_values[static_cast<std::size_t>(batch * c.m + i)];
  Expected e;
  e.before = c.alpha * sum + c.beta * old + bias;
  e.tolerance = (terms + 8) * unit * (std::abs(c.alpha) * size + std::abs(c.beta * old) + std::abs(bias));
  e.value = e.before;
  if ((c.epilogue & 2) != 0) e.value = std::max(e.before, 0.0);
  if ((c.epilogue & 8) != 0) e.value = masked ? e.before : 0;
  if ((c.epilogue & 32) != 0)
    e.value = gelu(e.before), e.tolerance = 1.2 * e.tolerance + 16 * unit * (std::abs(e.before) + 1);
  if ((c.epilogue & 64) != 0) {
    e.value = e.before * gelu_slope(call.aux_values[call.aux_index(batch, i, j)]);
    e.tolerance =
        1.2 * e.tolerance + (16 * unit + 1e-9) * (std::abs(e.before) + 1);  // 1e-9: the finite difference
  }
  return e;
}

bool close(double got, double wanted, double tolerance, cudaDataType type) {
  return std::abs(got - wanted) <=
         tolerance + unit_of(type) * (std::abs(wanted) + tolerance) + (type == CUDA_R_16F ? 0x1p-25 : 0);
}

bool bit(const DeviceArray& mask, std::size_t index) {
  const auto* bytes = static_cast<const unsigned char*>(mock::host(mask.address(), mask.bytes()));
  return (bytes[index / 8] >> (index % 8) & 1) != 0;
}

/// Sums that end up in the bias gradient, if the epilogue has one.
void check_bias_gradient(const LtCall& call, std::int64_t batch, const std::vector<Expected>& d,
                         double unit) {
  const LtCase& c = call.c;
  if ((c.epilogue & (16 | 256 | 512)) == 0) return;
  const std::int64_t length = c.epilogue == CUBLASLT_EPILOGUE_BGRADB ? c.n : c.m;
  const std::vector<double> got = call.bias_array->read();
  for (std::int64_t i = 0; i < length; ++i) {
    double sum = 0, tolerance = 0;
    if ((c.epilogue & 16) != 0) {
      for (std::int64_t j = 0; j < c.n; ++j) {
        const Expected& e = d[static_cast<std::size_t>(i + j * c.m)];
        sum += e.value;
        tolerance += e.tolerance + unit * std::abs(e.value);
      }
    } else {
      for (std::int64_t l = 0; l < c.k; ++l)
        sum += c.epilogue == CUBLASLT_EPILOGUE_BGRADB ? call.b_at(batch, l, i) : call.a_at(batch, i, l);
      tolerance = static_cast<double>(c.k) * 0x1p-50;
    }
    REQUIRE(close(got[static_cast<std::size_t>(batch * length + i)], sum, tolerance, c.output));
  }
}

void check_matrix(const LtCall& call, std::int64_t batch, const std::vector<double>& got, double unit,
                  double terms) {
  const LtCase& c = call.c;
  const std::vector<double> aux =
      call.has_aux() && !call.is_relu() ? call.aux_array->read() : std::vector<double>{};
  std::vector<Expected> expected;
  for (std::int64_t j = 0; j < c.n; ++j) {
    for (std::int64_t i = 0; i < c.m; ++i) {
      const bool masked =
          call.has_aux() && call.is_relu() && bit(*call.aux_array, call.aux_index(batch, i, j));
      const Expected e = expected.emplace_back(expect(call, batch, i, j, unit, terms, masked));
      INFO("batch " << batch << " element " << i << ", " << j << ": " << got[call.d_index(batch, i, j)]
                    << " for " << e.value);
      REQUIRE(close(got[call.d_index(batch, i, j)], e.value, e.tolerance, c.output));
      if ((c.epilogue & 160) == 160)
        REQUIRE(close(aux[call.aux_index(batch, i, j)], e.before, e.tolerance, c.output));
      if ((c.epilogue & 130) == 130 && std::abs(e.before) > e.tolerance) REQUIRE(masked == (e.before > 0));
    }
  }
  check_bias_gradient(call, batch, expected, unit);
}

}  // namespace

void check(const LtCase& wanted, double terms) {
  LtCall call(wanted);
  REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
  std::fill_n(call.host_f32, 2, -7.0f);  // the values must have been taken at the call
  mock::synchronize();
  for (const std::string& report : mock::take_reports()) FAIL(report);
  const std::vector<double> got = (wanted.in_place ? call.c_array : call.d_array)->read();
  const double unit = wanted.compute == CUBLAS_COMPUTE_64F ? 0x1p-53 : 0x1p-24;
  for (std::int64_t b = 0; b < wanted.batch; ++b) {
    check_matrix(call, b, got, unit, terms);
    REQUIRE(mock::written(call.d_array->element(call.d_index(b, wanted.m - 1, wanted.n - 1)),
                          bytes_of(wanted.output)) != wanted.in_place);
  }
}

}  // namespace test
