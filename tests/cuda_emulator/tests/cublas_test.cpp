#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <limits>

#include "cublas/matmul.h"
#include "cublas/tests/lt_case.h"

using test::LtCall;
using test::LtCase;

namespace {

struct Types {
  cublasComputeType_t compute;
  cudaDataType scale, input, output;
};

constexpr Types kTypes[] = {
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16F, CUDA_R_16F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16F, CUDA_R_32F},
    {CUBLAS_COMPUTE_16F, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F},
    {CUBLAS_COMPUTE_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F},
    {CUBLAS_COMPUTE_32F_PEDANTIC, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
};

LtCase with(const Types& types) {
  LtCase c;
  c.compute = types.compute;
  c.scale = types.scale;
  c.input = types.input;
  c.output = types.output;
  return c;
}

/// D of a case, as stored.
std::vector<double> result_of(LtCall& call) {
  REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(mock::take_reports().empty());
  return call.d_array->read();
}

}  // namespace

TEST_CASE("cublasLtMatmul agrees with a naive loop for every type, transpose and order") {
  for (const Types& types : kTypes) {
    for (int bits = 0; bits < 32; ++bits) {
      LtCase c = with(types);
      c.transpose_a = (bits & 1) != 0;
      c.transpose_b = (bits & 2) != 0;
      c.rows_a = (bits & 4) != 0;
      c.rows_b = (bits & 8) != 0;
      c.rows_d = (bits & 16) != 0;
      c.padding = bits % 3;
      c.alpha = 0.75;
      c.beta = bits % 2 == 0 ? 0 : -0.5;
      CAPTURE(types.compute, types.input, types.output, bits);
      test::check(c);
    }
  }
}

TEST_CASE("cublasLtMatmul agrees with a naive loop for sizes around its tiles") {
  const std::int64_t sizes[][3] = {{1, 1, 1},    {32, 6, 64},   {33, 7, 65},   {31, 5, 63},
                                   {1030, 7, 3}, {5, 200, 129}, {64, 12, 1000}};
  for (const auto& [m, n, k] : sizes) {
    for (const bool transposed : {false, true}) {
      LtCase c = with(kTypes[1]);
      c.m = m, c.n = n, c.k = k;
      c.transpose_a = c.transpose_b = transposed;
      CAPTURE(m, n, k, transposed);
      test::check(c);
      c.compute = CUBLAS_COMPUTE_64F;
      c.scale = c.input = c.output = CUDA_R_64F;
      test::check(c);
    }
  }
}

TEST_CASE("cublasLtMatmul multiplies every matrix of a strided batch") {
  for (const bool in_place : {false, true}) {
    LtCase c = with(kTypes[1]);
    c.batch = 3;
    c.padding = 4;
    c.beta = 2;
    c.in_place = in_place;
    test::check(c);
  }
}

TEST_CASE("cublasLtMatmul reads alpha and beta from device memory when the work runs") {
  LtCase c = with(kTypes[0]);
  c.alpha = -1.5;
  c.beta = 0.25;
  c.scalars_on_device = true;
  test::check(c);
  LtCall call(c);
  REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
  call.scalars->write({0, 1});  // behind the call, before the work
  mock::synchronize();
  REQUIRE(mock::take_reports().empty());
  REQUIRE(call.d_array->read() == call.c_values);
}

TEST_CASE("cublasLtMatmul does not read C if beta is 0") {
  LtCase c = with(kTypes[0]);
  LtCall call(c);
  call.c_address = nullptr;
  for (const double value : result_of(call)) REQUIRE(std::isfinite(value));
  call.c_array->write(std::vector<double>(call.c_values.size(), std::numeric_limits<double>::quiet_NaN()));
  call.c_address = call.c_array->address();
  for (const double value : result_of(call)) REQUIRE(std::isfinite(value));
}

TEST_CASE("cublasLtMatmul leaves the gaps between columns alone") {
  LtCase c = with(kTypes[0]);
  c.padding = 2;
  LtCall call(c);
  result_of(call);
  for (std::int64_t j = 0; j < c.n; ++j) {
    REQUIRE(mock::written(call.d_array->element(call.d_index(0, c.m - 1, j)), 4));
    REQUIRE_FALSE(mock::written(call.d_array->element(call.d_index(0, c.m, j)), 4));
  }
}

TEST_CASE("cublasLtMatmul rounds f32 inputs as the fast compute types do") {
  const double tiny = 0x1p-12, small = 0x1p-9,
               medium = 0x1p-7;  // 1 + x: lost by tf32 and less, by bf16, by nobody
  const struct {
    cublasComputeType_t compute;
    double tiny, small;
  } rows[] = {{CUBLAS_COMPUTE_32F, tiny, small},
              {CUBLAS_COMPUTE_32F_FAST_TF32, 0, small},
              {CUBLAS_COMPUTE_32F_FAST_16F, 0, small},
              {CUBLAS_COMPUTE_32F_FAST_16BF, 0, 0}};
  for (const auto& row : rows) {
    LtCase c = with(kTypes[0]);
    c.compute = row.compute;
    c.m = 3, c.n = c.k = 1;
    LtCall call(c);
    call.a_array->write({1 + tiny, 1 + small, 1 + medium});
    call.b_array->write({1});
    REQUIRE(result_of(call) == std::vector<double>{1 + row.tiny, 1 + row.small, 1 + medium});
  }
}

TEST_CASE("tf32 rounds to 10 bits, ties away from zero, and keeps what is not finite") {
  using namespace emulator::blas;
  const float infinity = std::numeric_limits<float>::infinity();
  float values[] = {0x1.001p0f, 0x1.002p0f, -0x1.002p0f, 0x1.003p0f, 0x1.fffp0f, infinity, -infinity};
  const float wanted[] = {0x1p0f, 0x1.004p0f, -0x1.004p0f, 0x1.004p0f, 0x1p1f, infinity, -infinity};
  round_inputs(InputRounding::tf32, values, 7);
  for (int i = 0; i < 7; ++i) REQUIRE(values[i] == wanted[i]);
}

TEST_CASE("CUDA_EMULATOR_NOISE changes the order of sums, within the bound of f32 sums, and repeatably") {
  LtCase c = with(kTypes[0]);
  c.k = 700;
  std::vector<std::vector<double>> results;
  for (const char* seed : {"0", "1", "1", "2"}) {
    setenv("CUDA_EMULATOR_NOISE", seed, 1);
    test::check(c, 64 + 700.0 / 8);
    LtCall call(c);
    results.push_back(result_of(call));
  }
  unsetenv("CUDA_EMULATOR_NOISE");
  REQUIRE(results[0] != results[1]);
  REQUIRE(results[1] == results[2]);
  REQUIRE(results[1] != results[3]);
}

TEST_CASE("cublasLtMatmul spoils the workspace") {
  LtCase c = with(kTypes[0]);
  LtCall call(c);
  test::DeviceArray workspace(CUDA_R_32F, std::vector<double>(1024, 1.0));
  call.workspace = workspace.address();
  call.workspace_bytes = workspace.bytes();
  result_of(call);
  for (const double value : workspace.read()) REQUIRE(std::isnan(value));
}

TEST_CASE("cublasLtMatrixTransform adds transposed matrices of other types and orders") {
  const std::int64_t m = 5, n = 3;
  test::DeviceArray a(CUDA_R_16BF, test::random_values(CUDA_R_16BF, 15, 1)),
      b(CUDA_R_32F, test::random_values(CUDA_R_32F, 24, 2));
  test::DeviceArray c(CUDA_R_32F, std::size_t{20});
  cublasLtHandle_t handle;
  cublasLtCreate(&handle);
  cublasLtMatrixTransformDesc_t descriptor;
  cublasLtMatrixTransformDescCreate(&descriptor, CUDA_R_32F);
  const std::int32_t transposed = CUBLAS_OP_T;
  cublasLtMatrixTransformDescSetAttribute(descriptor, CUBLASLT_MATRIX_TRANSFORM_DESC_TRANSA, &transposed,
                                          sizeof transposed);
  cublasLtMatrixLayout_t a_layout, b_layout, c_layout;
  cublasLtMatrixLayoutCreate(&a_layout, CUDA_R_16BF, n, m, n);
  cublasLtMatrixLayoutCreate(&b_layout, CUDA_R_32F, m, n, 8);
  cublasLtMatrixLayoutCreate(&c_layout, CUDA_R_32F, m, n, 4);
  LtCall::set(c_layout, CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{CUBLASLT_ORDER_ROW});
  const float alpha = 2, beta = -1;
  REQUIRE(cublasLtMatrixTransform(handle, descriptor, &alpha, a.address(), a_layout, &beta, b.address(),
                                  b_layout, c.address(), c_layout, nullptr) == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(mock::take_reports().empty());
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const auto at = [](std::int64_t index) { return static_cast<std::size_t>(index); };
      const double wanted = 2 * a.read()[at(j + i * n)] - b.read()[at(i + j * 8)];
      REQUIRE(std::abs(c.read()[at(i * 4 + j)] - wanted) <= 0x1p-24 * std::abs(wanted));
    }
  }
  REQUIRE(cublasLtMatrixTransform(handle, descriptor, &alpha, a.address(), b_layout, &beta, nullptr, nullptr,
                                  c.address(), c_layout, nullptr) == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(mock::take_reports(), "op(A) is 3 x 5 but C is 5 x 3"));
  for (cublasLtMatrixLayout_t layout : {a_layout, b_layout, c_layout}) cublasLtMatrixLayoutDestroy(layout);
  cublasLtMatrixTransformDescDestroy(descriptor);
  cublasLtDestroy(handle);
}

TEST_CASE("the product reaches 10 GFLOP/s", "[.speed]") {
  using namespace emulator::blas;
  constexpr std::int64_t kSize = 512;
  const std::vector<float> a(kSize * kSize, 1.0f), b(kSize * kSize, 1.0f);
  for (const Type type : {Type::bf16, Type::f32}) {
    const Product product{kSize, kSize, kSize, {a.data(), type, 1, kSize}, {b.data(), type, kSize, 1}};
    double sum = 0;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 10; ++i) multiply(product, 0, [&](const Tile& tile) { sum += tile.sums[0]; });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    WARN(name_of(type) << ": " << 10 * 2e-9 * kSize * kSize * kSize / seconds << " GFLOP/s");
    REQUIRE(10 * 2e-9 * kSize * kSize * kSize / seconds >= 10);
  }
}
