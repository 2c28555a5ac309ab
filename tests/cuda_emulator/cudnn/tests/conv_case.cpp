#include "cudnn/tests/conv_case.h"

#include <catch2/catch.hpp>

namespace test {
namespace {

cudaDataType element_of(cudnnDataType_t type) {
  return type == CUDNN_DATA_FLOAT ? CUDA_R_32F : type == CUDNN_DATA_HALF ? CUDA_R_16F : CUDA_R_16BF;
}

/// Place of (i, c, h, w) among `channels` × `height` × `width`.
std::size_t place(cudnnTensorFormat_t format, int i, int c, int h, int w, int channels, int height, int width) {
  const int at = format == CUDNN_TENSOR_NHWC ? ((i * height + h) * width + w) * channels + c
                                             : ((i * channels + c) * height + h) * width + w;
  return static_cast<std::size_t>(at);
}

std::size_t product(int a, int b, int c, int d) { return static_cast<std::size_t>(a * b * c * d); }

}  // namespace

ConvCall::ConvCall(const ConvCase& wanted)
    : c(wanted), element(element_of(wanted.type)), alpha(&c.alpha), beta(&c.beta) {
  out_h = (c.h + 2 * c.pad - (c.r - 1) * c.dilation - 1) / c.stride + 1;
  out_w = (c.w + 2 * c.pad - (c.s - 1) * c.dilation - 1) / c.stride + 1;
  cudnnCreate(&handle);
  cudnnCreateTensorDescriptor(&x_desc);
  cudnnCreateTensorDescriptor(&y_desc);
  cudnnCreateFilterDescriptor(&w_desc);
  cudnnCreateConvolutionDescriptor(&conv);
  REQUIRE(cudnnSetTensor4dDescriptor(x_desc, c.format, c.type, c.n, c.c, c.h, c.w) == CUDNN_STATUS_SUCCESS);
  REQUIRE(cudnnSetTensor4dDescriptor(y_desc, c.format, c.type, c.n, c.k, out_h, out_w) == CUDNN_STATUS_SUCCESS);
  REQUIRE(cudnnSetFilter4dDescriptor(w_desc, c.type, c.format, c.k, c.c, c.r, c.s) == CUDNN_STATUS_SUCCESS);
  REQUIRE(cudnnSetConvolution2dDescriptor(conv, c.pad, c.pad, c.stride, c.stride, c.dilation, c.dilation,
                                          CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT) == CUDNN_STATUS_SUCCESS);
  x = random_values(element, product(c.n, c.c, c.h, c.w), 1);
  w = random_values(element, product(c.k, c.c, c.r, c.s), 2);
  y = random_values(element, product(c.n, c.k, out_h, out_w), 3);
  const auto make = [&](std::optional<DeviceArray>& array, const std::vector<double>& values, bool is_output) {
    array.emplace(element, values.size());
    if (!is_output || c.beta != 0) array->write(values);
    return array->address();
  };
  x_address = make(x_array, x, c.pass == Pass::data);
  w_address = make(w_array, w, c.pass == Pass::filter);
  y_address = make(y_array, y, c.pass == Pass::forward);
  workspace.emplace(CUDA_R_32F, std::size_t{1} << 16);
  workspace_address = workspace->address();
  workspace_bytes = workspace->bytes();
}

ConvCall::~ConvCall() {
  cudnnDestroyConvolutionDescriptor(conv);
  cudnnDestroyFilterDescriptor(w_desc);
  cudnnDestroyTensorDescriptor(y_desc);
  cudnnDestroyTensorDescriptor(x_desc);
  cudnnDestroy(handle);
}

cudnnStatus_t ConvCall::call() {
  switch (c.pass) {
    case Pass::forward:
      return cudnnConvolutionForward(handle, alpha, x_desc, x_address, w_desc, w_address, conv,
                                     static_cast<cudnnConvolutionFwdAlgo_t>(algo), workspace_address, workspace_bytes,
                                     beta, y_desc, y_address);
    case Pass::data:
      return cudnnConvolutionBackwardData(handle, alpha, w_desc, w_address, y_desc, y_address, conv,
                                          static_cast<cudnnConvolutionBwdDataAlgo_t>(algo), workspace_address,
                                          workspace_bytes, beta, x_desc, x_address);
    default:
      return cudnnConvolutionBackwardFilter(handle, alpha, x_desc, x_address, y_desc, y_address, conv,
                                            static_cast<cudnnConvolutionBwdFilterAlgo_t>(algo), workspace_address,
                                            workspace_bytes, beta, w_desc, w_address);
  }
}

std::size_t ConvCall::at_x(int n, int channel, int h, int v) const {
  return place(c.format, n, channel, h, v, c.c, c.h, c.w);
}
std::size_t ConvCall::at_w(int k, int channel, int r, int s) const {
  return place(c.format, k, channel, r, s, c.c, c.r, c.s);
}
std::size_t ConvCall::at_y(int n, int k, int i, int j) const { return place(c.format, n, k, i, j, c.k, out_h, out_w); }

std::vector<double> ConvCall::expected() const {
  const std::vector<double>& before = c.pass == Pass::forward ? y : c.pass == Pass::data ? x : w;
  std::vector<double> sums(before.size());
  for (int n = 0; n < c.n; ++n)
    for (int k = 0; k < c.k; ++k)
      for (int i = 0; i < out_h; ++i)
        for (int j = 0; j < out_w; ++j)
          for (int r = 0; r < c.r; ++r)
            for (int s = 0; s < c.s; ++s) {
              const int h = i * c.stride - c.pad + r * c.dilation, v = j * c.stride - c.pad + s * c.dilation;
              if (h < 0 || h >= c.h || v < 0 || v >= c.w) continue;
              for (int channel = 0; channel < c.c; ++channel) {
                const std::size_t xi = at_x(n, channel, h, v), wi = at_w(k, channel, r, s), yi = at_y(n, k, i, j);
                if (c.pass == Pass::forward) sums[yi] += x[xi] * w[wi];
                if (c.pass == Pass::data) sums[xi] += y[yi] * w[wi];
                if (c.pass == Pass::filter) sums[wi] += x[xi] * y[yi];
              }
            }
  for (std::size_t i = 0; i < sums.size(); ++i)
    sums[i] = static_cast<double>(c.alpha) * sums[i] + static_cast<double>(c.beta) * before[i];
  return sums;
}

}  // namespace test
