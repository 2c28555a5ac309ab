#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cudnn/objects.h"

namespace emulator::dnn {

enum class Pass : std::uint8_t { forward, data, filter };

/// A tensor or a bank of filters in device memory, without gaps: element (i, c, h, w) lies i * stride[0] + c *
/// stride[1] + h * stride[2] + w * stride[3] elements behind the address.
struct Volume {
  const char* name = "";
  void* address = nullptr;
  blas::Type type = blas::Type::f32;
  std::int64_t extent[4] = {}, stride[4] = {};

  std::int64_t count() const { return extent[0] * extent[1] * extent[2] * extent[3]; }
  std::size_t bytes() const { return static_cast<std::size_t>(count()) * blas::bytes_of(type); }
  bool is_nhwc() const;
  bool is_nchw() const;
};

/// One of the three convolutions: `alpha` times the result plus `beta` times what was there goes to y, to x (its
/// gradient) or to w (its gradient), as the pass says.
struct Convolution {
  const char* call = "";  // for reports
  Pass pass = Pass::forward;
  Volume x, w, y;
  int pad[2] = {}, stride[2] = {}, dilation[2] = {};
  float alpha = 1, beta = 0;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;

  const Volume& output() const { return pass == Pass::forward ? y : pass == Pass::data ? x : w; }
  Volume& output() { return const_cast<Volume&>(std::as_const(*this).output()); }
  std::vector<Volume> inputs() const;
  std::int64_t rows() const { return y.extent[2] * y.extent[3]; }                 // of one image as a matrix of patches
  std::int64_t patch() const { return w.extent[1] * w.extent[2] * w.extent[3]; }  // its columns
};

/// Checks every rule that can be judged without addresses. Throws Rejected: BAD_PARAM for contradictions, NOT_SUPPORTED
/// for combinations that the library, or the emulator, lacks.
Convolution convolution_of(const char* call, Pass pass, const cudnnTensorStruct* x, const cudnnFilterStruct* w,
                           const cudnnConvolutionStruct* conv, const cudnnTensorStruct* y);

/// Extent of y along h (0) or w (1); throws Rejected if the filter does not fit.
int output_extent(const cudnnConvolutionStruct& conv, int in, int filter, int axis);

/// Throws Rejected unless all that the call reads and writes is aligned and lies in live memory, and the output
/// overlaps nothing.
void require_memory(const Convolution& convolution);

/// Does the work now: checks that inputs were written, computes, marks the output. Reports instead of throwing.
void run(const Convolution& convolution);

}  // namespace emulator::dnn
