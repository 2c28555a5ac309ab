#pragma once

#include "kernels/launch.cuh"
#include "kernels/render_crops.h"

/// The two kernels behind `render_crops`, and what they share.
namespace dino::cuda {

/// `count` crops of a kind, global or local, in the order of the result's rows: crop by crop, `images` of each from
/// image `first` of the batch on.
struct CropSelection {
  const std::byte* packed;
  int64_t batch;          ///< images in the packed batch
  int64_t first, images;  ///< of the batch that are rendered
  int64_t first_crop;     ///< 0 for globals, 2 for locals
  int64_t begin = 0;      ///< the row of the result with which a launch begins
  int64_t count = 0;

  /// Crop `i` of a launch.
  __device__ const CropDescriptor& operator[](int64_t i) const {
    const int64_t row = begin + i, crop = first_crop + row / images, image = first + row % images;
    return reinterpret_cast<const CropDescriptor*>(packed)[crop * batch + image];
  }
};

/// Crops of `size` x `size` pixels in 8 bits. Rows begin at multiples of 4 bytes, crops at multiples of 256.
struct CropPixels {
  uint8_t* data;
  int size, channels;

  __host__ __device__ int row_values() const { return size * channels; }
  __host__ __device__ int pitch() const { return (row_values() + 3) / 4 * 4; }
  __host__ __device__ size_t crop_bytes() const { return (size_t(size) * pitch() + 255) / 256 * 256; }
  __device__ uint8_t* crop(int64_t i) const { return data + i * crop_bytes(); }
};

/// Cuts the boxes out of their images, resizes them and mirrors those that want it.
void resample_crops(CudaStream& stream, const CropSelection& selection, const CropPixels& to);

/// Colour, gray, blur, solarize and normalisation. The crops lie in scratch memory, which this overwrites; `spare` is
/// as large and needed only unless `crops_fit_shared_memory`. `out` is the row of the result with which the launch
/// begins.
void finish_crops(CudaStream& stream, const CropSelection& selection, const CropPixels& crops, uint8_t* spare,
                  const PixelScale& scale, const View& out);

/// Whether a block can hold a whole crop.
bool crops_fit_shared_memory(const CropPixels& crops);

/// Calls `f` with `channels` as a compile-time constant.
template <class F>
decltype(auto) with_channels(int channels, F&& f) {
  switch (channels) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    default:
      return f(std::integral_constant<int, 4>());
  }
}

}  // namespace dino::cuda
