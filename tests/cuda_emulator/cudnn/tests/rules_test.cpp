#include <catch2/catch.hpp>
#include <functional>
#include <utility>

#include "cudnn/tests/conv_case.h"

using test::ConvCall;
using test::ConvCase;
using test::Pass;

namespace {

/// A call that breaks one rule: what is changed, and what must come of it.
struct Broken {
  const char* words;  // part of the report
  std::function<void(ConvCall&)> change;
  cudnnStatus_t status = CUDNN_STATUS_BAD_PARAM;
};

constexpr cudnnStatus_t kNull = CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
constexpr cudnnStatus_t kLacking = CUDNN_STATUS_NOT_SUPPORTED;

void* moved(void* address, std::ptrdiff_t bytes) { return static_cast<char*>(address) + bytes; }

/// The call must answer with the status and report the words; nothing may be queued.
void check(const Broken& broken, Pass pass) {
  ConvCall call({.pass = pass});
  mock::take_reports();
  broken.change(call);
  REQUIRE(mock::take_reports().empty());
  INFO(broken.words);
  REQUIRE(call.call() == broken.status);
  mock::synchronize();
  const std::vector<std::string> reports = mock::take_reports();
  REQUIRE(reports.size() == 1);
  INFO(reports[0]);
  REQUIRE(reports[0].starts_with("cudnnConvolution"));
  REQUIRE(test::contains(reports, broken.words));
  REQUIRE_FALSE(mock::written(call.output().address(), 4));
}

std::function<void(ConvCall&)> x_of(cudnnTensorFormat_t format, cudnnDataType_t type, int n, int c, int h, int w) {
  return [=](ConvCall& call) { cudnnSetTensor4dDescriptor(call.x_desc, format, type, n, c, h, w); };
}
std::function<void(ConvCall&)> conv_of(int pad, int stride, cudnnConvolutionMode_t mode, cudnnDataType_t compute) {
  return [=](ConvCall& call) {
    cudnnSetConvolution2dDescriptor(call.conv, pad, pad, stride, stride, 1, 1, mode, compute);
  };
}

constexpr auto kNhwc = CUDNN_TENSOR_NHWC;
constexpr auto kFloat = CUDNN_DATA_FLOAT;
constexpr auto kCross = CUDNN_CROSS_CORRELATION;

}  // namespace

TEST_CASE("the three convolutions reject contradictions and what is not emulated") {
  const Broken cases[] = {
      {"x has 7 channels, the filter 8", x_of(kNhwc, kFloat, 2, 7, 6, 5)},
      {"y has 2 images, x 3", x_of(kNhwc, kFloat, 3, 8, 6, 5)},
      {"the extent h of y is 6, the result's is 7", x_of(kNhwc, kFloat, 2, 8, 7, 5)},
      {"must have one", x_of(kNhwc, CUDNN_DATA_BFLOAT16, 2, 8, 6, 5)},
      {"an NHWC filter needs NHWC tensors", x_of(CUDNN_TENSOR_NCHW, kFloat, 2, 8, 6, 5), kLacking},
      {"gaps between elements are not emulated",
       [](ConvCall& call) { cudnnSetTensor4dDescriptorEx(call.x_desc, kFloat, 2, 8, 6, 5, 300, 1, 50, 10); }, kLacking},
      {"the extent h of y is 6, the result's is 3", conv_of(1, 2, kCross, kFloat)},
      {"the mode CONVOLUTION", conv_of(1, 1, CUDNN_CONVOLUTION, kFloat), kLacking},
      {"the compute type 2 is not emulated", conv_of(1, 1, kCross, CUDNN_DATA_HALF), kLacking},
      {"2 groups are not emulated", [](ConvCall& call) { cudnnSetConvolutionGroupCount(call.conv, 2); }, kLacking},
      {"there are 15 filters",
       [](ConvCall& call) { cudnnSetFilter4dDescriptor(call.w_desc, kFloat, kNhwc, 15, 8, 3, 3); }},
      {"the filter reaches over 9 pixels, the padded image has 8",
       [](ConvCall& call) { cudnnSetFilter4dDescriptor(call.w_desc, kFloat, kNhwc, 16, 8, 9, 3); }},
      {"algorithm 2 does not take this problem", [](ConvCall& call) { call.algo = 2; }, kLacking},
      {"there is no algorithm 8", [](ConvCall& call) { call.algo = 8; }},
      {"bytes of workspace, the call gives 4", [](ConvCall& call) { call.workspace_bytes = 4; }},
      {"the workspace is null", [](ConvCall& call) { call.workspace_address = nullptr; }, kNull},
      {"alpha: the pointer is null", [](ConvCall& call) { call.alpha = nullptr; }, kNull},
      {"is an address of the device", [](ConvCall& call) { call.beta = call.workspace->address(); }},
  };
  for (const Pass pass : {Pass::forward, Pass::data, Pass::filter})
    for (const Broken& broken : cases) check(broken, pass);
}

TEST_CASE("the convolutions reject memory that is missing, misaligned, too small or shared") {
  const Broken cases[] = {
      {"x: the pointer is null", [](ConvCall& call) { call.x_address = nullptr; }, kNull},
      {"w: the address", [](ConvCall& call) { call.w_address = moved(call.w_address, 4); },
       CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER},
      {"x: 1920 bytes at", [](ConvCall& call) { call.x_address = moved(call.x_address, 512); }},
      {"y overlaps w",
       [](ConvCall& call) {
         call.w_array.emplace(CUDA_R_32F, std::size_t{4000});
         call.w_address = call.w_array->address();
         call.y_address = moved(call.w_address, 1024);
       }},
      {"y overlaps the workspace", [](ConvCall& call) { call.y_address = moved(call.workspace->address(), 256); }},
  };
  for (const Broken& broken : cases) check(broken, Pass::forward);
}

TEST_CASE("null and stale handles and descriptors are rejected") {
  ConvCall call(ConvCase{});
  mock::take_reports();
  cudnnHandle_t handle = std::exchange(call.handle, nullptr);
  CHECK(call.call() == CUDNN_STATUS_NOT_INITIALIZED);
  CHECK(test::contains(mock::take_reports(), "the handle is null"));
  call.handle = handle;
  cudnnTensorDescriptor_t kept = std::exchange(call.x_desc, nullptr);
  CHECK(call.call() == kNull);
  CHECK(test::contains(mock::take_reports(), "the descriptor of x is null"));
  cudnnCreateTensorDescriptor(&call.x_desc);
  CHECK(call.call() == CUDNN_STATUS_BAD_PARAM);
  CHECK(test::contains(mock::take_reports(), "the descriptor of x was created but not set"));
  cudnnDestroyTensorDescriptor(call.x_desc);
  call.x_desc = kept;
}

TEST_CASE("setters reject impossible values") {
  ConvCall call(ConvCase{});
  mock::take_reports();
  CHECK(cudnnSetTensor4dDescriptor(call.x_desc, kNhwc, kFloat, 2, 0, 6, 5) == CUDNN_STATUS_BAD_PARAM);
  CHECK(cudnnSetFilter4dDescriptor(call.w_desc, kFloat, static_cast<cudnnTensorFormat_t>(3), 1, 1, 1, 1) ==
        CUDNN_STATUS_BAD_PARAM);
  CHECK(cudnnSetConvolution2dDescriptor(call.conv, -1, 0, 1, 1, 1, 1, kCross, kFloat) == CUDNN_STATUS_BAD_PARAM);
  CHECK(cudnnSetConvolution2dDescriptor(call.conv, 0, 0, 0, 1, 1, 1, kCross, kFloat) == CUDNN_STATUS_BAD_PARAM);
  CHECK(mock::take_reports().size() == 4);
}

TEST_CASE("inputs that nobody wrote and memory that goes before the work runs are reported, and survived") {
  ConvCall call({.beta = 1});
  mock::take_reports();
  call.y_array.emplace(call.element, call.y.size());
  call.y_address = call.y_array->address();
  REQUIRE(call.call() == CUDNN_STATUS_SUCCESS);
  mock::synchronize();
  CHECK(test::contains(mock::take_reports(), "cudnnConvolutionForward: y: reads bytes that nobody wrote"));
  REQUIRE(call.call() == CUDNN_STATUS_SUCCESS);
  call.w_array.reset();
  mock::synchronize();
  CHECK(test::contains(mock::take_reports(), "w: 4608 bytes at"));
}
