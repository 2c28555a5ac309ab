#pragma once

#include <cudnn.h>

#include <memory>
#include <optional>
#include <vector>

#include "cublas/tests/device_array.h"

namespace test {

enum class Pass { forward, data, filter };

/// One convolution, described.
struct ConvCase {
  Pass pass = Pass::forward;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnTensorFormat_t format = CUDNN_TENSOR_NHWC;
  int n = 2, c = 8, h = 6, w = 5, k = 16;
  int r = 3, s = 3, pad = 1, stride = 1, dilation = 1;
  float alpha = 1, beta = 0;
};

/// Owns the handle, descriptors and arrays of a case; everything can be changed before call().
struct ConvCall {
  explicit ConvCall(const ConvCase& wanted);
  ~ConvCall();
  ConvCall(const ConvCall&) = delete;

  cudnnStatus_t call();

  /// What the pass writes, as naive loops in f64 say.
  std::vector<double> expected() const;
  DeviceArray& output() { return c.pass == Pass::forward ? *y_array : c.pass == Pass::data ? *x_array : *w_array; }

  std::size_t at_x(int n, int c, int h, int w) const;
  std::size_t at_w(int k, int c, int r, int s) const;
  std::size_t at_y(int n, int k, int i, int j) const;

  ConvCase c;
  int out_h, out_w;
  cudaDataType element;
  cudnnHandle_t handle = nullptr;
  cudnnTensorDescriptor_t x_desc = nullptr, y_desc = nullptr;
  cudnnFilterDescriptor_t w_desc = nullptr;
  cudnnConvolutionDescriptor_t conv = nullptr;
  std::vector<double> x, w, y;  // as stored before the call
  std::optional<DeviceArray> x_array, w_array, y_array, workspace;
  void *x_address, *w_address, *y_address, *workspace_address;
  std::size_t workspace_bytes = 0;
  const void *alpha, *beta;
  int algo = 1;
};

}  // namespace test
