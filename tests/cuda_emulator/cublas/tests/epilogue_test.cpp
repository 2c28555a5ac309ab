#include <catch2/catch.hpp>

#include "cublas/epilogue.h"
#include "cublas/tests/lt_case.h"

using test::LtCall;
using test::LtCase;

namespace {

constexpr unsigned kEpilogues[] = {
    CUBLASLT_EPILOGUE_RELU,          CUBLASLT_EPILOGUE_BIAS,          CUBLASLT_EPILOGUE_RELU_BIAS,
    CUBLASLT_EPILOGUE_RELU_AUX,      CUBLASLT_EPILOGUE_DRELU,         CUBLASLT_EPILOGUE_DRELU_BGRAD,
    CUBLASLT_EPILOGUE_RELU_AUX_BIAS, CUBLASLT_EPILOGUE_GELU,          CUBLASLT_EPILOGUE_GELU_AUX,
    CUBLASLT_EPILOGUE_GELU_BIAS,     CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU,
    CUBLASLT_EPILOGUE_BGRADA,        CUBLASLT_EPILOGUE_BGRADB,        CUBLASLT_EPILOGUE_DGELU_BGRAD,
};

}  // namespace

TEST_CASE("every epilogue agrees with a naive loop, for every output type and transpose") {
  const cudaDataType types[][2] = {{CUDA_R_32F, CUDA_R_32F},
                                   {CUDA_R_16BF, CUDA_R_16BF},
                                   {CUDA_R_16BF, CUDA_R_32F},
                                   {CUDA_R_16F, CUDA_R_16F}};
  for (const auto& [input, output] : types) {
    for (const unsigned epilogue : kEpilogues) {
      for (int transposes = 0; transposes < 4; ++transposes) {
        LtCase c;
        c.input = input;
        c.output = output;
        c.epilogue = epilogue;
        c.transpose_a = (transposes & 1) != 0;
        c.transpose_b = (transposes & 2) != 0;
        c.m = 25;  // not a multiple of 8: masks and auxiliary matrices have gaps
        c.alpha = 0.5;
        c.beta = transposes == 3 ? 1 : 0;
        CAPTURE(epilogue, input, output, transposes);
        test::check(c);
      }
    }
  }
}

TEST_CASE("every epilogue works on batches with strides of bias and auxiliary matrix") {
  for (const unsigned epilogue : kEpilogues) {
    LtCase c;
    c.input = CUDA_R_16BF;
    c.epilogue = epilogue;
    c.batch = 3;
    c.padding = 1;
    CAPTURE(epilogue);
    test::check(c);
  }
}

TEST_CASE("epilogues without an auxiliary matrix work on a row-major D, the bias going along its rows") {
  for (const unsigned epilogue :
       {CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_RELU, CUBLASLT_EPILOGUE_GELU_BIAS}) {
    LtCase c;
    c.epilogue = epilogue;
    c.rows_d = true;
    test::check(c);
  }
}

TEST_CASE("the derivative of GELU is its finite difference") {
  for (double x = -6; x <= 6; x += 0.125) {
    const double difference = (emulator::blas::gelu(x + 1e-6) - emulator::blas::gelu(x - 1e-6)) / 2e-6;
    REQUIRE(std::abs(emulator::blas::gelu_derivative(x) - difference) <=
            1e-9);  // 1e-12 of curvature, 1e-10 of rounding
  }
  REQUIRE(emulator::blas::gelu(0) == 0);
  REQUIRE(std::abs(emulator::blas::gelu(1) - 0.8411919906082768) <= 1e-15);
}

TEST_CASE(
    "the bits that RELU_AUX writes are those that DRELU reads: their product is the derivative of RELU") {
  LtCase forward;
  forward.epilogue = CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
  forward.m = 130;
  LtCall first(forward);
  REQUIRE(first.call() == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  LtCase backward = forward;
  backward.epilogue = CUBLASLT_EPILOGUE_DRELU;
  LtCall second(backward);
  second.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, first.aux_array->address());
  REQUIRE(second.call() == CUBLAS_STATUS_SUCCESS);
  LtCase plain = forward;
  plain.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  LtCall third(plain);
  REQUIRE(third.call() == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(mock::take_reports().empty());
  const std::vector<double> activated = first.d_array->read(), gradient = second.d_array->read(),
                            product = third.d_array->read();
  for (std::size_t i = 0; i < product.size(); ++i)
    REQUIRE(gradient[i] == (activated[i] > 0 ? product[i] : 0));
}

TEST_CASE("NaN goes through RELU and GELU") {
  for (const unsigned epilogue : {CUBLASLT_EPILOGUE_RELU, CUBLASLT_EPILOGUE_GELU}) {
    LtCase c;
    c.epilogue = epilogue;
    LtCall call(c);
    call.a[0] = std::nan("");
    call.a_array->write(call.a);
    REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
    mock::synchronize();
    for (std::int64_t j = 0; j < c.n; ++j) REQUIRE(std::isnan(call.d_array->read()[call.d_index(0, 0, j)]));
    REQUIRE_FALSE(std::isnan(call.d_array->read()[call.d_index(0, 1, 0)]));
  }
}
