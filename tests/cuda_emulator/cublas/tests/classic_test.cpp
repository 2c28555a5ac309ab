#include <cublas_v2.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "cublas/tests/device_array.h"

using test::DeviceArray;
using test::random_values;

namespace {

struct Handle {
  Handle() { cublasCreate(&handle); }
  ~Handle() { cublasDestroy(handle); }
  operator cublasHandle_t() const { return handle; }
  cublasHandle_t handle;
};

/// alpha op(A) op(B) + beta C in f64, of column-major matrices, in place.
struct Naive {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b;
  std::int64_t lda, ldb, ldc;
  double alpha, beta;

  std::vector<double> operator()(const std::vector<double>& a, const std::vector<double>& b,
                                 std::vector<double> c) const {
    const auto at = [](std::int64_t row, std::int64_t column, std::int64_t ld) {
      return static_cast<std::size_t>(row + column * ld);
    };
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t i = 0; i < m; ++i) {
        double sum = 0;
        for (std::int64_t l = 0; l < k; ++l) {
          sum +=
              a[transpose_a ? at(l, i, lda) : at(i, l, lda)] * b[transpose_b ? at(j, l, ldb) : at(l, j, ldb)];
        }
        double& element = c[at(i, j, ldc)];
        element = alpha * sum + (beta == 0 ? 0 : beta * element);
      }
    }
    return c;
  }
};

/// |got - wanted| within `terms` roundings of values of size up to `size`, and the rounding of the result.
void require_close(const std::vector<double>& got, const std::vector<double>& wanted, double unit,
                   double terms, double size) {
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    REQUIRE(std::abs(got[i] - wanted[i]) <= unit * (terms * size + std::abs(wanted[i])));
}

void no_reports() {
  for (const std::string& report : mock::take_reports()) FAIL(report);
}

constexpr Naive kShape{7, 5, 9, false, true, 8, 6, 7, 0.5, -1};
constexpr std::size_t kA = 8 * 9, kB = 6 * 9, kC = 7 * 5;
constexpr double kTerms = 9 + 3;  // of a sum of products of numbers up to 1

}  // namespace

TEST_CASE("gemm of each type agrees with a naive loop") {
  const Handle handle;
  const auto run = [&](cudaDataType type, auto real, auto multiply) {
    using Real = decltype(real);
    const std::vector<double> a = random_values(type, kA, 1), b = random_values(type, kB, 2),
                              c = random_values(type, kC, 3);
    const DeviceArray x(type, a), y(type, b), z(type, c);
    const Real alpha = static_cast<Real>(0.5f), beta = static_cast<Real>(-1.0f);
    REQUIRE(multiply(handle, CUBLAS_OP_N, CUBLAS_OP_T, 7, 5, 9, &alpha, x.as<Real>(), 8, y.as<Real>(), 6,
                     &beta, z.as<Real>(), 7) == CUBLAS_STATUS_SUCCESS);
    mock::synchronize();
    no_reports();
    const double unit = type == CUDA_R_64F ? 0x1p-53 : 0x1p-24;
    const double output = type == CUDA_R_16F ? 0x1p-11 / unit : 1;
    require_close(z.read(), kShape(a, b, c), unit * output, kTerms, 9);
  };
  run(CUDA_R_32F, float{}, cublasSgemm);
  run(CUDA_R_64F, double{}, cublasDgemm);
  run(CUDA_R_16F, __half{}, [](auto&&... arguments) { return cublasHgemm(arguments...); });
  run(CUDA_R_32F, float{}, cublasSgemm_64);
}

TEST_CASE("GemmEx takes bf16 in and f32 out") {
  const Handle handle;
  const std::vector<double> a = random_values(CUDA_R_16BF, kA, 1), b = random_values(CUDA_R_16BF, kB, 2),
                            c = random_values(CUDA_R_32F, kC, 3);
  const DeviceArray x(CUDA_R_16BF, a), y(CUDA_R_16BF, b), z(CUDA_R_32F, c);
  const float alpha = 0.5f, beta = -1.0f;
  REQUIRE(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_T, 7, 5, 9, &alpha, x.address(), CUDA_R_16BF, 8,
                       y.address(), CUDA_R_16BF, 6, &beta, z.address(), CUDA_R_32F, 7, CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  no_reports();
  require_close(z.read(), kShape(a, b, c), 0x1p-24, kTerms, 9);
}

TEST_CASE("batches by stride and by arrays of pointers in device memory agree with single products") {
  const Handle handle;
  const std::vector<double> a = random_values(CUDA_R_32F, 3 * kA, 1),
                            b = random_values(CUDA_R_32F, 3 * kB, 2),
                            c = random_values(CUDA_R_32F, 3 * kC, 3);
  const DeviceArray x(CUDA_R_32F, a), y(CUDA_R_32F, b), strided(CUDA_R_32F, c), listed(CUDA_R_32F, c);
  DeviceArray lists[3] = {{CUDA_R_64F, std::vector<double>(3)},
                          {CUDA_R_64F, std::vector<double>(3)},
                          {CUDA_R_64F, std::vector<double>(3)}};
  const DeviceArray* arrays[3] = {&x, &y, &listed};
  const std::size_t strides[3] = {kA, kB, kC};
  for (std::size_t i = 0; i < 9; ++i) {
    static_cast<void**>(mock::host(lists[i / 3].address(), 24))[i % 3] =
        arrays[i / 3]->element(i % 3 * strides[i / 3]);
  }
  const float alpha = 0.5f, beta = -1.0f;
  REQUIRE(cublasSgemmStridedBatched(handle, CUBLAS_OP_N, CUBLAS_OP_T, 7, 5, 9, &alpha, x.as<float>(), 8, kA,
                                    y.as<float>(), 6, kB, &beta, strided.as<float>(), 7, kC,
                                    3) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cublasSgemmBatched(handle, CUBLAS_OP_N, CUBLAS_OP_T, 7, 5, 9, &alpha, lists[0].as<const float*>(),
                             8, lists[1].as<const float*>(), 6, &beta, lists[2].as<float*>(), 7,
                             3) == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  no_reports();
  REQUIRE(strided.read() == listed.read());
  for (std::size_t i = 0; i < 3; ++i) {
    const auto part = [&](const std::vector<double>& from, std::size_t size) {
      return std::vector<double>(from.begin() + static_cast<std::ptrdiff_t>(i * size),
                                 from.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
    };
    require_close(part(strided.read(), kC), kShape(part(a, kA), part(b, kB), part(c, kC)), 0x1p-24, kTerms,
                  9);
  }
  static_cast<void**>(mock::host(lists[0].address(), 24))[1] = nullptr;
  REQUIRE(cublasSgemmBatched(handle, CUBLAS_OP_N, CUBLAS_OP_T, 7, 5, 9, &alpha, lists[0].as<const float*>(),
                             8, lists[1].as<const float*>(), 6, &beta, lists[2].as<float*>(), 7,
                             3) == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(test::contains(mock::take_reports(),
                         "cublasSgemmBatched: matrix 1 of the batch: A: the pointer is null"));
}

TEST_CASE("gemm without terms scales C, and without rows does nothing") {
  const Handle handle;
  const DeviceArray c(CUDA_R_32F, std::vector<double>{1, 2, 3, 4});
  const float alpha = 1, beta = 2;
  REQUIRE(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 0, &alpha, nullptr, 2, nullptr, 1, &beta,
                      c.as<float>(), 2) == 0);
  REQUIRE(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 0, 2, 1, &alpha, nullptr, 1, nullptr, 1, &beta,
                      nullptr, 1) == 0);
  mock::synchronize();
  no_reports();
  REQUIRE(c.read() == std::vector<double>{2, 4, 6, 8});
}

TEST_CASE("gemm breaks no rule silently") {
  const Handle handle;
  const DeviceArray a(CUDA_R_32F, random_values(CUDA_R_32F, 64, 1)),
      c(CUDA_R_32F, random_values(CUDA_R_32F, 64, 1));
  const float one = 1;
  const auto fails = [&](cublasStatus_t status, const char* words, int m, int lda, const float* alpha,
                         float* to, cublasHandle_t with) {
    CAPTURE(words);
    REQUIRE(cublasSgemm(with, CUBLAS_OP_N, CUBLAS_OP_N, m, 4, 4, alpha, a.as<float>(), lda, a.as<float>(), 4,
                        &one, to, 4) == status);
    REQUIRE(test::contains(mock::take_reports(), words));
  };
  fails(CUBLAS_STATUS_INVALID_VALUE, "cublasSgemm_v2: m -1", -1, 4, &one, c.as<float>(), handle);
  fails(CUBLAS_STATUS_INVALID_VALUE, "A: leading dimension 3 is less than rows 4", 4, 3, &one, c.as<float>(),
        handle);
  fails(CUBLAS_STATUS_INVALID_VALUE, "alpha: the pointer is null", 4, 4, nullptr, c.as<float>(), handle);
  fails(CUBLAS_STATUS_INVALID_VALUE, "C [", 4, 4, &one, a.as<float>(), handle);
  fails(CUBLAS_STATUS_INVALID_VALUE, "A: 448 bytes", 4, 4 + 32, &one, c.as<float>(), handle);
  fails(CUBLAS_STATUS_NOT_INITIALIZED, "the handle is null", 4, 4, &one, c.as<float>(), nullptr);
  REQUIRE(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, a.address(), CUDA_R_8I, 4,
                       a.address(), CUDA_R_8I, 4, &one, c.address(), CUDA_R_32F, 4, CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_NOT_SUPPORTED);
  REQUIRE(mock::take_reports().size() == 1);
}

TEST_CASE("vector functions agree with their definitions, with increments of both signs") {
  const Handle handle;
  const DeviceArray x(CUDA_R_32F, std::vector<double>{1, 9, -2, 9, 3}),
      y(CUDA_R_32F, std::vector<double>{10, 20, 30});
  float result = 0;
  int index = 0;
  REQUIRE(cublasSdot(handle, 3, x.as<float>(), 2, y.as<float>(), -1, &result) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(result == 1 * 30 - 2 * 20 + 3 * 10);
  REQUIRE(cublasSnrm2(handle, 3, x.as<float>(), 2, &result) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(result == std::sqrt(14.0f));
  REQUIRE(cublasSasum(handle, 3, x.as<float>(), 2, &result) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(result == 6);
  REQUIRE(cublasIsamax(handle, 3, x.as<float>(), 2, &index) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(index == 3);
  const float two = 2;
  REQUIRE(cublasSaxpy(handle, 3, &two, x.as<float>(), 2, y.as<float>(), 1) == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(y.read() == std::vector<double>{12, 16, 36});
  REQUIRE(cublasSscal(handle, 2, &two, y.as<float>(), 2) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cublasScopy(handle, 2, y.as<float>(), 2, x.as<float>(), -1) == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(y.read() == std::vector<double>{24, 16, 72});
  REQUIRE(x.read() == std::vector<double>{72, 24, -2, 9, 3});
  no_reports();
  const DeviceArray place(CUDA_R_32F, std::size_t{1});
  REQUIRE(cublasSdot(handle, 3, x.as<float>(), 1, y.as<float>(), 1, place.as<float>()) ==
          CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(mock::take_reports(), "but the pointer mode is HOST"));
  cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_DEVICE);
  REQUIRE(cublasSasum(handle, 3, y.as<float>(), 1, place.as<float>()) == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(place.read()[0] == 112);
}

TEST_CASE("gemv, ger and geam agree with naive loops") {
  const Handle handle;
  const std::vector<double> a = random_values(CUDA_R_64F, 20, 1), x = random_values(CUDA_R_64F, 8, 2),
                            y = random_values(CUDA_R_64F, 8, 3);
  const double alpha = 2, beta = -1;
  for (const bool transposed : {false, true}) {  // A is 4 x 3 with leading dimension 5
    const DeviceArray matrix(CUDA_R_64F, a), from(CUDA_R_64F, x), to(CUDA_R_64F, y);
    REQUIRE(cublasDgemv(handle, transposed ? CUBLAS_OP_T : CUBLAS_OP_N, 4, 3, &alpha, matrix.as<double>(), 5,
                        from.as<double>(), 2, &beta, to.as<double>(), 1) == CUBLAS_STATUS_SUCCESS);
    mock::synchronize();
    const std::vector<double> got = to.read();
    for (std::size_t i = 0; i < (transposed ? 3 : 4); ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < (transposed ? 4 : 3); ++j)
        sum += a[transposed ? j + i * 5 : i + j * 5] * x[2 * j];
      REQUIRE(std::abs(got[i] - (2 * sum - y[i])) <= 8 * 0x1p-53 * 9);
    }
  }
  const DeviceArray matrix(CUDA_R_64F, a), left(CUDA_R_64F, x), right(CUDA_R_64F, y),
      sum(CUDA_R_64F, std::size_t{12});
  REQUIRE(cublasDger(handle, 4, 3, &alpha, left.as<double>(), 1, right.as<double>(), 1, matrix.as<double>(),
                     5) == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(std::abs(matrix.read()[2 + 5] - (a[2 + 5] + 2 * x[2] * y[1])) <= 0x1p-51);
  REQUIRE(matrix.read()[4] == a[4]);
  REQUIRE(cublasDgeam(handle, CUBLAS_OP_T, CUBLAS_OP_N, 3, 4, &alpha, matrix.as<double>(), 5, &beta,
                      left.as<double>(), 3, sum.as<double>(),
                      3) == CUBLAS_STATUS_INVALID_VALUE);  // x has only 8 elements
  REQUIRE(test::contains(mock::take_reports(), "B: 96 bytes"));
  const double zero = 0;
  REQUIRE(cublasDgeam(handle, CUBLAS_OP_T, CUBLAS_OP_N, 3, 4, &alpha, matrix.as<double>(), 5, &zero, nullptr,
                      3, sum.as<double>(), 3) == 0);
  mock::synchronize();
  REQUIRE(sum.read()[1 + 2 * 3] == 2 * matrix.read()[2 + 5]);
  no_reports();
}

TEST_CASE("vectors and matrices are copied to the device and back") {
  const std::vector<float> from{1, 2, 3, 4, 5, 6};
  std::vector<float> back(6, 0.0f);
  const DeviceArray place(CUDA_R_32F, std::size_t{8});
  REQUIRE(cublasSetMatrix(2, 2, 4, from.data(), 3, place.address(), 4) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cublasGetMatrix(2, 2, 4, place.address(), 4, back.data(), 2) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(back == std::vector<float>{1, 2, 4, 5, 0, 0});
  REQUIRE(cublasSetVector(3, 4, from.data(), 2, place.address(), 1) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cublasGetVector(3, 4, place.address(), 1, back.data(), 2) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(back == std::vector<float>{1, 2, 3, 5, 5, 0});
  no_reports();
  REQUIRE(cublasSetVector(3, 0, from.data(), 2, place.address(), 1) == CUBLAS_STATUS_INVALID_VALUE);
  mock::take_reports();
}

TEST_CASE("handles keep their settings and refuse unknown ones") {
  const Handle handle;
  cublasMath_t math;
  REQUIRE(cublasSetMathMode(handle, CUBLAS_TF32_TENSOR_OP_MATH) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cublasGetMathMode(handle, &math) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(math == CUBLAS_TF32_TENSOR_OP_MATH);
  cublasPointerMode_t mode, unknown;
  std::memset(&unknown, 7, sizeof unknown);  // C programs can
  REQUIRE(cublasSetPointerMode(handle, unknown) == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(cublasGetPointerMode(handle, &mode) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(mode == CUBLAS_POINTER_MODE_HOST);
  int version = 0;
  REQUIRE(cublasGetVersion(handle, &version) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(version == CUBLAS_VERSION);
  REQUIRE(cublasSetWorkspace(handle, reinterpret_cast<void*>(std::uintptr_t{8}), 16) ==
          CUBLAS_STATUS_INVALID_VALUE);
  mock::take_reports();
}
