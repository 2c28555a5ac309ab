#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/dtype.h"

/// Convolutions of images whose channels lie innermost, by cuDNN or as products of matrices. Needs nothing of CUDA's
/// headers.
namespace dino::cuda {

/// Which of the three arrays is the result.
enum class ConvolutionPass { output, input, filters };

/// The sizes of one convolution.
struct ConvolutionShape {
  int64_t images, height, width, in_channels, out_height, out_width, out_channels, kernel, stride, pad;

  int64_t pixels() const { return images * out_height * out_width; }  ///< of the output
  int64_t patch() const { return in_channels * kernel * kernel; }     ///< inputs of one output
};

/// The arrays of one convolution: x [images, height, width, in], filters [out, kernel, kernel, in], y [images,
/// out_height, out_width, out], all dense but for `filter_stride`, from filter to filter. All but the result are of
/// type `dtype`.
struct ConvolutionArrays {
  Dtype dtype;
  void *x, *filters, *y;
  int64_t filter_stride;
};

/// Whether cuDNN says that it has an algorithm for the pass that gives the same bits every time, in f32 without TF32.
bool library_convolves(CudaStream& stream, ConvolutionPass pass, const ConvolutionShape& shape,
                       const ConvolutionArrays& arrays);

/// result = convolution + beta · result, by cuDNN; needs filter_stride = patch() and filters of type `dtype`. Returns
/// false if cuDNN refuses after all; library_convolves() knows it then. Uses `stream.workspace()`; may be recorded in a
/// graph if an equal call ran before.
bool convolve_by_library(CudaStream& stream, ConvolutionPass pass, const ConvolutionShape& shape, float beta,
                         const ConvolutionArrays& arrays);

/// convolve_by_columns() takes as many images at a time as need this much scratch memory, but at least one.
inline constexpr int64_t kColumnsBytes = int64_t{64} << 20;

/// Scratch memory in bytes that convolve_by_columns() needs.
size_t columns_scratch(ConvolutionPass pass, const ConvolutionShape& shape, Dtype dtype,
                       int64_t most_bytes = kColumnsBytes);

/// result = convolution + beta · result, as products of matrices: takes any sizes, types and alignments. Filters, as a
/// result, are f32. `scratch` is aligned to 256 bytes.
void convolve_by_columns(CudaStream& stream, ConvolutionPass pass, const ConvolutionShape& shape, float beta,
                         const ConvolutionArrays& arrays, std::byte* scratch, int64_t most_bytes = kColumnsBytes);

/// The distance between filters at which convolve_by_columns() is fastest.
inline int64_t columns_stride(const ConvolutionShape& shape) { return (shape.patch() + 7) / 8 * 8; }

}  // namespace dino::cuda
