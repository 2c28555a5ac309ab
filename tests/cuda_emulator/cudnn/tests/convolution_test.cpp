#include <catch2/catch.hpp>

#include "cudnn/tests/conv_case.h"

using test::ConvCall;
using test::ConvCase;
using test::Pass;

namespace {

constexpr Pass kPasses[] = {Pass::forward, Pass::data, Pass::filter};

void check(const ConvCase& wanted) {
  mock::take_reports();
  ConvCall call(wanted);
  REQUIRE(call.call() == CUDNN_STATUS_SUCCESS);
  REQUIRE_FALSE((wanted.beta == 0 && mock::written(call.output().address(), 4)));  // not before the stream gets there
  mock::synchronize();
  REQUIRE(mock::take_reports().empty());
  REQUIRE(mock::written(call.output().address(), call.output().bytes()));
  const std::vector<double> got = call.output().read(), expected = call.expected();
  double scale = 1, error = 0;
  for (const double value : expected) scale = std::max(scale, std::abs(value));
  for (std::size_t i = 0; i < got.size(); ++i) error = std::max(error, std::abs(got[i] - expected[i]));
  CHECK(error <= scale * (test::unit_of(call.element) + 64 * 0x1p-24));
}

}  // namespace

TEST_CASE("convolutions of every type and layout give what naive loops give, in all three passes") {
  for (const Pass pass : kPasses)
    for (const cudnnDataType_t type : {CUDNN_DATA_FLOAT, CUDNN_DATA_HALF, CUDNN_DATA_BFLOAT16})
      for (const cudnnTensorFormat_t format : {CUDNN_TENSOR_NHWC, CUDNN_TENSOR_NCHW})
        for (const float beta : {0.0f, 0.5f}) {
          ConvCase c{.pass = pass, .type = type, .format = format, .alpha = beta == 0 ? 1.0f : -2.0f, .beta = beta};
          check(c);
          c.stride = 2, c.pad = 0;
          check(c);
          c.r = c.s = 1, c.n = 1;
          check(c);
        }
}

TEST_CASE("convolutions with large filters, strides, paddings and dilations, and any number of channels in f32") {
  for (const Pass pass : kPasses) {
    check({.pass = pass, .c = 3, .h = 11, .w = 9, .k = 5, .r = 7, .s = 7, .pad = 3, .stride = 2});
    check({.pass = pass, .c = 1, .h = 8, .w = 12, .k = 1, .r = 4, .s = 4, .pad = 0, .stride = 4});
    check({.pass = pass, .c = 2, .h = 9, .w = 9, .k = 3, .r = 3, .s = 2, .pad = 2, .dilation = 2});
    check({.pass = pass, .n = 1, .c = 4, .h = 4, .w = 3, .k = 2, .r = 2, .s = 2, .pad = 2, .stride = 3});
  }
}

TEST_CASE("every algorithm that a heuristic calls present takes the call with the workspace that it asks for") {
  for (const Pass pass : kPasses) {
    ConvCall call({.pass = pass});
    int count = 0, deterministic = 0;
    const auto run = [&](auto& results) {
      for (int i = 0; i < count; ++i) {
        call.algo = results[i].algo;
        call.workspace_bytes = results[i].memory;
        if (results[i].memory == 0) call.workspace_address = nullptr;
        CHECK(call.call() == results[i].status);
        call.workspace_address = call.workspace->address();
        deterministic += results[i].status == CUDNN_STATUS_SUCCESS && results[i].determinism == CUDNN_DETERMINISTIC;
      }
    };
    cudnnConvolutionFwdAlgoPerf_t forward[8];
    cudnnConvolutionBwdDataAlgoPerf_t data[8];
    cudnnConvolutionBwdFilterAlgoPerf_t filter[8];
    if (pass == Pass::forward) {
      REQUIRE(cudnnGetConvolutionForwardAlgorithm_v7(call.handle, call.x_desc, call.w_desc, call.conv, call.y_desc, 8,
                                                     &count, forward) == CUDNN_STATUS_SUCCESS);
      run(forward);
    } else if (pass == Pass::data) {
      REQUIRE(cudnnGetConvolutionBackwardDataAlgorithm_v7(call.handle, call.w_desc, call.y_desc, call.conv, call.x_desc,
                                                          8, &count, data) == CUDNN_STATUS_SUCCESS);
      run(data);
    } else {
      REQUIRE(cudnnGetConvolutionBackwardFilterAlgorithm_v7(call.handle, call.x_desc, call.y_desc, call.conv,
                                                            call.w_desc, 8, &count, filter) == CUDNN_STATUS_SUCCESS);
      run(filter);
    }
    CHECK(count > 1);
    CHECK(deterministic > 0);
    mock::synchronize();
    mock::take_reports();
  }
}

TEST_CASE("workspace sizes, output extents and descriptors can be asked for") {
  ConvCall call({.type = CUDNN_DATA_BFLOAT16, .stride = 2});
  size_t bytes = 0, least = 0;
  REQUIRE(cudnnGetConvolutionForwardWorkspaceSize(call.handle, call.x_desc, call.w_desc, call.conv, call.y_desc,
                                                  CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                                                  &bytes) == CUDNN_STATUS_SUCCESS);
  REQUIRE(cudnnGetConvolutionForwardWorkspaceSize(call.handle, call.x_desc, call.w_desc, call.conv, call.y_desc,
                                                  CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
                                                  &least) == CUDNN_STATUS_SUCCESS);
  CHECK(bytes > least);
  CHECK(cudnnGetConvolutionForwardWorkspaceSize(call.handle, call.x_desc, call.w_desc, call.conv, call.y_desc,
                                                CUDNN_CONVOLUTION_FWD_ALGO_FFT, &bytes) == CUDNN_STATUS_NOT_SUPPORTED);
  int n, c, h, w;
  REQUIRE(cudnnGetConvolution2dForwardOutputDim(call.conv, call.x_desc, call.w_desc, &n, &c, &h, &w) ==
          CUDNN_STATUS_SUCCESS);
  CHECK(n == 2);
  CHECK(c == 16);
  CHECK(h == call.out_h);
  CHECK(w == call.out_w);
  REQUIRE(cudnnGetTensorSizeInBytes(call.x_desc, &bytes) == CUDNN_STATUS_SUCCESS);
  CHECK(bytes == 2 * 8 * 6 * 5 * 2);
  CHECK(mock::take_reports().empty());
}

TEST_CASE("half-precision channels that are no multiple of 8 have no algorithm, channels last") {
  ConvCall call({.type = CUDNN_DATA_BFLOAT16, .c = 3});
  int count = 0;
  cudnnConvolutionFwdAlgoPerf_t results[8];
  REQUIRE(cudnnGetConvolutionForwardAlgorithm_v7(call.handle, call.x_desc, call.w_desc, call.conv, call.y_desc, 8,
                                                 &count, results) == CUDNN_STATUS_SUCCESS);
  for (int i = 0; i < count; ++i) CHECK(results[i].status == CUDNN_STATUS_NOT_SUPPORTED);
  CHECK(mock::take_reports().empty());
  CHECK(call.call() == CUDNN_STATUS_NOT_SUPPORTED);
  CHECK(test::contains(mock::take_reports(), "does not take this problem"));
}
